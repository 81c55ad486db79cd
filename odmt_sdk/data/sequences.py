"""Datasets of item sequences for training and ranking.

Sequences are concatenated into one array, and a second array holds the offset of each sequence.

Letters: E events, B sequences, Q queries.
"""

from collections.abc import Hashable, Sequence
from typing import Any, Literal, NamedTuple, Self, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from odmt_sdk.config import whole_number
from odmt_sdk.vocabulary import ItemVocabulary

IntArray = npt.NDArray[np.integer[Any]]
Windows = Literal["all", "last"]


class TrainingCounts(NamedTuple):
    """Numbers of interactions and users of each item in training, for beyond-accuracy metrics.

    Attributes:
        items: (N + 1,) number of interactions of each row; entry 0, padding, is 0.
        users: (N + 1,) number of users of each row.
        num_users: number of users with a training interaction.

    Examples:
        >>> rows, offsets = np.array([1, 2, 2, 1]), np.array([0, 3, 4])
        >>> counts = TrainingCounts.of(rows, offsets, num_items=3)
        >>> counts.items.tolist(), counts.users.tolist(), counts.num_users
        ([0, 2, 2, 0], [0, 2, 1, 0], 2)
    """

    items: Tensor
    users: Tensor
    num_users: int

    @classmethod
    def of(cls, rows: IntArray, offsets: IntArray, *, num_items: int) -> Self:
        """Count the interactions in concatenated sequences.

        Args:
            rows: (E,) item rows in 1..N, the concatenated sequences of all users.
            offsets: (B + 1,) start of each user; the last entry is E.
            num_items: N.

        Returns:
            The counts.
        """
        size = num_items + 1
        lengths = np.diff(offsets)
        users = np.repeat(np.arange(len(lengths)), lengths)  # (E,)
        pairs = np.sort(users * size + rows)  # int64: B * N stays below 2**63
        first = np.ones(len(pairs), dtype=bool)
        first[1:] = pairs[1:] != pairs[:-1]  # one of each user and item
        return cls(
            torch.from_numpy(np.bincount(rows, minlength=size)),
            torch.from_numpy(np.bincount(pairs[first] % size, minlength=size)),
            int((lengths > 0).sum()),
        )


