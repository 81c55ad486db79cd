"""What extracting tokens of any modality has in common.

An extractor makes tokens from raw values in batches; everything here sees only batches.

Letters: N items, b items of one batch, T tokens, d width of a token.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch

STORAGE_TYPES = (torch.float32, torch.float16, torch.bfloat16)


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


class TokenExtractor(Protocol):
    """Makes tokens of one modality from raw values."""

    unit: str
    """What one value is called, such as "picture"."""

    @property
    def provenance(self) -> dict[str, Any]:
        """Encoder, revision, preprocessing: everything that decides what the tokens are."""

    def encode(
        self, values: Mapping[int, Any], groups: Sequence[Sequence[int]]
    ) -> Iterator[tuple[int, EncodedBatch]]:
        """Encode values in batches, each within one group.

        Args:
            values: position of each item that has a value, with the value.
            groups: lists of such positions.

        Yields:
            Index of the group, in order, and batches that together hold each of its positions once.
        """


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


def check_dtype(dtype: torch.dtype) -> None:
    """Raise `ValueError` unless tokens can be kept in this type."""
    if dtype not in STORAGE_TYPES:
        raise ValueError(
            f"dtype is {dtype}, but tokens are stored as torch.float32, float16 or bfloat16"
        )


def check_batch_size(batch_size: int) -> None:
    """Raise `ValueError` unless a batch can hold so many items."""
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, but a batch needs at least 1 item")


def storable(batch: EncodedBatch, unit: str, dtype: torch.dtype) -> torch.Tensor:
    """Bring a batch's tokens to the CPU in the type they are kept in.

    Args:
        batch: with at least one item.
        unit: what one value is called.
        dtype: the type.

    Returns:
        (b, T, d).

    Raises:
        ValueError: if a value is not finite in that type.
    """
    block = batch.tokens.to(dtype).cpu()
    finite = block.isfinite().flatten(1).all(1)  # (b, T, d) -> (b,)
    if not finite.all():
        largest = batch.tokens.abs().max().item()
        raise ValueError(
            f"the tokens of {unit} {batch.rows[int(finite.int().argmin())]} cannot be stored as "
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
) -> ExtractedTokens:
    """Gather the tokens of all items in memory, in the order of the items.

    The first batch with tokens decides how many tokens an item has at most.

    Args:
        extractor: makes the tokens.
        values: position of each item that has a value, with the value.
        num_items: N.
        dtype: of the returned tokens.
        progress: whether to show a progress bar.

    Returns:
        The tokens of all items.

    Raises:
        ValueError: if no item could be encoded, tokens are not finite or not storable in `dtype`,
            or a batch has more tokens than the first.
    """
    tokens: torch.Tensor | None = None
    lengths = torch.zeros(num_items, dtype=torch.int64)
    problems: dict[int, str] = {}
    unit = extractor.unit
    with progress_bar(unit, len(values), progress) as bar:
        for _, batch in extractor.encode(values, [list(values)]):
            problems.update(batch.problems)
            if batch.rows:
                block = storable(batch, unit, dtype)
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
        raise nothing_encoded(unit, num_items, problems.values())
    return ExtractedTokens(tokens, lengths, dict(sorted(problems.items())))


def progress_bar(unit: str, total: int, shown: bool) -> Any:
    """A bar that counts items and says how many are done in a second."""
    from transformers.utils.logging import tqdm  # follows transformers' switch for progress bars

    return tqdm(total=total, desc=f"{unit}s", unit=f" {unit}s", disable=not shown)


def nothing_encoded(unit: str, num_items: int, reasons: Any) -> ValueError:
    """The error for a modality that no item has."""
    reason = next(iter(reasons), f"every {unit} is missing")
    return ValueError(
        f"none of {num_items} items has a {unit} that can be encoded ({reason}); leave this "
        "modality out, or correct the column that holds it"
    )


def warn_of_problems(problems: Mapping[Any, str], num_present: int, unit: str) -> None:
    """Warn of what could not be read, naming the first few.

    Args:
        problems: what stands for an item, with the reason.
        num_present: how many items have a value.
        unit: what one value is called.
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
