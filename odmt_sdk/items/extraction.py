"""What extracting tokens from texts and from pictures has in common.

An encoder is loaded, its towers are told apart, its outputs are gathered in the order of the items.
`text_tokens.py` and `image_tokens.py` make batches; everything here sees only batches.

Letters: N items, b items of one batch, T tokens, d width of a token.
"""

import copy
import importlib.util
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import nn

Encoder: TypeAlias = "str | os.PathLike[str] | tuple[nn.Module, Callable[..., Any]]"
EncoderKind = Literal["text", "image"]

# Where models of several modalities, such as CLIP, SigLIP and FLAVA, keep the part for one of them.
_TOWERS: dict[EncoderKind, tuple[str, ...]] = {
    "text": ("text_model",),
    "image": ("vision_model", "vision_tower", "image_model"),
}
_PROCESSOR_FILES: dict[EncoderKind, str] = {
    "text": "tokenizer files",
    "image": "preprocessor_config.json",
}
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True, eq=False)
class ExtractedTokens:
    """Tokens of N items in the order in which the items were given.

    Args:
        tokens: (N, T, d); rows of absent items, and what lies beyond an item's length, are zero.
        lengths: (N,) int64, how many tokens an item has; 0 where it has no text or picture.
        problems: position of each item that could not be read, with the reason. Such an item has
            length 0. An item that was given without a text or picture is not a problem.

    Examples:
        >>> extracted = ExtractedTokens(torch.zeros(2, 3, 4), torch.tensor([3, 0]), {1: "no file"})
        >>> extracted.tokens[extracted.lengths > 0].shape
        torch.Size([1, 3, 4])
    """

    tokens: torch.Tensor
    lengths: torch.Tensor
    problems: Mapping[int, str]


class EncodedBatch(NamedTuple):
    """Tokens of some items: where they belong, (b, T, d), (b,) and what could not be read."""

    rows: list[int]
    tokens: torch.Tensor
    lengths: torch.Tensor
    problems: Mapping[int, str]


def is_missing(value: object) -> bool:
    """Tell whether a table's cell is empty: None, NaN, pandas' NA or NaT, or blank text.

    Args:
        value: the cell.

    Returns:
        True if there is nothing in it.
    """
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(value, str):
        return not value.strip()
    return hasattr(value, "__float__") and getattr(value, "ndim", 0) == 0 and value != value


