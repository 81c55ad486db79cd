"""Roles of the arguments of a `forward`: embeddings, masks and lengths, recognized by name."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

MaskSense = Literal["real", "ignored", "additive"]
"""Meaning of a mask: 1 = real, 1 = ignored, or a number that is added to attention scores."""
Role = Literal["embeds", "mask", "causal", "lengths"]
WAY_OUT = (
    "define how it is called with forward_fn=lambda module, inputs_embeds, attention_mask: ..., "
    "or register a bridge and pass its name as bridge="
)
# Names are split into words at underscores.
EMBEDDING_WORDS = frozenset({"emb", "embs", "embed", "embeds", "embedding", "embeddings"})
SEQUENCE_WORDS = frozenset(
    {"x", "input", "inputs", "src", "seq", "seqs", "sequence", "sequences", "hidden", "states"}
)
ID_WORDS = frozenset({"id", "ids", "pos", "position", "positions", "time", "times", "type", "user"})
MASK_WORDS = frozenset({"mask", "masks", "pad", "pads", "padding", "padded"})
PADDING_WORDS = frozenset({"pad", "pads", "padding", "padded", "key"})
CAUSAL_NAMES = frozenset({"src_mask", "causal_mask", "tgt_mask", "look_ahead_mask", "future_mask"})
LENGTH_WORDS = frozenset({"len", "lens", "length", "lengths"})
# Names with a common meaning; under any other name, the meaning of 1 has to be measured.
MASK_SENSES: Mapping[str, MaskSense] = {
    "attention_mask": "real",
    "log_mask": "real",
    "valid_mask": "real",
    "key_padding_mask": "ignored",
    "src_key_padding_mask": "ignored",
    "is_pad": "ignored",
    "is_padding": "ignored",
}
BATCH_NAMES = frozenset({"batch", "data", "interaction", "feed_dict", "sample", "features"})


@dataclass(frozen=True)
class Arguments:
    """The roles of the parameters of a function.

    Args:
        embeds: name of the parameter for the embeddings (B, L, D).
        mask: name of the parameter for a mask (B, L), or None.
        causal: name of the parameter for a causal mask (L, L), or None.
        lengths: name of the parameter for lengths (B,), or None.
        positional: names and defaults of the positional-only parameters.
        optional: names of the parameters that default to None.
        follows_protocol: whether the first two parameters are embeddings and mask, and no other is
            required.
        mask_by_place: whether `mask` was recognized by its place only, not by its name.
        batch: whether the first parameter has a name that suggests a mapping of all inputs.
    """

    embeds: str
    mask: str | None = None
    causal: str | None = None
    lengths: str | None = None
    positional: tuple[tuple[str, Any], ...] = ()
    optional: frozenset[str] = frozenset()
    follows_protocol: bool = False
    mask_by_place: bool = False
    batch: bool = False

    @property
    def mask_sense(self) -> MaskSense | None:
        """The meaning of the mask, if its name indicates it; else None."""
        return MASK_SENSES.get((self.mask or "").lower())

    def bind(self, values: dict[Role, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Positional and keyword arguments; values of roles without a parameter are ignored."""
        names = {"embeds": self.embeds, "mask": self.mask, "lengths": self.lengths}
        names["causal"] = self.causal or self.mask  # a single `mask` may be the causal mask
        named = {names[role]: value for role, value in values.items()}
        positional = [named.pop(name, default) for name, default in self.positional]
        return positional, {name: value for name, value in named.items() if name is not None}


