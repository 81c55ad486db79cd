"""Tokens the user already has, as arrays, for any modality.

Letters: N items, b items of one batch, T tokens of one item, d width of a token.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from odmt_sdk.items.extraction import EncodedBatch, is_missing

_ITEMS_AT_ONCE = 256


def present_arrays(name: str, arrays: Any, num_items: int) -> dict[int, Any]:
    """Leave out items without an array; nothing is copied.

    Args:
        name: of the modality.
        arrays: (N, d) or (N, T, d) as a tensor or numpy array, a memory-mapped one too; or N
            entries, each (d,), (T, d) or None.
        num_items: N.

    Returns:
        Position -> array.

    Raises:
        ValueError: if there are not N entries.
    """
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


class _Rows(dict[int, Any]):
    """The rows of one large array, taken out as they are asked for."""

    def __init__(self, array: Any, num_items: int) -> None:
        super().__init__(dict.fromkeys(range(num_items)))
        self.array = array

    def __getitem__(self, row: int) -> Any:
        return self.array[row]


def _is_empty(array: Any) -> bool:
    return is_missing(array) or (hasattr(array, "__len__") and len(array) == 0)


class ArrayExtractor:
    """Takes tokens as they are given.

    Args:
        name: of the modality, such as "audio".

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
        """That no encoder of this package has made them."""
        return {"encoder": "given as arrays", "revision": None, "pooling": None}

    def encode(
        self, values: Mapping[int, Any], groups: Sequence[Sequence[int]]
    ) -> Iterator[tuple[int, EncodedBatch]]:
        """Put arrays together in batches.

        Args:
            values: position of each item that has an array, with the array.
            groups: positions that may share a batch.

        Yields:
            Index of the group, in order, and batches that together hold each array once.

        Raises:
            ValueError: if an array has not one or two dimensions, or another width.
        """
        width: int | None = None
        for group, rows in enumerate(groups):
            for start in range(0, len(rows), _ITEMS_AT_ONCE):
                batch = list(rows[start : start + _ITEMS_AT_ONCE])
                arrays = [self._tokens(row, values[row]) for row in batch]
                for row, array in zip(batch, arrays, strict=True):
                    width = array.shape[1] if width is None else width
                    if array.shape[1] != width:
                        raise ValueError(
                            f"{self.unit} of item {row} has {array.shape[1]} values per token, "
                            f"that of an earlier one {width}; all items need the same width"
                        )
                tokens = torch.nn.utils.rnn.pad_sequence(arrays, batch_first=True)  # (b, T, d)
                lengths = torch.tensor([len(array) for array in arrays])
                yield group, EncodedBatch(batch, tokens, lengths, {})

    def _tokens(self, row: int, array: Any) -> torch.Tensor:
        """One item's array as tokens (T, d)."""
        try:
            tokens = torch.as_tensor(np.array(array) if not torch.is_tensor(array) else array)
            tokens = tokens.detach().to("cpu", torch.float32)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{self.unit} of item {row} is no array of numbers: {error}"
            ) from error
        if tokens.ndim not in (1, 2) or 0 in tokens.shape:
            raise ValueError(
                f"{self.unit} of item {row} has shape {tuple(tokens.shape)}; it must be (width,) "
                "or (tokens, width), or None where the item has none"
            )
        return tokens if tokens.ndim == 2 else tokens[None]  # (d,) -> (1, d)
