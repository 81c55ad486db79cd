"""Splits interactions into training, validation and test sets.

Letters: E interactions, B users, N items, Q evaluated users.
"""

from dataclasses import dataclass, field
from itertools import compress, islice

import numpy as np
from torch import Tensor

from odmt_sdk.data.event_columns import IntArray
from odmt_sdk.data.interactions import Interactions
from odmt_sdk.data.report import Report, Step
from odmt_sdk.data.sequences import RankingDataset, SequenceDataset, TrainingCounts, Windows
from odmt_sdk.vocabulary import ItemVocabulary, did_you_mean

TRAIN = "train, sequences of at least 2"
_MIN_EVALUATED = 3  # one history item, one validation and one test target


@dataclass(frozen=True, eq=False)
class Split:
    """A data set split into training, validation and test sets.

    Args:
        train: training sequences.
        validation: ranking queries for hyperparameter selection and early stopping.
        test: ranking queries for the final result.
        vocabulary: the item ids of rows 1..N.
        item_counts: (N + 1,) number of training interactions of each row; row 0 is padding.
        report: the steps from the input to the three sets, with the number of training
            interactions or targets in each set and the number of unused interactions.

    Examples:
        >>> table = {"user_id": ["ann"] * 4, "item_id": ["a", "b", "c", "d"]}
        >>> split = leave_one_out(Interactions.from_table(table, timestamp=None))
        >>> split.train[0]
        {'item_ids': tensor([1, 2])}
        >>> split.test[0]
        {'item_ids': tensor([1, 2, 3]), 'target_ids': 4, 'seen_ids': tensor([1, 2, 3])}
    """

    train: SequenceDataset
    validation: RankingDataset
    test: RankingDataset
    vocabulary: ItemVocabulary
    item_counts: Tensor = field(repr=False)
    report: Report = field(default_factory=Report, repr=False)


def leave_one_out(
    interactions: Interactions,
    *,
    vocabulary: ItemVocabulary | None = None,
    max_seq_length: int = 50,
    windows: Windows = "all",
    overlap: int = 1,
) -> Split:
    """Hold out the last two interactions of every user.

    The last interaction is the test target, the second to last is the validation target, and the
    rest are used for training. The history of a test query includes the validation item, which is
    known by then. Users with fewer than 3 interactions are used for training only. Training
    sequences with a single item are dropped, because they have no target. This is the protocol of
    SASRec (Kang and McAuley 2018, section 4.1, https://arxiv.org/abs/1808.09781) and of the ODMT
    paper.

    Args:
        interactions: the events of all users.
        vocabulary: the item ids in row order, for example `features.vocabulary`; None = the items
            of `interactions` in their order.
        max_seq_length: maximum number of positions the model reads. Histories of ranking queries
            are truncated to their latest `max_seq_length` items; `seen_ids` keeps whole histories.
        windows: "all" trains on all events of a user, in windows of `max_seq_length + 1` items
            that shift in every epoch; "last" trains only on the latest window.
        overlap: number of items shared by neighbouring windows, see `SequenceDataset`.

    Returns:
        The three sets. `item_counts` counts every training interaction, including those in dropped
        sequences and, with `windows="last"`, those outside the latest window.

    Raises:
        ValueError: if an item is not in the vocabulary, no user has 3 interactions, no training
            sequence has 2 items, `max_seq_length` is below 1, `windows` is unknown, or `overlap` is
            out of range.
    """
    if vocabulary is None:
        vocabulary = ItemVocabulary(interactions.item_ids)
    rows = item_rows(interactions, vocabulary)[interactions.item_codes]  # (N,) -> (E,)
    starts, lengths = interactions.offsets[:-1], np.diff(interactions.offsets)  # (B,)

    evaluated = lengths >= _MIN_EVALUATED  # (B,)
    if not evaluated.any():
        raise ValueError(
            f"none of the {interactions.num_users:,} users has {_MIN_EVALUATED} interactions, so "
            f"none can be evaluated; the longest sequence has {lengths.max()}. Give longer "
            "sequences, or build a SequenceDataset to train without validation and test"
        )
    train_lengths = np.where(evaluated, lengths - 2, lengths)  # (B,)
    trainable = train_lengths >= 2
    if not trainable.any():
        raise ValueError(
            f"without the two held-out interactions, none of the {interactions.num_users:,} users "
            "has 2 left for training: at least one user must have 4. Give longer sequences"
        )

    user_ids = list(compress(interactions.user_ids, evaluated))
    starts_, lengths_ = starts[evaluated], lengths[evaluated]  # (Q,)
    validation_targets = rows[starts_ + lengths_ - 2]
    test_targets = rows[starts_ + lengths_ - 1]

    past, past_offsets = cut_pieces(rows, starts, train_lengths)
    counts = TrainingCounts.of(past, past_offsets, num_items=len(vocabulary))
    trained, offsets = cut_pieces(rows, starts[trainable], train_lengths[trainable])
    return Split(
        train=SequenceDataset(
            trained,
            offsets,
            max_seq_length=max_seq_length,
            windows=windows,
            overlap=overlap,
            vocabulary=vocabulary,
        ),
        validation=RankingDataset(
            *cut_pieces(rows, starts_, lengths_ - 2),
            validation_targets,
            user_ids,
            max_seq_length=max_seq_length,
            training_counts=counts,
            vocabulary=vocabulary,
        ),
        test=RankingDataset(
            *cut_pieces(rows, starts_, lengths_ - 1),
            test_targets,
            user_ids,
            max_seq_length=max_seq_length,
            training_counts=counts,
            vocabulary=vocabulary,
        ),
        vocabulary=vocabulary,
        item_counts=counts.items,
        report=interactions.report.then(
            train_step(
                f"{TRAIN}, without the last two of a user",
                trained,
                offsets,
                int(counts.items.sum()),
            ),
            target_step("validation, the second last of a user", validation_targets),
            target_step("test, the last of a user", test_targets),
        ),
    )


def train_step(what: str, rows: IntArray, offsets: IntArray, total: int) -> Step:
    """Report the training sequences; the rest of the `total` events was dropped."""
    return Step(what, total - len(rows), len(rows), len(offsets) - 1, len(np.unique(rows)))


def target_step(what: str, targets: IntArray, users: int | None = None, dropped: int = 0) -> Step:
    """Report the targets, by default one per user."""
    users = len(targets) if users is None else users
    return Step(what, dropped, len(targets), users, len(np.unique(targets)))


def item_rows(interactions: Interactions, vocabulary: ItemVocabulary) -> IntArray:
    """Return the vocabulary row (N,) of each item of the interactions."""
    unknown = (item for item in interactions.item_ids if item not in vocabulary)
    if shown := list(islice(unknown, 3)):
        count = len(shown) + sum(1 for _ in unknown)
        hint = did_you_mean(shown[0], vocabulary.__contains__)
        raise ValueError(
            f"{count:,} of the {interactions.num_items:,} items of the interactions are not in the "
            f"vocabulary of {len(vocabulary):,} items: {', '.join(map(repr, shown))}"
            f"{', ...' if count > len(shown) else ''}"
            f"{hint and f' ({hint})'}; drop their interactions with "
            "`interactions.keep_items(vocabulary)`, or give them features"
        )
    return np.array(vocabulary.rows(interactions.item_ids), dtype=np.int64)


def cut_pieces(rows: IntArray, starts: IntArray, lengths: IntArray) -> tuple[IntArray, IntArray]:
    """Cut pieces of `rows` (E,) at `starts`; return them concatenated, with their offsets."""
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    positions = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
    return rows[positions], offsets
