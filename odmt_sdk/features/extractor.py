"""Modality-independent parts of token extraction.

An extractor encodes raw values into batches of tokens. The functions here process those batches.

Letters: N items, b items of one batch, T tokens, d width of a token.
"""

import re
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import nn

from odmt_sdk.terminal import shows_bars

STORAGE_TYPES = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True, eq=False)
class ExtractedTokens:
    """Tokens of N items, in input order.

    Args:
        tokens: (N, T, d); zero for missing items and beyond an item's length.
        lengths: (N,) int64, number of tokens of each item; 0 if it has no text or image.
        problems: position -> reason for each item that could not be read. Such an item has
            length 0. An item without a text or image is not a problem.

    Examples:
        >>> extracted = ExtractedTokens(torch.zeros(2, 3, 4), torch.tensor([3, 0]), {1: "no file"})
        >>> extracted.tokens[extracted.lengths > 0].shape
        torch.Size([1, 3, 4])
    """

    tokens: torch.Tensor
    lengths: torch.Tensor
    problems: Mapping[int, str]


class EncodedBatch(NamedTuple):
    """Tokens (b, T, d) and lengths (b,) of the items at `rows`, plus items that failed."""

    rows: list[int]
    tokens: torch.Tensor
    lengths: torch.Tensor
    problems: Mapping[int, str]


class ItemError(ValueError):
    """Raised when the value of one item is invalid.

    Args:
        position: position of the item.
        reason: why its value is invalid.
    """

    def __init__(self, position: int, reason: str) -> None:
        super().__init__(f"item {position}: {reason}")
        self.position, self.reason = position, reason


class TokenExtractor(Protocol):
    """Encodes raw values of one modality into tokens."""

    unit: str
    """Name of one value in messages, such as "picture"."""

    @property
    def provenance(self) -> dict[str, Any]:
        """Everything that determines the tokens: encoder, revision, preprocessing and so on."""

    def encode(
        self, values: Mapping[int, Any], groups: Sequence[Sequence[int]]
    ) -> Iterator[tuple[int, EncodedBatch]]:
        """Encode values in batches; a batch never spans two groups.

        Args:
            values: position -> value, for the items that have a value.
            groups: lists of positions.

        Yields:
            Group index, ascending, and a batch. The batches of a group cover each of its positions
            exactly once.

        Raises:
            ItemError: if extraction cannot continue because of an item's value.
        """


def reads_files(extractor: TokenExtractor) -> bool:
    """Whether an extractor treats strings as paths of files.

    Such an extractor has an attribute `reads_files = True`. A store then detects when the content
    of a file changes. A `pathlib.Path` is a path for every extractor.

    Args:
        extractor: the extractor of a modality.

    Returns:
        True if it has the attribute.
    """
    return bool(getattr(extractor, "reads_files", False))


def is_missing(value: object) -> bool:
    """Check whether a table cell is empty: None, NaN, pandas NA or NaT, or blank text.

    Args:
        value: the cell.

    Returns:
        True if the cell is empty.
    """
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(value, str):
        return not value.strip()
    return hasattr(value, "__float__") and getattr(value, "ndim", 0) == 0 and value != value


def naming(
    batches: Iterator[tuple[int, EncodedBatch]], unit: str, names: Mapping[int, Hashable]
) -> Iterator[tuple[int, EncodedBatch]]:
    """Pass batches through and turn each `ItemError` into a `ValueError` with the item's id.

    Args:
        batches: batches of an extractor.
        unit: name of one value in messages.
        names: position -> item id.

    Yields:
        Group index and batch.

    Raises:
        ValueError: if an item's value is invalid.
    """
    try:
        yield from batches
    except ItemError as error:
        raise ValueError(f"{unit} of item {names[error.position]!r} {error.reason}") from error


def encode_together(
    rows: Sequence[int], encode: Callable[[Sequence[int]], tuple[torch.Tensor, torch.Tensor]]
) -> EncodedBatch:
    """Encode a batch and skip the items the encoder fails on.

    If the batch fails, each item is tried alone to find the ones that cause the failure.

    Args:
        rows: positions of the items.
        encode: positions -> tokens (b, T, d) and lengths (b,).

    Returns:
        Tokens of the items that can be encoded; the others are listed as problems.

    Raises:
        Exception: the encoder's own error, if every item fails, or no item fails alone.
    """
    try:
        return EncodedBatch(list(rows), *encode(rows), {})
    except torch.OutOfMemoryError:
        raise
    except Exception:  # encoders raise any type of exception
        problems = {}
        for row in rows:
            try:
                encode([row])
            except Exception as alone:
                problems[row] = described(alone)
        good = [row for row in rows if row not in problems]
        if not problems or not good:
            raise
    return EncodedBatch(good, *encode(good), problems)


def described(error: Exception) -> str:
    """Format an error as a short text that is identical on every run."""
    text = re.sub(r" at 0x[0-9a-fA-F]+", "", f"{type(error).__name__}: {error}")
    return shortened(" ".join(text.split()), 300)


def shortened(text: str, characters: int = 80) -> str:
    """Truncate a long text and append its original length."""
    if len(text) <= characters:
        return text
    return f"{text[:characters]}... ({len(text):,} characters)"