def check_settings(batch_size: int, dtype: torch.dtype) -> None:
    """Refuse settings that no extraction can work with.

    Args:
        batch_size: items per batch.
        dtype: of the returned tokens.

    Raises:
        ValueError: if the batch is empty or the type is not a storage type for tokens.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, but a batch needs at least 1 item")
    if dtype not in _DTYPES:
        raise ValueError(
            f"dtype is {dtype}, but tokens are stored as torch.float32, float16 or bfloat16"
        )


def load_encoder(
    encoder: Encoder, kind: EncoderKind, device: torch.device | str | None = None
) -> tuple[nn.Module, Callable[..., Any]]:
    """Load an encoder, or take the user's, and keep the part that reads this kind of input.

    Models of several modalities are reduced to their text or vision part, encoder-decoder models
    to their encoder. A model of the user is never changed: where it has to move to another device,
    or has float16 weights on the CPU, a copy does the work.

    Args:
        encoder: a folder or a name on the Hugging Face Hub, loaded through `AutoModel` and
            `AutoTokenizer` or `AutoImageProcessor`; or a pair (model, tokenizer or image
            processor).
        kind: "text" or "image".
        device: where to run. Default: an accelerator if there is one, else the CPU; for a pair,
            where the model is.

    Returns:
        The module to call and the tokenizer or image processor.

    Raises:
        TypeError: if the encoder is neither a name nor a pair.
        OSError: if the name leads to no complete encoder.
    """
    if isinstance(encoder, str | os.PathLike):
        return _load_by_name(os.fspath(encoder), kind, device)
    if not (
        isinstance(encoder, tuple | list)
        and len(encoder) == 2
        and isinstance(encoder[0], nn.Module)
        and callable(encoder[1])
    ):
        processor = "tokenizer" if kind == "text" else "image processor"
        raise TypeError(
            f"{kind} encoder is {type(encoder).__name__}, but it must be a folder, a name on the "
            f"Hugging Face Hub, or a pair (model, {processor})"
        )
    model = _tower(encoder[0], kind)
    weight = next(model.parameters(), torch.empty(0))
    target = weight.device if device is None else torch.device(device)
    if target.type == "cpu" and weight.dtype == torch.float16:
        model = copy.deepcopy(model).to(target, torch.float32)
    elif target.type != weight.device.type or target.index not in (None, weight.device.index):
        model = copy.deepcopy(model).to(target)
    return model, encoder[1]


def _load_by_name(
    name: str, kind: EncoderKind, device: torch.device | str | None
) -> tuple[nn.Module, Callable[..., Any]]:
    hide_broken_torchvision()
    import transformers

    processor_class = (
        transformers.AutoTokenizer if kind == "text" else transformers.AutoImageProcessor
    )
    target = torch.device(device) if device is not None else _best_device()
    # Half precision is slow or missing on the CPU; elsewhere the weights keep their own type.
    dtype = torch.float32 if target.type == "cpu" else "auto"
    try:
        processor = processor_class.from_pretrained(name)
        with torch.random.fork_rng(devices=[]):  # poolers without weights are drawn at random
            model = transformers.AutoModel.from_pretrained(name, dtype=dtype)
    except (OSError, ValueError, KeyError) as error:
        raise OSError(
            f"{name!r} cannot be loaded as {kind} encoder. It must be a folder, or a name on the "
            f"Hugging Face Hub, with config.json, model.safetensors and {_PROCESSOR_FILES[kind]}: "
            f"{error}"
        ) from error
    return _tower(model, kind).to(target), processor


def _tower(model: nn.Module, kind: EncoderKind) -> nn.Module:
    for name in _TOWERS[kind]:
        tower = getattr(model, name, None)
        if isinstance(tower, nn.Module):
            return tower
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        encoder: nn.Module = model.get_encoder()  # type: ignore[operator]
        return encoder
    return model


def _best_device() -> torch.device:
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return torch.device("cpu") if accelerator is None else accelerator


def device_of(model: nn.Module) -> torch.device:
    """Return where a model's weights are.

    Args:
        model: any module.

    Returns:
        The device of its first parameter; the CPU if it has none.
    """
    return next(model.parameters(), torch.empty(0)).device


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Switch dropout and the like off, and on again afterwards where it was on.

    Args:
        model: any module.

    Yields:
        Nothing.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def last_hidden_state(output: Any) -> torch.Tensor:
    """Take the tokens from what an encoder returned.

    Args:
        output: a transformers output, a tuple that starts with the tokens, or the tokens.

    Returns:
        (b, T, d), or (b, d, H, W) from a convolutional encoder.

    Raises:
        TypeError: if there are no tokens in it.
    """
    state = getattr(output, "last_hidden_state", output)
    if isinstance(state, tuple | list):
        state = state[0]
    if not isinstance(state, torch.Tensor):
        raise TypeError(
            f"the encoder returns {type(output).__name__} without last_hidden_state; use a base "
            "model, as transformers.AutoModel loads it"
        )
    return state


def collect(
    batches: Iterable[EncodedBatch],
    *,
    num_items: int,
    num_present: int,
    kind: EncoderKind,
    dtype: torch.dtype,
    progress: bool,
) -> ExtractedTokens:
    """Gather batches in the order of the items, reporting progress and what could not be read.

    The first batch with tokens decides how many tokens an item has at most.

    Args:
        batches: encoded items in any order.
        num_items: N.
        num_present: how many items the batches hold in all.
        kind: "text" or "image", for messages.
        dtype: of the returned tokens.
        progress: whether to show a progress bar.

    Returns:
        The tokens of all items.

    Raises:
        ValueError: if no item could be encoded, tokens are not finite or not storable in `dtype`,
            or a batch has more tokens than the first.
    """
    from transformers.utils.logging import tqdm  # follows transformers' switch for progress bars

    tokens: torch.Tensor | None = None
    lengths = torch.zeros(num_items, dtype=torch.int64)
    problems: dict[int, str] = {}
    unit = "text" if kind == "text" else "picture"
    with tqdm(
        total=num_present, desc=f"{kind} tokens", unit=f" {unit}s", disable=not progress
    ) as bar:
        for batch in batches:
            problems.update(batch.problems)
            if batch.rows:
                block = _storable(batch, kind, dtype)
                if tokens is None:
                    tokens = torch.zeros(num_items, *block.shape[1:], dtype=dtype)  # (N, T, d)
                if block.shape[1] > tokens.shape[1]:
                    raise ValueError(
                        f"{unit} {batch.rows[0]} gives {block.shape[1]} tokens, but an earlier one "
                        f"gave {tokens.shape[1]}; use a processor that gives one size to all"
                    )
                rows = torch.tensor(batch.rows)
                tokens[rows, : block.shape[1]] = block
                lengths[rows] = batch.lengths.cpu()
            bar.update(len(batch.rows) + len(batch.problems))
    if tokens is None:
        reason = next(iter(problems.values()), f"every {unit} is missing")
        raise ValueError(
            f"none of {num_items} items has a {unit} that can be encoded ({reason}); leave this "
            "modality out, or correct the column that holds it"
        )
    if problems:
        _warn(problems, num_present, unit)
    return ExtractedTokens(tokens, lengths, dict(sorted(problems.items())))


def _storable(batch: EncodedBatch, kind: EncoderKind, dtype: torch.dtype) -> torch.Tensor:
    block = batch.tokens.to("cpu", dtype)
    finite = block.isfinite().flatten(1).all(1)  # (b, T, d) -> (b,)
    if not finite.all():
        largest = batch.tokens.abs().max().item()
        raise ValueError(
            f"the {kind} encoder's tokens of item {batch.rows[int(finite.int().argmin())]} cannot "
            f"be stored as {dtype}: the largest value of their batch is {largest:g}. Choose a "
            "wider dtype, or check the encoder's weights if that is NaN or infinite"
        )
    return block


def _warn(problems: Mapping[int, str], num_present: int, unit: str) -> None:
    shown = "; ".join(f"item {row}: {reason}" for row, reason in sorted(problems.items())[:5])
    more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
    warnings.warn(
        f"{len(problems)} of {num_present} {unit}s could not be read and count as missing: "
        f"{shown}{more}. All of them are in `problems`",
        UserWarning,
        stacklevel=4,
    )


def hide_broken_torchvision() -> None:
    """Let transformers treat a torchvision that cannot be imported as not installed.

    transformers imports torchvision with every model, texts included, as soon as it is installed;
    one that belongs to another torch release then takes all models down with it.
    """
    if "transformers.image_utils" in sys.modules:
        return  # transformers has imported what it needs of torchvision, or found none
    if importlib.util.find_spec("torchvision") is None:
        return
    try:
        importlib.import_module("torchvision.transforms")
    except Exception:  # a broken extension module raises RuntimeError, OSError, AttributeError ...
        from transformers.utils import is_torchvision_available

        sys.modules["torchvision"] = None  # type: ignore[assignment]  # not importable, not found
        try:
            is_torchvision_available.cache_clear()
            is_torchvision_available()
        finally:
            del sys.modules["torchvision"]  # a later import shows its own error again
