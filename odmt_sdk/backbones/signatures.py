"""Which argument of somebody's `forward` is the embeddings, which the mask, which the lengths."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Role = Literal["embeds", "mask", "causal", "lengths"]
WAY_OUT = (
    "say how to call it with forward_fn=lambda module, inputs_embeds, attention_mask: ..., or "
    "register an adapter and name it with adapter="
)
# A name is read as words between underscores.
EMBEDDING_WORDS = frozenset({"emb", "embs", "embed", "embeds", "embedding", "embeddings"})
SEQUENCE_WORDS = frozenset(
    {"x", "input", "inputs", "src", "seq", "seqs", "sequence", "sequences", "hidden", "states"}
)
ID_WORDS = frozenset({"id", "ids", "pos", "position", "positions", "time", "times", "type", "user"})
MASK_WORDS = frozenset({"mask", "masks", "pad", "pads", "padding", "padded"})
PADDING_WORDS = frozenset({"pad", "pads", "padding", "padded", "key"})
CAUSAL_NAMES = frozenset({"src_mask", "causal_mask", "tgt_mask", "look_ahead_mask", "future_mask"})
LENGTH_WORDS = frozenset({"len", "lens", "length", "lengths"})


@dataclass(frozen=True)
class Arguments:
    """What the parameters of a function are for.

    Args:
        embeds: name of the parameter that takes (B, L, D) embeddings.
        mask: of the one that takes a (B, L) mask.
        causal: of the one that takes an (L, L) causal mask.
        lengths: of the one that takes (B,) lengths.
        positional: names and defaults of those that can only be passed by their position.
        optional: names of those that default to None.
        follows_protocol: whether the first two are embeddings and mask, and nothing else is needed.
        mask_by_place: whether nothing but its place says that `mask` is one.
    """

    embeds: str
    mask: str | None = None
    causal: str | None = None
    lengths: str | None = None
    positional: tuple[tuple[str, Any], ...] = ()
    optional: frozenset[str] = frozenset()
    follows_protocol: bool = False
    mask_by_place: bool = False

    def bind(self, values: dict[Role, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Arrange values for a call.

        Args:
            values: role -> value; roles without a parameter are left out.

        Returns:
            Positional and keyword arguments.
        """
        names = {"embeds": self.embeds, "mask": self.mask, "causal": self.causal}
        names["lengths"] = self.lengths
        named = {names[role]: value for role, value in values.items()}
        positional = [named.pop(name, default) for name, default in self.positional]
        return positional, {name: value for name, value in named.items() if name is not None}


def read_arguments(function: Callable[..., Any], name: str) -> Arguments:
    """Recognise the parameters of a function by their names and places.

    Args:
        function: `module.forward`, or any callable.
        name: what to call it in messages.

    Returns:
        The recognised parameters.

    Raises:
        ValueError: if the signature is hidden, or needs something that cannot be supplied.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} does not tell its arguments: {WAY_OUT}") from error
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
    found: dict[Role, str] = {}
    masks = [n for n, role in roles.items() if role == "mask"]
    causal = [n for n, role in roles.items() if role == "causal"]
    if len(masks) == 2 and not causal:  # as in torch: `mask` and `src_key_padding_mask`
        plain = [n for n in masks if not PADDING_WORDS & _words(n)]
        causal = plain if len(plain) == 1 else []
    lengths = [n for n, role in roles.items() if role == "lengths"]
    unknown = [n for n in required if n in roles and roles[n] is None]
    padding = [n for n in masks if n not in causal]
    if not padding and not lengths and len(unknown) == 1:
        padding = unknown  # whether it takes a mask is found out by trying
        unknown = []
    unknown += [n for n in required if roles.get(n) == "embeds"]  # another one
    for role, names in (("mask", padding), ("causal", causal), ("lengths", lengths)):
        if names:
            found[role] = names[0]  # type: ignore[index]
        unknown += [n for n in names[1:] if n in required]
    if unknown:
        raise ValueError(
            f"{name}{signature} needs {', '.join(unknown)}, which is neither the embeddings nor "
            f"a mask nor lengths: {WAY_OUT}"
        )
    by_position = [p.name for p in signature.parameters.values() if p.kind is not p.KEYWORD_ONLY]
    return Arguments(
        embeds,
        mask=found.get("mask"),
        causal=found.get("causal"),
        lengths=found.get("lengths"),
        positional=tuple(
            (p.name, p.default)
            for p in signature.parameters.values()
            if p.kind is p.POSITIONAL_ONLY
        ),
        optional=frozenset(p.name for p in parameters if p.default is None),
        follows_protocol=by_position[:2] == [embeds, found.get("mask")] and len(found) == 1,
        mask_by_place=bool(padding) and roles[padding[0]] is None,
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
    """The parameter called embeddings, else the first that a sequence could be."""
    likely = [name for name, role in roles.items() if role == "embeds"]
    for name in likely:
        if EMBEDDING_WORDS & _words(name):
            return name
    first = [name for name in required if roles[name] in ("embeds", None)]
    return next(iter(first or likely), None)