def check_dtype(dtype: torch.dtype) -> None:
    """Raise `ValueError` unless tokens can be stored in this dtype."""
    if dtype not in STORAGE_TYPES:
        raise ValueError(
            f"dtype is {dtype}, but tokens are stored as torch.float32, float16 or bfloat16"
        )


def check_batch_size(batch_size: int) -> None:
    """Raise `ValueError` unless the batch size is at least 1."""
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, but a batch needs at least 1 item")


def storable(
    batch: EncodedBatch, unit: str, dtype: torch.dtype, names: Mapping[int, Hashable]
) -> torch.Tensor:
    """Move a batch's tokens to the CPU and convert them to the storage dtype.

    Args:
        batch: a batch with at least one item.
        unit: name of one value in messages.
        dtype: the storage dtype.
        names: position -> item id.

    Returns:
        Tokens (b, T, d).

    Raises:
        ValueError: if a value is not finite in that dtype.
    """
    block = batch.tokens.to(dtype).cpu()
    finite = block.isfinite().flatten(1).all(1)  # (b, T, d) -> (b,)
    if not finite.all():
        largest = batch.tokens.abs().max().item()
        item_id = names[batch.rows[int(finite.int().argmin())]]
        raise ValueError(
            f"the tokens of the {unit} of item {item_id!r} cannot be stored as "
            f"{dtype}: the largest value of their batch is {largest:g}. Choose a wider dtype, or "
            "check the encoder's weights if that is NaN or infinite"
        )
    return block


def collect(
    extractor: TokenExtractor,
    values: Mapping[int, Any],
    *,
    num_items: int,
    dtype: torch.dtype,
    progress: bool,
    names: Sequence[Hashable] | None = None,
) -> ExtractedTokens:
    """Encode all items into one tensor in memory, in item order.

    Pictures of an encoder all have the same number of tokens; other items may have fewer or more.

    Args:
        extractor: encodes the values.
        values: position -> value, for the items that have a value.
        num_items: N.
        dtype: dtype of the returned tokens.
        progress: whether to show a progress bar.
        names: item ids to use in messages; None = positions.

    Returns:
        The tokens of all items.

    Raises:
        ValueError: if no item could be encoded, tokens are not finite or not storable in `dtype`,
            or a picture has more tokens than an earlier one.
    """
    tokens: torch.Tensor | None = None
    lengths = torch.zeros(num_items, dtype=torch.int64)
    problems: dict[int, str] = {}
    unit, named = extractor.unit, dict(enumerate(names or range(num_items)))
    with progress_bar(unit, len(values), progress) as bar:
        for _, batch in naming(extractor.encode(values, [list(values)]), unit, named):
            problems.update(batch.problems)
            if batch.rows:
                block = storable(batch, unit, dtype, named)
                if tokens is None:
                    tokens = torch.zeros(num_items, *block.shape[1:], dtype=dtype)  # (N, T, d)
                if block.shape[1] > tokens.shape[1] and unit == "picture":
                    raise ValueError(
                        f"{unit} of item {named[batch.rows[0]]!r} gives {block.shape[1]} tokens, "
                        f"but an earlier one gave {tokens.shape[1]}; use a processor that resizes "
                        "all to one size"
                    )
                longer = max(0, block.shape[1] - tokens.shape[1])
                tokens = nn.functional.pad(tokens, (0, 0, 0, longer)) if longer else tokens
                rows = torch.tensor(batch.rows)
                tokens[rows, : block.shape[1]] = block
                lengths[rows] = batch.lengths.cpu()
            bar.update(len(batch.rows) + len(batch.problems))
    if tokens is None:
        raise nothing_encoded(unit, num_items, problems.values())
    return ExtractedTokens(tokens, lengths, dict(sorted(problems.items())))


def progress_bar(unit: str, total: int, shown: bool, *, delay: float = 0) -> Any:
    """Create a progress bar of counts and rates, in terminals only, after `delay` seconds."""
    from transformers.utils.logging import tqdm  # obeys transformers' progress bar setting

    return tqdm(
        total=total,
        desc=f"{unit}s",
        unit=f" {unit}s",
        disable=not (shown and shows_bars()),
        delay=delay,
    )


def nothing_encoded(unit: str, num_items: int, reasons: Any) -> ValueError:
    """Return the error for a modality in which no item could be encoded."""
    reason = next(iter(reasons), f"every {unit} is missing")
    return ValueError(
        f"none of {num_items} items has a {unit} that can be encoded ({reason}); leave this "
        "modality out, or correct the column that holds it"
    )


def warn_of_problems(problems: Mapping[Any, str], num_present: int, unit: str) -> None:
    """Warn about items that could not be read and name the first five.

    Args:
        problems: item id or position -> reason.
        num_present: number of items that have a value.
        unit: name of one value in messages.
    """
    if not problems:
        return
    shown = "; ".join(f"item {item!r}: {reason}" for item, reason in list(problems.items())[:5])
    more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
    warnings.warn(
        f"{len(problems)} of {num_present} {unit}s could not be read and count as missing: "
        f"{shown}{more}",
        UserWarning,
        stacklevel=4,
    )
