"""Datasets of item sequences: what a model trains on and what it is ranked on.

E events in all, B sequences, Q queries. Sequences lie end to end in one array, and an array of
offsets says where each begins, so that a data set of any size is two arrays.
"""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

IntArray = npt.NDArray[np.integer[Any]]


class SequenceDataset(Dataset[dict[str, Tensor]]):
    """One training sequence per user, cut to its latest part.

    Args:
        rows: (E,) item rows in 1..N, the sequences end to end.
        offsets: (B + 1,) where each sequence starts; the last entry is E.
        max_seq_length: the most input positions. An example has one item more, because the last
            item of a sequence is only predicted, never read.

    Raises:
        ValueError: if `max_seq_length` is not at least 1, or `offsets` do not cut up `rows`.

    Examples:
        >>> dataset = SequenceDataset(np.array([1, 2, 3, 4, 5]), np.array([0, 3, 5]))
        >>> dataset[1]
        {'item_ids': tensor([4, 5])}
    """

    def __init__(self, rows: IntArray, offsets: IntArray, *, max_seq_length: int = 50) -> None:
        self._sequences = _Sequences(rows, offsets)
        self.max_seq_length = _checked_length(max_seq_length)

    def __len__(self) -> int:
        return len(self._sequences)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """The latest `max_seq_length + 1` items of a sequence, oldest first."""
        return {"item_ids": self._sequences.latest(index, self.max_seq_length + 1)}

    def __repr__(self) -> str:
        return f"SequenceDataset({len(self):,} sequences, max_seq_length={self.max_seq_length})"


class RankingDataset(Dataset[dict[str, Any]]):
    """One query per user: given this history, rank the item that came next.

    Args:
        rows: (E,) item rows in 1..N, the histories end to end.
        offsets: (Q + 1,) where each history starts; the last entry is E.
        targets: (Q,) the row of the item to find.
        user_ids: the Q users' ids.
        max_seq_length: the most positions a model reads of a history.

    Raises:
        ValueError: if `max_seq_length` is not at least 1, `offsets` do not cut up `rows`, or
            histories, targets and users differ in number.

    Examples:
        >>> dataset = RankingDataset(
        ...     np.array([1, 2, 3]), np.array([0, 3]), np.array([4]), ["ann"], max_seq_length=2
        ... )
        >>> dataset[0]
        {'item_ids': tensor([2, 3]), 'target_ids': 4, 'seen_ids': tensor([1, 2, 3])}
    """

    def __init__(
        self,
        rows: IntArray,
        offsets: IntArray,
        targets: IntArray,
        user_ids: Sequence[Hashable],
        *,
        max_seq_length: int = 50,
    ) -> None:
        self._histories = _Sequences(rows, offsets)
        self.targets = torch.from_numpy(np.array(targets, dtype=np.int64))
        self.user_ids = tuple(user_ids)
        self.max_seq_length = _checked_length(max_seq_length)
        if not len(self._histories) == len(self.targets) == len(self.user_ids):
            raise ValueError(
                f"there are {len(self._histories)} histories, {len(self.targets)} targets and "
                f"{len(self.user_ids)} users; give one of each per query"
            )

    def __len__(self) -> int:
        return len(self._histories)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The latest items of a history, its target's row, and all items of the history."""
        history = self._histories.latest(index)
        return {
            "item_ids": history[-self.max_seq_length :],
            "target_ids": int(self.targets[index]),
            "seen_ids": history,
        }

    def __repr__(self) -> str:
        return f"RankingDataset({len(self):,} queries, max_seq_length={self.max_seq_length})"


class _Sequences:
    """Sequences of rows lying end to end in one array."""

    def __init__(self, rows: IntArray, offsets: IntArray) -> None:
        # Half the memory of int64, and arrays rather than lists: worker processes share them.
        self._rows = np.asarray(rows, dtype=np.int32)
        self._offsets = np.asarray(offsets, dtype=np.int64)
        ends = self._offsets[[0, -1]].tolist() if len(self._offsets) else []
        if ends != [0, len(self._rows)] or (np.diff(self._offsets) < 0).any():
            raise ValueError(
                f"offsets must rise from 0 to the number of rows, {len(self._rows)}, but they are "
                f"{self._offsets}"
            )

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def latest(self, index: int, count: int | None = None) -> Tensor:
        """The latest `count` rows of a sequence, or all, oldest first."""
        index = range(len(self))[index]  # negative indices count from the end, others raise
        start, end = self._offsets[index], self._offsets[index + 1]
        if count is not None:
            start = max(start, end - count)
        # A copy: a slice of the whole array would travel from worker processes with all of it.
        return torch.from_numpy(self._rows[start:end].astype(np.int64))


def _checked_length(max_seq_length: int) -> int:
    if not isinstance(max_seq_length, int) or max_seq_length < 1:
        raise ValueError(f"max_seq_length={max_seq_length!r} must be a whole number of at least 1")
    return max_seq_length
