"""Precomputed tokens of any modality, given as arrays.

Letters: N items, b items of one batch, T tokens of one item, d width of a token.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from odmt_sdk.features.extractor import EncodedBatch, ItemError, is_missing

_ITEMS_AT_ONCE = 256


def present_arrays(name: str, arrays: Any, num_items: int) -> dict[int, Any]:
    """Drop items without an array; nothing is copied.

    Args:
        name: name of the modality.
        arrays: a tensor or NumPy array (N, d) or (N, T, d), which may be memory-mapped; or a list
            of N arrays (d,), (T, d) or None.
        num_items: N.

    Returns:
        Position -> array.

    Raises:
        ValueError: if there are not N entries.
        TypeError: if the arrays are a mapping, which has no order of items.
    """
    arrays = _in_order(name, arrays)
    if len(arrays) != num_items:
        raise ValueError(
            f"{name} has {len(arrays)} entries, but there are {num_items} items: give one for each "
            "item, None where an item has none"
        )
    if isinstance(arrays, np.ndarray) and arrays.dtype == object:
        arrays = arrays.tolist()
    if isinstance(arrays, list | tuple):
        return {row: array for row, array in enumerate(arrays) if not _is_empty(array)}
    return _Rows(arrays, num_items)


def _in_order(name: str, arrays: Any) -> Any:
    """Return arrays that are read by position; a pandas Series would be read by its index."""
    if isinstance(arrays, Mapping):
        raise TypeError(
            f"{name} is a {type(arrays).__name__}, but its arrays must be in the order of the "
            "items: give a list of them, for example [arrays.get(item_id) for item_id in item_ids]"
        )
    if isinstance(arrays, np.ndarray | torch.Tensor | list | tuple):
        if isinstance(arrays, np.ma.MaskedArray):
            return np.ma.filled(arrays.astype(np.float64), np.nan)
        return arrays
    for method in ("to_pylist", "to_numpy"):  # PyArrow; pandas and Polars
        if hasattr(arrays, method):
            return getattr(arrays, method)()
    return arrays


class _Rows(dict[int, Any]):
    """A mapping from row to array that reads rows of one large array lazily."""

    def __init__(self, array: Any, num_items: int) -> None:
        super().__init__(dict.fromkeys(range(num_items)))
        self.array = array

    def __getitem__(self, row: int) -> Any:
        return self.array[row]


def _is_empty(array: Any) -> bool:
    return is_missing(array) or (hasattr(array, "__len__") and len(array) == 0)


class ArrayExtractor:
    """Uses precomputed arrays as tokens.

    Args:
        name: name of the modality, such as "audio".

    Examples:
        >>> extractor = ArrayExtractor("audio")
        >>> (group, batch), = extractor.encode({4: [[0.5, 1.5], [2.5, 3.5]]}, [[4]])
        >>> batch.tokens.shape, batch.lengths.tolist()
        (torch.Size([1, 2, 2]), [2])
    """

    def __init__(self, name: str) -> None:
        self.unit = name

    @property
    def provenance(self) -> dict[str, Any]:
        """Records that the tokens were given as arrays and no encoder was run."""
        return {"encoder": "given as arrays", "revision": None, "pooling": None}

    def encode(
        self, values: Mapping[int, Any], groups: Sequence[Sequence[int]]
    ) -> Iterator[tuple[int, EncodedBatch]]:
        """Collate arrays into batches.

        Args:
            values: position -> array, for the items that have an array.
            groups: lists of positions; a batch never spans two groups.

        Yields:
            Group index, ascending, and a batch. Each array is in exactly one batch.

        Raises:
            ItemError: if an array does not have one or two dimensions, or its width differs.
        """
        width: int | None = None
        for group, rows in enumerate(groups):
            for start in range(0, len(rows), _ITEMS_AT_ONCE):
                batch = list(rows[start : start + _ITEMS_AT_ONCE])
                arrays = [self._tokens(row, values[row]) for row in batch]
                for row, array in zip(batch, arrays, strict=True):
                    width = array.shape[1] if width is None else width
                    if array.shape[1] != width:
                        raise ItemError(
                            row,
                            f"has {array.shape[1]} values per token, but an earlier item has "
                            f"{width}; all items need the same width",
                        )
                tokens = torch.nn.utils.rnn.pad_sequence(arrays, batch_first=True)  # (b, T, d)
                lengths = torch.tensor([len(array) for array in arrays])
                yield group, EncodedBatch(batch, tokens, lengths, {})

    def _tokens(self, row: int, array: Any) -> torch.Tensor:
        """Convert the array of one item to tokens (T, d)."""
        try:
            tokens = torch.as_tensor(np.array(array) if not torch.is_tensor(array) else array)
            if tokens.is_complex():
                raise TypeError("its numbers are complex; give their real and imaginary parts")
            tokens = tokens.detach().to("cpu", torch.float32)
        except (TypeError, ValueError) as error:
            raise ItemError(row, f"is not an array of numbers: {error}") from error
        if tokens.ndim not in (1, 2) or 0 in tokens.shape:
            raise ItemError(
                row,
                f"has shape {tuple(tokens.shape)}; it must be (width,) or (tokens, width), or None "
                "where the item has none",
            )
        return tokens if tokens.ndim == 2 else tokens[None]  # (d,) -> (1, d)
