"""Splits interactions at points in time shared by all users.

Letters: E interactions, B users, N items, Q queries.
"""

from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from odmt_sdk.data.event_columns import IntArray, Time, Times, as_time
from odmt_sdk.data.interactions import Interactions
from odmt_sdk.data.report import Step
from odmt_sdk.data.sequences import RankingDataset, SequenceDataset, TrainingCounts, Windows
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
    windows: Windows = "all",
    overlap: int = 1,
) -> Split:
    """Split at two points in time: train on the past, then validate, then test.

    The two points in time apply to all users. Training, including item popularity, uses nothing
    from after the first one, so there is no leakage from the future. `leave_one_out`, in contrast,
    may train on interactions that happened after another user's test interaction. Interactions with
    equal times are always in the same set. The history of a query has all interactions before its
    target, so the history of a test query includes validation interactions.

    Items that appear only after the first point in time are ranked too, as cold items. To apply a
    filter only to what was known then, filter the past and keep its items:
    `interactions.keep_items(interactions.before(cut).k_core(5).item_ids)`.

    Args:
        interactions: the events of all users, with times.
        shares: fractions of all interactions for validation and test. Interactions with equal times
            are not separated, so the actual fractions may be slightly larger.
        starts: times at which validation and test start, instead of `shares`: numbers or datetimes,
            matching the times of the interactions.
        targets: which interactions of a user within a period are targets: the "first", the "last",
            or "all", each as a query with its own history. Users without earlier interactions have
            no history and are not evaluated.
        vocabulary: the item ids in row order, for example `features.vocabulary`; None = the items
            of `interactions` in their order.
        max_seq_length: maximum number of positions the model reads, see `leave_one_out`.
        windows: "all" or "last", see `leave_one_out`.
        overlap: number of items shared by neighbouring windows, see `leave_one_out`.

    Returns:
        The three sets. `item_counts` counts all interactions before validation starts.

    Raises:
        ValueError: if the interactions have no times, a share or start is out of range, an item
            is not in the vocabulary, or a set would be empty.
        TypeError: if the type of a start does not match the times.

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
            "time_split needs the times of the interactions, but only their order is known: read "
            "them with from_table(..., timestamp=...), or use leave_one_out"
        )
    if targets not in get_args(Targets):
        raise ValueError(f"targets={targets!r} must be one of {get_args(Targets)}")
    first, second = _shared_cuts(times, shares) if starts is None else _given_cuts(times, starts)
    if vocabulary is None:
        vocabulary = ItemVocabulary(interactions.item_ids)
    rows = item_rows(interactions, vocabulary)[interactions.item_codes]  # (N,) -> (E,)

    past = times < first  # (E,), a prefix of each user's events
    past_lengths = _counts_by_user(past, interactions.offsets)  # (B,)
    trainable = past_lengths >= 2
    if not trainable.any():
        raise ValueError(
            f"no user has 2 interactions before {first}, where validation begins: there is no "
            "training data. Let validation begin later"
        )
    trained, offsets = cut_pieces(
        rows, interactions.offsets[:-1][trainable], past_lengths[trainable]
    )
    middle = (times >= first) & (times < second)
    validation = _queries("validation", interactions, middle, targets, f"{first} to {second}")
    test = _queries("test", interactions, times >= second, targets, f"from {second}")

    before = np.concatenate(([0], np.cumsum(past_lengths)))
    counts = TrainingCounts.of(rows[past], before, num_items=len(vocabulary))

    def ranking(part: "_Queries") -> RankingDataset:
        starts = interactions.offsets[part.users]
        return RankingDataset(
            *cut_pieces(rows, starts, part.positions - starts),
            rows[part.positions],
            [interactions.user_ids[user] for user in part.users],
            max_seq_length=max_seq_length,
            training_counts=counts,
            vocabulary=vocabulary,
        )

    return Split(
        train=SequenceDataset(
            trained,
            offsets,
            max_seq_length=max_seq_length,
            windows=windows,
            overlap=overlap,
            vocabulary=vocabulary,
        ),
        validation=ranking(validation),
        test=ranking(test),
        vocabulary=vocabulary,
        item_counts=counts.items,
        report=interactions.report.then(
            train_step(f"{TRAIN}, before {first}", trained, offsets, int(past.sum())),
            validation.step(rows),
            test.step(rows),
        ),
    )


class _Queries(NamedTuple):
    """The target events: Q positions among all E events, and their users."""

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
    else:  # events are grouped by user, in chronological order
        borders = users[inside][1:] != users[inside][:-1]
        is_first, is_last = np.r_[True, borders], np.r_[borders, True]
        chosen = inside[(is_first if targets == "first" else is_last)[: len(inside)]]
    known = chosen > interactions.offsets[users[chosen]]  # the target has a history
    if not known.any():
        raise ValueError(
            f"{name} ({when}) would be empty: it holds {len(inside):,} interactions, none of a "
            "user with an earlier one. Choose other shares or starts"
        )
    chosen = chosen[known]
    what = f"{name}, {when}, {targets} of a user with a history"
    return _Queries(chosen, users[chosen], what, len(inside) - len(chosen))


def _counts_by_user(chosen: Any, offsets: IntArray) -> IntArray:
    """Count the chosen events of each user, (B,)."""
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
            f"shares={shares} put both cuts at {first}, or before every interaction, because too "
            "many interactions have the same time. Pass starts=, or larger shares"
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