class SequenceDataset(Dataset[dict[str, Tensor]]):
    """Training sequences, cut into windows that fit the model.

    A window has at most `max_seq_length + 1` items: the last item is only a target, never an input.
    With `windows="all"`, the windows of a sequence cover the whole sequence. Their start is shifted
    at random in every epoch, so that an item is predicted from different histories. `set_epoch`
    sets the shift; `fit` and `ODMTTrainer` call it. The number of windows is the same in every
    epoch.

    Args:
        rows: (E,) item rows in 1..N, the concatenated sequences.
        offsets: (B + 1,) start of each sequence; the last entry is E.
        max_seq_length: maximum number of input positions.
        windows: "all" cuts the whole sequence into windows, "last" uses only the latest window.
        overlap: number of items shared by neighbouring windows of a sequence, 1..max_seq_length.
            With 1, every item except the first of a sequence is predicted exactly once per epoch.
            A larger overlap gives fewer predictions with a short history, but more windows per
            epoch.
        seed: seed of the shifts.
        vocabulary: the item ids of the rows, compared with those of the model; None = not compared.
            `leave_one_out` and `time_split` set it.

    Raises:
        ValueError: if `max_seq_length` is below 1, `windows` is unknown, `overlap` is out of range,
            `offsets` do not rise from 0 to E, or a row is below 1.
        TypeError: if the rows are not integers.

    Examples:
        >>> rows, offsets = np.array([1, 2, 3, 4, 5, 6, 7]), np.array([0, 5, 7])
        >>> dataset = SequenceDataset(rows, offsets, max_seq_length=2, windows="last")
        >>> dataset[0], dataset[1]
        ({'item_ids': tensor([3, 4, 5])}, {'item_ids': tensor([6, 7])})
        >>> len(SequenceDataset(rows, offsets, max_seq_length=2))
        4
    """

    def __init__(
        self,
        rows: IntArray,
        offsets: IntArray,
        *,
        max_seq_length: int = 50,
        windows: Windows = "all",
        overlap: int = 1,
        seed: int = 0,
        vocabulary: ItemVocabulary | None = None,
    ) -> None:
        self.vocabulary = vocabulary
        self._sequences = _Sequences(rows, offsets)
        self.max_seq_length = _checked_length(max_seq_length)
        if windows not in get_args(Windows):
            raise ValueError(f"windows={windows!r} must be one of {get_args(Windows)}")
        self.windows = windows
        self.overlap = _checked_overlap(overlap, self.max_seq_length)
        self.seed = seed
        # In shared memory, so that persistent worker processes see the change of epoch.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._first_windows: IntArray | None = None  # (B + 1,); None = one window per sequence
        lengths = np.diff(self._sequences.offsets)
        if windows == "all" and (lengths > self.max_seq_length + 1).any():
            counts = _window_counts(lengths, self.max_seq_length, self._stride)  # (B,)
            self._first_windows = np.concatenate(([0], np.cumsum(counts)))

    def __len__(self) -> int:
        if self._first_windows is None:
            return len(self._sequences)
        return int(self._first_windows[-1])

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return the items of a window, oldest first: at least 2, if the sequence has 2."""
        if self._first_windows is None:
            return {"item_ids": self._sequences.latest(index, self.max_seq_length + 1)}
        index = range(len(self))[index]  # supports negative indices; raises if out of range
        sequence = int(np.searchsorted(self._first_windows, index, side="right")) - 1
        first, last = self._first_windows[sequence : sequence + 2].tolist()
        start, end = self._sequences.offsets[sequence : sequence + 2].tolist()
        if last - first > 1:
            begin = start - self._shift(sequence, end - start, last - first)
            begin += (index - first) * self._stride
            start, end = max(start, begin), min(end, begin + self.max_seq_length + 1)
        return {"item_ids": self._sequences.between(start, end)}

    @property
    def epoch(self) -> int:
        """The epoch of the current windows."""
        return int(self._epoch)

    def set_epoch(self, epoch: int, seed: int | None = None) -> None:
        """Select the windows of an epoch; call it before iterating over the epoch.

        Args:
            epoch: epoch, counted from 0; the same epoch always has the same windows.
            seed: new seed of the shifts; None = unchanged.
        """
        if seed is not None:
            self.seed = seed
        self._epoch.fill_(epoch)

    def mean_predictions(self) -> float:
        """Return the mean number of items that are predicted per window."""
        predicted = np.maximum(np.diff(self._sequences.offsets) - 1, 0)
        if self.windows == "last":
            predicted = np.minimum(predicted, self.max_seq_length)
        again = (len(self) - len(self._sequences)) * (self.overlap - 1)  # in the shared items
        return float(predicted.sum() + again) / max(len(self), 1)

    def sequences(self) -> tuple[IntArray, IntArray]:
        """Return the uncut sequences: rows (E,) and offsets (B + 1,)."""
        return self._sequences.rows, self._sequences.offsets

    def __repr__(self) -> str:
        cut = "" if self._first_windows is None else f" in {len(self):,} windows"
        sequences = f"{len(self._sequences):,} sequences{cut}"
        return f"SequenceDataset({sequences}, max_seq_length={self.max_seq_length})"

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._epoch.share_memory_()  # an independent copy, except in worker processes

    @property
    def _stride(self) -> int:
        return self.max_seq_length + 1 - self.overlap

    def _shift(self, sequence: int, length: int, count: int) -> int:
        """Return how far before its sequence the first of `count` windows starts in this epoch.

        The first and last windows are cut at the ends of the sequence. Neither is contained in its
        neighbour.
        """
        spare = (count - 1) * self._stride + self.max_seq_length + 1 - length
        least, most = max(0, spare - self._stride + 1), min(spare, self._stride - 1)
        return least + _mixed(self.seed, self.epoch, sequence) % (most - least + 1)


class RankingDataset(Dataset[dict[str, Any]]):
    """Ranking queries: given a user's history, rank the item that came next.

    Args:
        rows: (E,) item rows in 1..N, the concatenated histories.
        offsets: (Q + 1,) start of each history; the last entry is E.
        targets: (Q,) row of the target item of each query.
        user_ids: user id of each query.
        max_seq_length: maximum number of history items given to the model.
        training_counts: how often the items occur in training, for
            `evaluate(..., beyond_accuracy=True)`; `leave_one_out` and `time_split` set them.
        vocabulary: the item ids of the rows, compared with those of the model; None = not compared.
            `leave_one_out` and `time_split` set it.

    Raises:
        ValueError: if `max_seq_length` is below 1, `offsets` do not rise from 0 to E, a row is
            below 1, or the numbers of histories, targets and users differ.
        TypeError: if rows or targets are not integers.

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
        training_counts: TrainingCounts | None = None,
        vocabulary: ItemVocabulary | None = None,
    ) -> None:
        self.vocabulary = vocabulary
        self._histories = _Sequences(rows, offsets)
        self.targets = torch.from_numpy(_checked_rows("targets", targets).astype(np.int64))
        self.user_ids = tuple(user_ids)
        self.training_counts = training_counts
        self.max_seq_length = _checked_length(max_seq_length)
        if not len(self._histories) == len(self.targets) == len(self.user_ids):
            raise ValueError(
                f"there are {len(self._histories)} histories, {len(self.targets)} targets and "
                f"{len(self.user_ids)} users; give one of each per query"
            )

    def __len__(self) -> int:
        return len(self._histories)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return the latest items of a history, its target row, and all items of the history."""
        history = self._histories.latest(index)
        return {
            "item_ids": history[-self.max_seq_length :],
            "target_ids": int(self.targets[index]),
            "seen_ids": history,
        }

    def __repr__(self) -> str:
        return f"RankingDataset({len(self):,} queries, max_seq_length={self.max_seq_length})"


def check_same_rows(dataset: Any, vocabulary: ItemVocabulary | None, whose: str = "model") -> None:
    """Raise if the rows of a dataset are other items than those of a vocabulary.

    Items after those of the dataset are allowed, because a catalogue grows at its end. Vocabularies
    of the numbers 1..N name rows, not items, and are not compared with ids of texts.

    Args:
        dataset: a `SequenceDataset`, a `RankingDataset`, or a `Subset` of one; others pass.
        vocabulary: the item ids; None passes.
        whose: whose vocabulary it is, for the message.

    Raises:
        ValueError: if an item differs.
    """
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    own: ItemVocabulary | None = getattr(dataset, "vocabulary", None)
    if own is None or vocabulary is None or own is vocabulary or len(vocabulary) < len(own):
        return  # too few rows are reported by their number
    pairs = zip(own, vocabulary, strict=False)
    differ = ((row, *pair) for row, pair in enumerate(pairs, start=1) if not _is_same(*pair))
    found = next(differ, None)
    if found is None or _names_rows(own, vocabulary) or _names_rows(vocabulary, own):
        return
    row, item, other = found
    raise ValueError(
        f"the items of the dataset and of the {whose} differ, or their order does: row {row:,} is "
        f"{item!r} in the dataset and {other!r} in the {whose}. Split the data with the vocabulary "
        f"of the {whose}, leave_one_out(..., vocabulary={whose}.vocabulary)"
    )


def _is_same(one: Hashable, other: Hashable) -> bool:
    return type(one) is type(other) and one == other


def _names_rows(one: ItemVocabulary, other: ItemVocabulary) -> bool:
    """Whether the ids of one vocabulary are the numbers 1..N, and those of the other texts."""
    numbers = all(item_id == row for row, item_id in enumerate(one, start=1))
    return numbers and set(map(type, other)) == {str}


class _Sequences:
    """Sequences of rows, concatenated into one array."""

    def __init__(self, rows: IntArray, offsets: IntArray) -> None:
        # int32 needs half the memory of int64; forked worker processes share arrays, but not lists.
        self.rows = _checked_rows("rows", rows).astype(np.int32, copy=False)
        self.offsets = np.asarray(offsets, dtype=np.int64)
        ends = self.offsets[[0, -1]].tolist() if len(self.offsets) else []
        if ends != [0, len(self.rows)] or (np.diff(self.offsets) < 0).any():
            raise ValueError(
                f"offsets must increase from 0 to the number of rows, {len(self.rows)}, but they "
                f"are {self.offsets}"
            )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def latest(self, index: int, count: int | None = None) -> Tensor:
        """Return the latest `count` rows of a sequence, None = all; oldest first."""
        index = range(len(self))[index]  # supports negative indices; raises if out of range
        start, end = self.offsets[index], self.offsets[index + 1]
        return self.between(start if count is None else max(start, end - count), end)

    def between(self, start: int, end: int) -> Tensor:
        """Return the rows from `start` up to, but not including, `end`."""
        # Copy: a view would make worker processes send the whole array.
        return torch.from_numpy(self.rows[start:end].astype(np.int64))


def _window_counts(lengths: IntArray, max_seq_length: int, stride: int) -> IntArray:
    """Return how many windows (B,) cover sequences of the given lengths (B,) under any shift.

    A sequence that fits into one window has one window. Longer sequences get enough windows to
    shift by at least half a stride.
    """
    beyond = lengths - (max_seq_length + 1)
    counts: IntArray = 1 + -(-(beyond + stride // 2) // stride)
    return np.where(beyond > 0, counts, 1)


def _mixed(*numbers: int) -> int:
    """Hash integers into a pseudo-random integer below 2**64.

    Source: the mixer of SplitMix64, Steele et al. 2014, https://doi.org/10.1145/2714064.2660195.
    """
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) % 2**64
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
        state ^= state >> 31
    return state


def _checked_rows(name: str, rows: Any) -> IntArray:
    """Raise unless rows are a list of integers of at least 1; return them as an array."""
    found = np.asarray(rows)
    if found.ndim != 1:
        raise ValueError(
            f"{name} have {found.ndim} dimensions instead of one: concatenate the sequences, "
            "without padding"
        )
    if not len(found):
        return found.astype(np.int64)
    if found.dtype.kind not in "iu":
        raise TypeError(f"{name} hold {found.dtype}; they must be integers, the rows of items")
    low, high = int(found.min()), int(found.max())
    if low < 1 or high > np.iinfo(np.int32).max:
        raise ValueError(
            f"{name} hold {low if low < 1 else high}, but rows of items lie in 1..N and 0 is "
            "padding: number the items from 1, as ItemVocabulary(item_ids).rows(...) does, and "
            "leave out padding"
        )
    return found


def _checked_overlap(overlap: int, max_seq_length: int) -> int:
    try:
        found = whole_number("overlap", overlap)
    except (TypeError, ValueError):
        found = 0
    if not 1 <= found <= max_seq_length:
        raise ValueError(
            f"overlap={overlap!r} must be a whole number in 1..{max_seq_length}, the "
            "max_seq_length: every window must have at least one new item"
        )
    return found


def _checked_length(max_seq_length: int) -> int:
    try:
        return whole_number("max_seq_length", max_seq_length)
    except (TypeError, ValueError):
        raise ValueError(
            f"max_seq_length={max_seq_length!r} must be a whole number of at least 1"
        ) from None