def read_arguments(function: Callable[..., Any], name: str) -> Arguments:
    """Recognize the parameters of a function by their names and places.

    Args:
        function: `module.forward`, or any callable.
        name: name of the function in error messages.

    Returns:
        The recognized parameters.

    Raises:
        ValueError: if the signature is not available, or a required parameter has no known role.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} has no readable signature: {WAY_OUT}") from error
    parameters = [
        p
        for p in signature.parameters.values()
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        and (p.default is p.empty or p.default is None)
    ]
    if not parameters:
        raise ValueError(f"{name}{signature} names no argument for the embeddings: {WAY_OUT}")
    required = [p.name for p in parameters if p.default is p.empty]
    roles = {p.name: _role(p.name) for p in parameters}
    embeds = _find_embeds(roles, required)
    if embeds is None:
        raise ValueError(f"{name}{signature} has no argument for the embeddings: {WAY_OUT}")
    roles.pop(embeds)
    masks = [n for n, role in roles.items() if role == "mask"]
    causal = [n for n, role in roles.items() if role == "causal"]
    if len(masks) == 2 and not causal:  # as in torch: `mask` and `src_key_padding_mask`
        plain = [n for n in masks if not PADDING_WORDS & _words(n)]
        causal = plain if len(plain) == 1 else []
    lengths = [n for n, role in roles.items() if role == "lengths"]
    unknown = [n for n in required if n in roles and roles[n] is None]
    padding = [n for n in masks if n not in causal]
    if not padding and not lengths and len(unknown) == 1:
        padding = unknown  # trial runs determine whether it takes a mask
        unknown = []
    unknown += [n for n in required if roles.get(n) == "embeds"]  # a second one
    for names in (padding, causal, lengths):
        unknown += [n for n in names[1:] if n in required]
    if unknown:
        raise ValueError(
            f"{name}{signature} requires {', '.join(unknown)}, but only embeddings, masks and "
            f"lengths can be passed: {WAY_OUT}"
        )
    by_position = [p.name for p in signature.parameters.values() if p.kind is not p.KEYWORD_ONLY]
    mask = next(iter(padding), None)
    return Arguments(
        embeds,
        mask=mask,
        causal=next(iter(causal), None),
        lengths=next(iter(lengths), None),
        positional=tuple(
            (p.name, p.default)
            for p in signature.parameters.values()
            if p.kind is p.POSITIONAL_ONLY
        ),
        optional=frozenset(p.name for p in parameters if p.default is None),
        follows_protocol=by_position[:2] == [embeds, mask] and not (causal or lengths),
        mask_by_place=mask is not None and roles[mask] is None,
        batch=embeds.lower() in BATCH_NAMES,
    )


class _Batch(dict[str, Any]):
    """A mapping of all inputs: has an entry for every key, and holds those that were read."""

    width: int  # of the embeddings in it

    def __missing__(self, key: str) -> torch.Tensor:
        shapes = {"mask": (2, 3), "lengths": (2,)}
        shape = shapes.get(str(_role(str(key))), (2, 3, self.width))
        self[key] = torch.ones(shape, dtype=torch.long if len(shape) < 3 else None)
        entry: torch.Tensor = self[key]
        return entry

    def get(self, key: str, default: Any = None) -> Any:
        """Return an entry for every key, as indexing does."""
        return self[key]


def one_batch(module: nn.Module, arguments: Arguments, widths: Iterable[int]) -> str | None:
    """Describe how to call a module whose `forward` takes a mapping of all inputs.

    Args:
        module: the user's module; it is run.
        arguments: the parameters of its `forward`.
        widths: the widths at which it did not run on embeddings.

    Returns:
        Advice with the entries that the module reads; None if it does not take a mapping.
    """
    if arguments.mask or arguments.lengths:
        return None
    read: dict[str, None] = {}
    for width in widths:
        batch = _Batch()
        batch.width = width
        # the entries may not be valid inputs
        with torch.no_grad(), suppress(Exception):
            module(batch)
        read |= dict.fromkeys(key for key in batch if isinstance(key, str))
    if not (read or arguments.batch):
        return None
    fillings = {
        "embeds": "inputs_embeds",
        "mask": "attention_mask",
        "lengths": "attention_mask.sum(1)",
    }
    entries = ", ".join(
        f'"{name}": {fillings.get(str(_role(name)), "...")}'
        for name in read or ("inputs_embeds", "attention_mask")
    )
    return (
        f"its {arguments.embeds!r} seems to be a mapping of all inputs. Fill the mapping with "
        "forward_fn=lambda module, inputs_embeds, attention_mask: "
        f"module({{{entries}}})"
    )


def _words(name: str) -> set[str]:
    return set(name.lower().split("_"))


def _role(name: str) -> Role | None:
    words = _words(name)
    if name.lower() in CAUSAL_NAMES:
        return "causal"
    if words & LENGTH_WORDS:
        return None if "max" in words else "lengths"
    if words & MASK_WORDS or name.lower().endswith("mask"):
        return "mask"
    if words & (EMBEDDING_WORDS | SEQUENCE_WORDS) and not words & ID_WORDS:
        return "embeds"
    return None


def _find_embeds(roles: dict[str, Role | None], required: list[str]) -> str | None:
    """The parameter named after embeddings, or else the first that may be a sequence."""
    likely = [name for name, role in roles.items() if role == "embeds"]
    for name in likely:
        if EMBEDDING_WORDS & _words(name):
            return name
    first = [name for name in required if roles[name] in ("embeds", None)]
    return next(iter(first or likely), None)
