"""Splitting interactions into training, validation and test parts.

E interactions, B users, N items, Q evaluated users.
"""

from dataclasses import dataclass, field
from itertools import compress, islice

import numpy as np
import torch
from torch import Tensor

from odmt_sdk.data.event_columns import IntArray
from odmt_sdk.data.interactions import Interactions
from odmt_sdk.data.report import Report, Step
from odmt_sdk.data.sequences import RankingDataset, SequenceDataset
from odmt_sdk.vocabulary import ItemVocabulary

TRAIN = "train, sequences of at least 2"
_MIN_EVALUATED = 3  # one item to read, one to validate on, one to test on


@dataclass(frozen=True, eq=False)
class Split:
    """A data set cut into three parts that do not overlap.

    Args:
        train: training sequences.
        validation: queries for choosing settings and stopping early.
        test: queries for the final result.
        vocabulary: the item ids behind the rows 1..N.
        item_counts: (N + 1,) how often each row occurs in the training part, row 0 being padding.
        report: the steps from the input to the parts; of the parts it says how many interactions
            are trained on or to be found, and how many could not be used.

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
) -> Split:
    """Hold out the last two interactions of every user.

    The last one is to be found in the test and the one before it in the validation; the rest is
    for training. The test history includes the validation item, which by then is known. Users with
    fewer than 3 interactions only train, and training sequences of a single item are left out,
    because they have nothing to predict. The protocol of SASRec (Kang and McAuley 2018, section
    4.1, https://arxiv.org/abs/1808.09781) and of the ODMT paper.

    Args:
        interactions: the events of all users.
        vocabulary: rows of the items, for instance that of the item features; without it the items
            of `interactions` get the rows 1..N in their order.
        max_seq_length: the most positions a model reads. Training sequences are cut to their
            latest `max_seq_length + 1` items, histories to their latest `max_seq_length`;
            `seen_ids` keep whole histories.

    Returns:
        The three parts; `item_counts` counts every training interaction, also those that are cut
        off or stand alone.

    Raises:
        ValueError: if an item is not in the vocabulary, no user has 3 interactions, no training
            sequence has 2 items, or `max_seq_length` is not at least 1.
    """
    if vocabulary is None:
        vocabulary = ItemVocabulary(interactions.item_ids)
    rows = item_rows(interactions, vocabulary)[interactions.item_codes]  # (N,) -> (E,)
    starts, lengths = interactions.offsets[:-1], np.diff(interactions.offsets)  # (B,)

    evaluated = lengths >= _MIN_EVALUATED  # (B,)
    if not evaluated.any():
        raise ValueError(
            f"none of the {interactions.num_users:,} users has the {_MIN_EVALUATED} interactions "
            f"that holding out two needs; the longest sequence has {lengths.max()}. Give longer "
            "sequences, or build a SequenceDataset to train without validation and test"
        )
    train_lengths = np.where(evaluated, lengths - 2, lengths)  # (B,)
    trainable = train_lengths >= 2
    if not trainable.any():
        raise ValueError(
            f"without the two held-out interactions none of the {interactions.num_users:,} users "
            "has 2 left to train on: at least one user needs 4. Give longer sequences"
        )

    user_ids = list(compress(interactions.user_ids, evaluated))
    starts_, lengths_ = starts[evaluated], lengths[evaluated]  # (Q,)
    validation_targets = rows[starts_ + lengths_ - 2]
    test_targets = rows[starts_ + lengths_ - 1]

    held_out = np.concatenate((validation_targets, test_targets))
    size = len(vocabulary) + 1
    counts = np.bincount(rows, minlength=size) - np.bincount(held_out, minlength=size)
    trained, offsets = cut_pieces(rows, starts[trainable], train_lengths[trainable])
    return Split(
        train=SequenceDataset(trained, offsets, max_seq_length=max_seq_length),
        validation=RankingDataset(
            *cut_pieces(rows, starts_, lengths_ - 2),
            validation_targets,
            user_ids,
            max_seq_length=max_seq_length,
        ),
        test=RankingDataset(
            *cut_pieces(rows, starts_, lengths_ - 1),
            test_targets,
            user_ids,
            max_seq_length=max_seq_length,
        ),
        vocabulary=vocabulary,
        item_counts=torch.from_numpy(counts),
        report=interactions.report.then(
            train_step(
                f"{TRAIN}, without the last two of a user", trained, offsets, int(counts.sum())
            ),
            target_step("validation, the second last of a user", validation_targets),
            target_step("test, the last of a user", test_targets),
        ),
    )


def train_step(what: str, rows: IntArray, offsets: IntArray, total: int) -> Step:
    """Report sequences to train on; the rest of the `total` events stands alone."""
    return Step(what, total - len(rows), len(rows), len(offsets) - 1, len(np.unique(rows)))


def target_step(what: str, targets: IntArray, users: int | None = None, dropped: int = 0) -> Step:
    """Report items to find, by default one of each user."""
    users = len(targets) if users is None else users
    return Step(what, dropped, len(targets), users, len(np.unique(targets)))


def item_rows(interactions: Interactions, vocabulary: ItemVocabulary) -> IntArray:
    """The vocabulary's row of each of the interactions' items, (N,)."""
    unknown = (item for item in interactions.item_ids if item not in vocabulary)
    if shown := list(islice(unknown, 3)):
        count = len(shown) + sum(1 for _ in unknown)
        raise ValueError(
            f"{count:,} of the {interactions.num_items:,} items of the interactions are not in the "
            f"vocabulary of {len(vocabulary):,} items: {', '.join(map(repr, shown))}"
            f"{', ...' if count > len(shown) else ''}; drop their interactions with "
            "`interactions.keep_items(vocabulary)`, or give them features"
        )
    return np.array(vocabulary.rows(interactions.item_ids), dtype=np.int64)


def cut_pieces(rows: IntArray, starts: IntArray, lengths: IntArray) -> tuple[IntArray, IntArray]:
    """The pieces of `rows` (E,) that begin at `starts`, end to end, with their offsets."""
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    positions = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
    return rows[positions], offsets
