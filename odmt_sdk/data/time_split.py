"""Splitting at points in time that are the same for all users.

E interactions, B users, N items, Q queries.
"""

from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch

from odmt_sdk.data.event_columns import IntArray, Time, Times, as_time
from odmt_sdk.data.interactions import Interactions
from odmt_sdk.data.report import Step
from odmt_sdk.data.sequences import RankingDataset, SequenceDataset
from odmt_sdk.data.splits import TRAIN, Split, cut_pieces, item_rows, target_step, train_step
from odmt_sdk.vocabulary import ItemVocabulary

Targets = Literal["first", "last", "all"]


def time_split(
    interactions: Interactions,
    *,
    shares: tuple[float, float] = (0.1, 0.1),
    starts: tuple[Time, Time] | None = None,
    targets: Targets = "first",
    vocabulary: ItemVocabulary | None = None,
    max_seq_length: int = 50,
) -> Split:
    """Train on the past, validate on what followed, test on what followed that.

    Two points in time cut the interactions of all users: training knows nothing from after the
    first of them, popularity included, as it would have been on that day. Leave-one-out, in
    contrast, trains on one user's interactions from after another's test. What happened at the same
    time is never cut apart. Histories hold everything before their target, so those of the test
    include the interactions of the validation, which by then are known.

    Items that appear only after the first cut are ranked and count as cold. To filter by what was
    known at the cut as well, filter the past and keep its items:
    `interactions.keep_items(interactions.before(cut).k_core(5).item_ids)`.

    Args:
        interactions: the events of all users, with times.
        shares: the parts of all interactions that validation and test take; the cuts are made where
            that many lie behind them, or a few more with the same time.
        starts: the times at which validation and test begin, in place of `shares`: numbers or
            datetimes, as the times are.
        targets: which of a user's interactions within a window are to be found: the "first", the
            "last", or "all" of them one after another, each with a history of its own. A user
            without any earlier interaction has no history and is not evaluated.
        vocabulary: rows of the items, for instance that of the item features; without it the items
            of `interactions` get the rows 1..N in their order.
        max_seq_length: the most positions a model reads, see `leave_one_out`.

    Returns:
        The three parts; `item_counts` counts the interactions before validation begins.

    Raises:
        ValueError: if the interactions have no times, a share or a start is out of range, an item
            is not in the vocabulary, or a part would be empty.
        TypeError: if a start is of another kind than the times.

    Examples:
        >>> table = {"user_id": [1, 1, 1, 1, 2, 2], "item_id": list("abcdba"),
        ...          "timestamp": [1, 2, 5, 9, 1, 6]}
        >>> split = time_split(Interactions.from_table(table), starts=(5, 9))
        >>> split.train[0], split.test.user_ids
        ({'item_ids': tensor([1, 2])}, (1,))
    """
    times = interactions.times
    if times is None:
        raise ValueError(
            "time_split needs the times of the interactions, which hold only their order: read "
            "them with from_table(..., timestamp=...), or use leave_one_out"
        )
    if targets not in get_args(Targets):
        raise ValueError(f"targets={targets!r} must be one of {get_args(Targets)}")
    first, second = _shared_cuts(times, shares) if starts is None else _given_cuts(times, starts)
    if vocabulary is None:
        vocabulary = ItemVocabulary(interactions.item_ids)
    rows = item_rows(interactions, vocabulary)[interactions.item_codes]  # (N,) -> (E,)

    past = times < first  # (E,), of each user the first ones
    past_lengths = _counts_by_user(past, interactions.offsets)  # (B,)
    trainable = past_lengths >= 2
    if not trainable.any():
        raise ValueError(
            f"no user has 2 interactions before {first}, where validation begins: there is nothing "
            "to train on. Let it begin later"
        )
    trained, offsets = cut_pieces(
        rows, interactions.offsets[:-1][trainable], past_lengths[trainable]
    )
    middle = (times >= first) & (times < second)
    validation = _queries("validation", interactions, middle, targets, f"{first} to {second}")
    test = _queries("test", interactions, times >= second, targets, f"from {second}")

    def ranking(part: "_Queries") -> RankingDataset:
        starts = interactions.offsets[part.users]
        return RankingDataset(
            *cut_pieces(rows, starts, part.positions - starts),
            rows[part.positions],
            [interactions.user_ids[user] for user in part.users],
            max_seq_length=max_seq_length,
        )

    counts = np.bincount(rows[past], minlength=len(vocabulary) + 1)
    return Split(
        train=SequenceDataset(trained, offsets, max_seq_length=max_seq_length),
        validation=ranking(validation),
        test=ranking(test),
        vocabulary=vocabulary,
        item_counts=torch.from_numpy(counts),
        report=interactions.report.then(
            train_step(f"{TRAIN}, before {first}", trained, offsets, int(past.sum())),
            validation.step(rows),
            test.step(rows),
        ),
    )


class _Queries(NamedTuple):
    """Which events are to be found: Q positions among all E, and their users."""

    positions: IntArray
    users: IntArray
    what: str
    dropped: int

    def step(self, rows: IntArray) -> Step:
        users = len(np.unique(self.users))
        return target_step(self.what, rows[self.positions], users, self.dropped)


def _queries(
    name: str, interactions: Interactions, window: Any, targets: Targets, when: str
) -> _Queries:
    users = np.repeat(np.arange(interactions.num_users), np.diff(interactions.offsets))  # (E,)
    inside = np.flatnonzero(window)
    if targets == "all":
        chosen = inside
    else:  # the events of a user lie together, in order of time
        borders = users[inside][1:] != users[inside][:-1]
        is_first, is_last = np.r_[True, borders], np.r_[borders, True]
        chosen = inside[(is_first if targets == "first" else is_last)[: len(inside)]]
    known = chosen > interactions.offsets[users[chosen]]  # something lies before it
    if not known.any():
        raise ValueError(
            f"{name} ({when}) would be empty: it holds {len(inside):,} interactions, none of a "
            "user with an earlier one. Choose other shares or starts"
        )
    chosen = chosen[known]
    what = f"{name}, {when}, {targets} of a user with a history"
    return _Queries(chosen, users[chosen], what, len(inside) - len(chosen))


def _counts_by_user(chosen: Any, offsets: IntArray) -> IntArray:
    """How many of each user's events are chosen, (B,)."""
    running = np.concatenate(([0], np.cumsum(chosen)))
    return np.diff(running[offsets])


def _shared_cuts(times: Times, shares: tuple[float, float]) -> tuple[Any, Any]:
    validation, test = shares
    if not (validation > 0 and test > 0 and validation + test < 1):
        raise ValueError(
            f"shares={shares} must be the parts of validation and test, both above 0 and together "
            "below 1, for example (0.1, 0.1)"
        )
    places = [int(len(times) * (1 - test - validation)), int(len(times) * (1 - test))]
    first, second = np.partition(times, places)[places]
    if not times.min() < first < second:
        raise ValueError(
            f"shares={shares} put both cuts at {first} or before every interaction: too many "
            "happened at the same time. Give starts=, or larger shares"
        )
    return first, second


def _given_cuts(times: Times, starts: tuple[Time, Time]) -> tuple[Any, Any]:
    first, second = (as_time("starts", start, times) for start in starts)
    if not times.min() < first < second <= times.max():
        raise ValueError(
            f"starts={starts} must be two times, the first before the second, within those of the "
            f"interactions, {times.min()} to {times.max()}"
        )
    return first, second
