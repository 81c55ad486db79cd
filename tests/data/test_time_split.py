import datetime as dt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from odmt_sdk.data.interactions import Interactions
from odmt_sdk.data.time_split import time_split
from odmt_sdk.vocabulary import ItemVocabulary

FIRST, SECOND = 5, 8
# (user, time) of each event; a few fixed events make all three sets possible.
EVENTS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 12)), max_size=40).map(
    lambda events: [(9, 0), (9, 4), (9, 5), (9, 9), *events]
)


def own_items(events):
    """Give every event a unique item, so that an item identifies its event."""
    items = [(row, user, time) for row, (user, time) in enumerate(events)]
    users, times = zip(*events, strict=True)
    return Interactions.from_table({"user_id": users, "item_id": items, "timestamp": times})


def queries_of(dataset, vocabulary):
    return [
        (
            user,
            vocabulary.ids(example["item_ids"].tolist()),
            vocabulary.ids([example["target_ids"]])[0],
            vocabulary.ids(example["seen_ids"].tolist()),
        )
        for user, example in zip(dataset.user_ids, dataset, strict=True)
    ]


def slow_split(events, targets, length):
    """Compute training sequences, item counts and the queries of both periods, user by user."""
    histories = {}
    for row, (user, time) in enumerate(events):
        histories.setdefault(user, []).append((time, row))
    train, counted, queries = [], [], ([], [])
    for user, history in histories.items():
        items = [(row, user, time) for time, row in sorted(history, key=lambda event: event[0])]
        past = [item for item in items if item[2] < FIRST]
        counted += past
        if len(past) >= 2:
            train.append(past[-(length + 1) :])
        for found, inside in zip(
            queries,
            (lambda time: FIRST <= time < SECOND, lambda time: time >= SECOND),
            strict=True,
        ):
            positions = [p for p, item in enumerate(items) if inside(item[2])]
            positions = {"first": positions[:1], "last": positions[-1:], "all": positions}[targets]
            for p in filter(None, positions):
                found.append((user, items[max(0, p - length) : p], items[p], items[:p]))
    return train, counted, queries


@pytest.mark.parametrize("targets", ["first", "last", "all"])
@given(events=EVENTS, length=st.integers(1, 6))
def test_split_equals_its_slow_twin(targets, events, length):
    split = time_split(
        own_items(events),
        starts=(FIRST, SECOND),
        targets=targets,
        max_seq_length=length,
        windows="last",
    )
    train, counted, (validation, test) = slow_split(events, targets, length)
    ids = split.vocabulary.ids
    assert [ids(example["item_ids"].tolist()) for example in split.train] == train
    assert queries_of(split.validation, split.vocabulary) == validation
    assert queries_of(split.test, split.vocabulary) == test
    assert ids(np.flatnonzero(split.item_counts).tolist()) == ids(
        sorted(split.vocabulary.rows(counted))
    )


@given(EVENTS)
def test_nothing_after_the_cut_is_trained_on_or_counted(events):
    split = time_split(own_items(events), starts=(FIRST, SECOND), targets="all")
    ids = split.vocabulary.ids
    stored = ids(split.train.sequences()[0].tolist())  # including items cut from examples
    counted = ids(np.flatnonzero(split.item_counts).tolist())
    assert all(time < FIRST for _, _, time in [*stored, *counted])
    for part, start, end in ((split.validation, FIRST, SECOND), (split.test, SECOND, 99)):
        for _, history, (row, user, time), seen in queries_of(part, split.vocabulary):
            assert start <= time < end
            assert all((t, r) < (time, row) for r, _, t in [*history, *seen])
            assert {u for _, u, _ in seen} == {user}


@given(EVENTS, st.randoms(use_true_random=False))
def test_training_does_not_depend_on_what_happens_later(events, random):
    """Changing or removing events after the cut does not change training or popularity."""
    vocabulary = ItemVocabulary(list("abcdefgh"))
    past = [(user, time, random.choice("abcd")) for user, time in events if time < FIRST]
    later = [(user, time) for user, time in events if time >= FIRST]

    def split_with(future):
        users, times, items = zip(*past, *future, strict=True)
        return time_split(
            Interactions.from_table({"user_id": users, "item_id": items, "timestamp": times}),
            starts=(FIRST, SECOND),
            vocabulary=vocabulary,
        )

    kept = [(9, FIRST, "a"), (9, SECOND, "b")]
    one = split_with([(user, time, random.choice("abcdefgh")) for user, time in later])
    other = split_with(kept)
    assert one.item_counts.tolist() == other.item_counts.tolist()
    assert [e["item_ids"].tolist() for e in one.train] == [
        e["item_ids"].tolist() for e in other.train
    ]


