from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from odmt_sdk.data.interactions import Interactions
from odmt_sdk.data.splits import leave_one_out
from odmt_sdk.vocabulary import ItemVocabulary

# Items repeat, also within a history; lengths start at 1; at least one user can be split.
HISTORIES = st.lists(
    st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=9), min_size=1, max_size=8
).map(lambda histories: [*histories, list("abcd")])
# Every event has a unique item, so that an item identifies its event.
LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=8).map(lambda lengths: [*lengths, 4])


def interactions_of(histories):
    users = [f"user {number}" for number, history in enumerate(histories) for _ in history]
    items = [item for history in histories for item in history]
    return Interactions.from_table({"user_id": users, "item_id": items}, timestamp=None)


def train_of(split):
    return [split.vocabulary.ids(example["item_ids"].tolist()) for example in split.train]


def queries_of(dataset, vocabulary):
    return {
        user: (
            vocabulary.ids(example["item_ids"].tolist()),
            vocabulary.ids([example["target_ids"]])[0],
            vocabulary.ids(example["seen_ids"].tolist()),
        )
        for user, example in zip(dataset.user_ids, dataset, strict=True)
    }


def slow_split(histories, length):
    train, counts, validation, test = [], Counter(), {}, {}
    for number, history in enumerate(histories):
        rest = list(history)
        if len(history) >= 3:
            *before, target = history
            test[f"user {number}"] = (before[-length:], target, before)
            *before, target = before
            validation[f"user {number}"] = (before[-length:], target, before)
            rest = before
        counts.update(rest)
        if len(rest) >= 2:
            train.append(rest[-(length + 1) :])
    return train, counts, validation, test


@given(HISTORIES, st.integers(1, 10))
def test_split_equals_its_slow_twin(histories, length):
    split = leave_one_out(interactions_of(histories), max_seq_length=length, windows="last")
    train, counts, validation, test = slow_split(histories, length)
    assert train_of(split) == train
    assert queries_of(split.validation, split.vocabulary) == validation
    assert queries_of(split.test, split.vocabulary) == test
    assert split.item_counts.dtype == torch.int64
    assert split.item_counts.tolist() == [0] + [counts[item] for item in split.vocabulary.item_ids]
    for part, queries in ((split.validation, validation), (split.test, test)):
        targets = split.vocabulary.ids(part.targets.tolist())
        assert targets == [target for _, target, _ in queries.values()]


@given(LENGTHS)
def test_training_never_holds_what_is_held_out(lengths):
    histories = [[(user, i) for i in range(length)] for user, length in enumerate(lengths)]
    split = leave_one_out(interactions_of(histories), max_seq_length=50)
    trained = {event for sequence in train_of(split) for event in sequence}
    counted = {
        event
        for event, count in zip(split.vocabulary, split.item_counts[1:].tolist(), strict=True)
        if count
    }
    validation, test = (
        queries_of(part, split.vocabulary) for part in (split.validation, split.test)
    )
    held_out = {target for queries in (validation, test) for _, target, _ in queries.values()}
    assert len(held_out) == 2 * sum(length >= 3 for length in lengths)
    assert not held_out & trained
    assert not held_out & counted
    # Validation and test histories end before their targets.
    for queries in (validation, test):
        for history, (user, position), seen in queries.values():
            assert history == seen == [(user, earlier) for earlier in range(position)]
    # The arrays of the training set do not contain the targets either.
    stored = split.vocabulary.ids(split.train.sequences()[0].tolist())
    assert not held_out & set(stored)


def test_example_by_hand():
    histories = [list("abcdef"), list("ab"), list("xyz"), ["q"]]
    split = leave_one_out(interactions_of(histories), max_seq_length=2, windows="last")
    assert train_of(split) == [["b", "c", "d"], ["a", "b"]]
    assert queries_of(split.validation, split.vocabulary) == {
        "user 0": (["c", "d"], "e", list("abcd")),
        "user 2": (["x"], "y", ["x"]),
    }
    assert queries_of(split.test, split.vocabulary) == {
        "user 0": (["d", "e"], "f", list("abcde")),
        "user 2": (["x", "y"], "z", ["x", "y"]),
    }
    counts = dict(zip(split.vocabulary, split.item_counts[1:].tolist(), strict=True))
    expected = {"a": 2, "b": 2, "c": 1, "d": 1, "e": 0, "f": 0, "x": 1, "y": 0, "z": 0, "q": 1}
    assert counts == expected


def test_rows_are_those_of_the_given_vocabulary():
    vocabulary = ItemVocabulary(["unused", "d", "c", "b", "a"])
    split = leave_one_out(interactions_of([list("abcd")]), vocabulary=vocabulary)
    assert split.vocabulary is vocabulary
    assert split.train[0]["item_ids"].tolist() == [5, 4]
    assert split.validation.targets.tolist() == [3]
    assert split.test.targets.tolist() == [2]
    assert split.item_counts.tolist() == [0, 0, 0, 0, 1, 1]


def test_items_unknown_to_the_vocabulary():
    interactions = interactions_of([list("abcdefg"), list("abab")])
    vocabulary = ItemVocabulary(["a", "b"])
    with pytest.raises(
        ValueError,
        match=r"5 of the 7 items .* not in the vocabulary of 2 items: 'c', 'd', 'e', \.\.\.; drop "
        r"their interactions with `interactions.keep_items\(vocabulary\)`",
    ):
        leave_one_out(interactions, vocabulary=vocabulary)
    split = leave_one_out(interactions.keep_items(vocabulary), vocabulary=vocabulary)
    assert list(split.test.user_ids) == ["user 1"]
    with pytest.raises(ValueError, match=r"1 of the 3 items .* of 2 items: 'c'; drop"):
        leave_one_out(interactions_of([list("abc")]), vocabulary=vocabulary)


def test_nobody_to_evaluate():
    with pytest.raises(ValueError, match=r"none of the 2 users has 3 interactions, .* has 2"):
        leave_one_out(interactions_of([list("ab"), list("a")]))


def test_nobody_to_train_on():
    with pytest.raises(ValueError, match=r"none of the 2 users has 2 left .* must have 4"):
        leave_one_out(interactions_of([list("abc"), list("def")]))


@pytest.mark.parametrize("length", [0, -1, 1.5, None])
def test_length_must_be_a_positive_whole_number(length):
    with pytest.raises(ValueError, match=f"max_seq_length={length} must be a whole number"):
        leave_one_out(interactions_of([list("abcd")]), max_seq_length=length)


def test_repr_is_short():
    split = leave_one_out(interactions_of([list("abcd")]), max_seq_length=7)
    assert repr(split.train) == "SequenceDataset(1 sequences, max_seq_length=7)"
    assert repr(split.test) == "RankingDataset(1 queries, max_seq_length=7)"
    assert "tensor" not in repr(split)