def test_equal_times_stay_on_one_side():
    times = [0] * 6 + [1] * 3 + [2] * 6
    table = {"user_id": [1, 1, 2] * 5, "item_id": range(15), "timestamp": times}
    split = time_split(Interactions.from_table(table), shares=(0.45, 0.05))
    # A share of 0.05 is less than one of the last 6 events, which have the same time.
    assert int(split.item_counts.sum()) == 6
    assert len(split.train) == 2
    step = split.report.steps[-1]
    assert (step.interactions, step.dropped) == (2, 4)


@pytest.mark.parametrize(
    ("times", "starts"),
    [
        ([1, 2, 3, 4], (3, 4)),
        ([1.0, 2.0, 3.5, 4.5], (3, 4)),
        (np.array([1, 2, 3, 4], dtype="datetime64[D]"), ("1970-01-04", "1970-01-05")),
        (
            [dt.datetime(2024, 1, day, tzinfo=dt.UTC) for day in (1, 2, 3, 4)],
            (
                dt.date(2024, 1, 3),
                dt.datetime(2024, 1, 4, 1, tzinfo=dt.timezone(dt.timedelta(hours=1))),
            ),
        ),
    ],
)
def test_starts_are_numbers_or_datetimes(times, starts):
    table = {"user_id": [0] * 4, "item_id": list("abcd"), "timestamp": times}
    split = time_split(Interactions.from_table(table), starts=starts)
    assert split.train[0]["item_ids"].tolist() == [1, 2]
    assert (split.validation.targets.item(), split.test.targets.item()) == (3, 4)


TIMED = Interactions.from_table(
    {"user_id": [1, 1, 1, 1, 2], "item_id": list("abcde"), "timestamp": [1, 2, 3, 4, 3]}
)
DATED = Interactions.from_table(
    {
        "user_id": [1],
        "item_id": [1],
        "timestamp": np.array(["2024-01-01"], dtype="datetime64[D]"),
    }
)


@pytest.mark.parametrize(
    ("interactions", "settings", "error", "message"),
    [
        (Interactions.from_sequences([[1, 2]]), {}, ValueError, "needs the times .* leave_one_out"),
        (TIMED, {"targets": "some"}, ValueError, "targets='some' must be one of"),
        (TIMED, {"shares": (0.5, 0.5)}, ValueError, r"shares=\(0.5, 0.5\) must be .* below 1"),
        (TIMED, {"shares": (0.0, 0.5)}, ValueError, "both above 0"),
        (TIMED, {"shares": (0.01, 0.01)}, ValueError, "put both cuts at 4"),
        (TIMED, {"starts": (3, 3)}, ValueError, "the first before the second, within .* 1 to 4"),
        (TIMED, {"starts": (3, 5)}, ValueError, r"starts=\(3, 5\) must be two times"),
        (TIMED, {"starts": (2, 3)}, ValueError, "no user has 2 interactions before 2"),
        (TIMED, {"starts": ("2024-01-01", 3)}, TypeError, "starts='2024-01-01' .* be a number"),
        (DATED, {"starts": (3, 4)}, TypeError, r"starts=3 \(int\) must be a datetime such as"),
    ],
)
def test_refused(interactions, settings, error, message):
    with pytest.raises(error, match=message):
        time_split(interactions, **settings)


def test_a_window_of_newcomers():
    table = {"user_id": [1, 1, 2, 1], "item_id": list("abcd"), "timestamp": [1, 2, 3, 4]}
    with pytest.raises(
        ValueError, match=r"validation \(3 to 4\) would be empty: it holds 1 interactions, none of"
    ):
        time_split(Interactions.from_table(table), starts=(3, 4))


def test_filtering_by_what_was_known_then():
    table = {
        "user_id": [1, 1, 2, 2, 1, 2, 1],
        "item_id": ["a", "b", "a", "b", "new", "a", "b"],
        "timestamp": [1, 2, 1, 2, 5, 6, 9],
    }
    interactions = Interactions.from_table(table)
    known = interactions.keep_items(interactions.before(FIRST).k_core(2).item_ids)
    assert set(known.item_ids) == {"a", "b"}
    split = time_split(known, starts=(FIRST, SECOND))
    assert split.validation.user_ids == (2,)


def test_report_adds_up():
    split = time_split(TIMED, starts=(3, 4))
    assert split.report.steps == (
        ("read from the table", 0, 5, 2, 5),
        ("train, sequences of at least 2, before 3", 0, 2, 1, 2),
        ("validation, 3 to 4, first of a user with a history", 1, 1, 1, 1),
        ("test, from 4, first of a user with a history", 0, 1, 1, 1),
    )
