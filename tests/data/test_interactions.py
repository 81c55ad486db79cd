import datetime as dt
import warnings
from collections import Counter
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from odmt_sdk.data.interactions import Interactions
from odmt_sdk.vocabulary import ItemVocabulary

EVENTS = st.lists(
    st.tuples(st.integers(0, 6), st.sampled_from("abcdefg"), st.integers(0, 4)), min_size=1
)


def interactions_of(events):
    """Create interactions from (user, item, time) triples."""
    users, items, times = zip(*events, strict=True)
    return Interactions.from_table({"user_id": users, "item_id": items, "timestamp": times})


def sequences(interactions):
    """Return {user: [items]} in the order of the interactions."""
    pieces = np.split(interactions.item_codes, interactions.offsets[1:-1])
    return {
        user: [interactions.item_ids[code] for code in piece]
        for user, piece in zip(interactions.user_ids, pieces, strict=True)
    }


def slow_sequences(events):
    grouped = {}
    for user, item, time in events:
        grouped.setdefault(user, []).append((time, item))
    return {
        user: [item for _, item in sorted(history, key=lambda event: event[0])]
        for user, history in grouped.items()
    }


def first_appearances(values):
    return tuple(dict.fromkeys(values))


# --------------------------------------------------------------------------- reading


@given(EVENTS)
def test_sorted_by_user_then_time_ties_in_input_order(events):
    interactions = interactions_of(events)
    assert sequences(interactions) == slow_sequences(events)
    assert interactions.user_ids == first_appearances(event[0] for event in events)
    assert interactions.item_ids == first_appearances(event[1] for event in events)
    assert len(interactions) == len(events)
    assert interactions.num_users == len({event[0] for event in events})
    assert interactions.num_items == len({event[1] for event in events})


@given(EVENTS)
def test_without_timestamp_the_rows_order_counts(events):
    table = {"user_id": [event[0] for event in events], "item_id": [event[1] for event in events]}
    interactions = Interactions.from_table(table, timestamp=None)
    numbered = [(user, item, row) for row, (user, item, _) in enumerate(events)]
    assert sequences(interactions) == slow_sequences(numbered)


@pytest.mark.parametrize("order", [1, -1])
def test_whole_numbers_and_other_ids_are_numbered_alike(order):
    numbers = np.random.default_rng(0).integers(-50, 50, 400)[::order]
    times = np.arange(400) % 7
    ints = Interactions.from_table({"user_id": numbers, "item_id": numbers % 9, "timestamp": times})
    objects = Interactions.from_table(
        {"user_id": numbers.astype(object), "item_id": numbers % 9 + 0.0, "timestamp": times}
    )
    assert ints.user_ids == objects.user_ids == first_appearances(numbers.tolist())
    assert ints.item_ids == objects.item_ids
    assert np.array_equal(ints.item_codes, objects.item_codes)
    assert np.array_equal(ints.offsets, objects.offsets)


def test_own_column_names_and_any_hashable_ids():
    ids = [("a", 1), frozenset({2}), b"x", 3, "y", None.__class__, dt.date(2024, 1, 1), True]
    interactions = Interactions.from_table(
        {"who": ids, "what": ids[::-1], "when": range(8)}, user="who", item="what", timestamp="when"
    )
    assert interactions.user_ids == tuple(ids)
    assert interactions.item_ids == tuple(ids[::-1])


def test_ids_are_python_values():
    interactions = Interactions.from_table(
        {"user_id": np.array(["a", "b"]), "item_id": [np.int64(3), np.int64(4)]}, timestamp=None
    )
    assert [type(value) for value in interactions.user_ids] == [str, str]
    assert [type(value) for value in interactions.item_ids] == [int, int]


def test_path_of_a_file(tmp_path):
    path = tmp_path / "events.csv"
    path.write_text("user_id,item_id,timestamp\n1,x,2024-05-01\n1,y,2024-04-01\n")
    assert sequences(Interactions.from_table(path)) == {1: ["y", "x"]}


def test_hugging_face_dataset():
    datasets = pytest.importorskip("datasets")
    table = {"user_id": [1, 1, 2], "item_id": ["b", "a", "a"], "timestamp": [2, 1, 0]}
    dataset = datasets.Dataset.from_dict(table)
    assert sequences(Interactions.from_table(dataset)) == {1: ["a", "b"], 2: ["a"]}


def test_repr_says_how_much_there_is():
    interactions = interactions_of([(0, "a", 0), (0, "b", 1), (1, "a", 0)])
    assert repr(interactions) == "Interactions(3 events of 2 users with 2 items, 1 to 2 a user)"


# --------------------------------------------------------------------------- times

DAYS = [dt.datetime(2024, 1, day) for day in (3, 1, 2)]


@pytest.mark.parametrize(
    "times",
    [
        [3, 1, 2],
        [0.3, 0.1, 0.2],
        [3, 0.1, 2.5],
        np.array([3, 1, 2], dtype=np.uint64),
        np.array([2**63 + 2, 2**63, 2**63 + 1], dtype=np.uint64),
        DAYS,
        [day.date() for day in DAYS],
        np.array(DAYS, dtype="datetime64[D]"),
        np.array(DAYS, dtype="datetime64[ns]"),
        list(np.array(DAYS, dtype="datetime64[ns]")),
        [
            dt.datetime(2024, 1, 1, 12, tzinfo=dt.timezone(dt.timedelta(hours=offset)))
            for offset in (-5, 9, 1)
        ],
    ],
)
def test_numbers_and_datetimes_order_the_events(times):
    table = {"user_id": [0, 0, 0], "item_id": ["third", "first", "second"], "timestamp": times}
    assert sequences(Interactions.from_table(table)) == {0: ["first", "second", "third"]}


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (["1", "2", "3"], r"'timestamp' holds '1' \(str\) in row 0 of 3 rows; times must be num"),
        ([1, "x", 3], r"'timestamp' holds 'x' \(str\) in row 1 of 3 .*pandas.to_datetime"),
        ([*DAYS[:2], 3], r"'timestamp' holds 3 \(int\) in row 2 of 3 rows"),
        ([1, True, 2], r"'timestamp' holds True \(bool\) in row 1"),
        (np.array([True, False, True]), r"'timestamp' holds True \(bool\).*timestamp=None"),
        (np.array([1, 2, 3], dtype="timedelta64[s]"), r"'timestamp' holds .* \(timedelta\)"),
        ([1.0, float("inf"), 2.0], "'timestamp' holds infinite times in 1 of 3 rows"),
        (
            [DAYS[0], DAYS[1].replace(tzinfo=dt.UTC), DAYS[2]],
            "'timestamp' mixes datetimes with and without a time zone; give all of its 3 rows",
        ),
        (
            np.array(["1500-01-01", "2000-01-01", "2000-01-01"], dtype="datetime64[D]"),
            "'timestamp' holds datetimes from 1500-01-01 to 2000-01-01, outside the years 1678",
        ),
    ],
)
def test_times_that_are_neither_numbers_nor_datetimes(times, message):
    with pytest.raises(ValueError, match=message):
        Interactions.from_table({"user_id": [0] * 3, "item_id": [1] * 3, "timestamp": times})


# --------------------------------------------------------------------------- bad tables


@pytest.mark.parametrize("name", ["user_id", "item_id", "timestamp"])
@pytest.mark.parametrize(
    "values",
    [
        [1.0, float("nan"), 2.0, float("nan")],
        np.array([1, np.nan, 2, np.nan]),
        [1, None, 2, None],
        np.array(["2024-01-01", "NaT", "2024-01-01", "NaT"], dtype="datetime64[ns]"),
        [1, np.datetime64("NaT"), 2, np.float32("nan")],
    ],
)
def test_missing_values(name, values):
    table = {"user_id": [0] * 4, "item_id": [1] * 4, "timestamp": [2] * 4, name: values}
    with pytest.raises(
        ValueError, match=f"'{name}' has 2 missing values in 4 rows, the first in row 1; drop"
    ):
        Interactions.from_table(table)


@pytest.mark.parametrize("name", ["user_id", "item_id", "timestamp"])
def test_missing_values_of_pandas(name):
    pd = pytest.importorskip("pandas")
    for missing in (pd.NA, pd.NaT):
        table = {"user_id": [0] * 2, "item_id": [1] * 2, "timestamp": [2] * 2, name: [1, missing]}
        for given_table in (table, pd.DataFrame(table)):
            with pytest.raises(ValueError, match=f"'{name}' has 1 missing values in 2 rows"):
                Interactions.from_table(given_table)


@pytest.mark.parametrize("table", [[], {"user_id": [], "item_id": [], "timestamp": []}])
def test_no_rows(table):
    with pytest.raises(ValueError, match="interactions has no rows; give at least one"):
        Interactions.from_table(table)


def test_absent_column():
    with pytest.raises(ValueError, match=r"column 'timestamp' is not in .*'user_id', 'item_id'"):
        Interactions.from_table({"user_id": [1], "item_id": [1]})


def test_ids_that_are_not_hashable():
    with pytest.raises(TypeError, match="'item_id' holds an id that is not hashable"):
        Interactions.from_table({"user_id": [1], "item_id": [[1]]}, timestamp=None)


def test_float_ids_too_large_to_tell_apart():
    table = {"user_id": np.array([2.0**53, 2.0**53 + 1]), "item_id": [1, 1]}
    with pytest.raises(
        ValueError, match=r"'user_id' holds ids as floats of 2.*read the ids as int"
    ):
        Interactions.from_table(table, timestamp=None)


# --------------------------------------------------------------------------- filters


def slow_k_core(events, min_user, min_item):
    """Drop one event at a time until every user and item has enough."""
    events = list(events)
    while True:
        users = Counter(event[0] for event in events)
        items = Counter(event[1] for event in events)
        for event in events:
            if users[event[0]] < min_user or items[event[1]] < min_item:
                events.remove(event)
                break
        else:
            return events


def expect_filtered(filtered, events, remaining):
    """Check that `filtered()` has the `remaining` events, numbered as in `events`."""
    if not remaining:
        with pytest.raises(ValueError, match=f"leaves no user: all {len(events)} interactions"):
            filtered()
        return
    result = filtered()
    users, items = ({event[column] for event in remaining} for column in (0, 1))
    assert sequences(result) == slow_sequences(remaining)
    assert result.user_ids == first_appearances(e[0] for e in events if e[0] in users)
    assert result.item_ids == first_appearances(e[1] for e in events if e[1] in items)


@given(EVENTS, st.integers(1, 4), st.integers(1, 4))
def test_k_core_equals_its_slow_twin(events, min_user, min_item):
    interactions = interactions_of(events)
    expect_filtered(
        lambda: interactions.k_core(min_user=min_user, min_item=min_item),
        events,
        slow_k_core(events, min_user, min_item),
    )
    expect_filtered(
        lambda: interactions.k_core(min_user), events, slow_k_core(events, min_user, min_user)
    )


def test_k_core_is_iterated():
    # A chain: at first only user 0 and item z break the rule, and each removal leads to the next.
    events = [(0, "a", 0), (1, "a", 0), (1, "b", 1), (2, "b", 0), (2, "c", 1), (3, "c", 0)]
    circle = [(7, "x", 0), (7, "y", 1), (8, "x", 0), (8, "y", 1)]
    assert sequences(interactions_of(events + circle).k_core(2)) == {7: ["x", "y"], 8: ["x", "y"]}
    with pytest.raises(
        ValueError,
        match="k_core with at least 2 interactions a user and 2 an item leaves no user: all 6 "
        "interactions of 4 users with 3 items are dropped; ask for fewer",
    ):
        interactions_of(events).k_core(2)


@given(EVENTS, st.integers(1, 4))
def test_last_keeps_the_latest(events, n):
    kept = {user: items[-n:] for user, items in slow_sequences(events).items()}
    interactions = interactions_of(events)
    result = interactions.last(n)
    assert sequences(result) == kept
    assert set(result.item_ids) == {item for items in kept.values() for item in items}
    assert sequences(interactions) == slow_sequences(events)  # the original is unchanged


@given(EVENTS, st.sets(st.sampled_from("abcdefgxyz"), min_size=1))
def test_keep_items_equals_its_slow_twin(events, wanted):
    interactions = interactions_of(events)
    remaining = [event for event in events if event[1] in wanted]
    expect_filtered(lambda: interactions.keep_items(wanted), events, remaining)
    expect_filtered(
        lambda: interactions.keep_items(ItemVocabulary(list(wanted))), events, remaining
    )


def test_keep_items_that_nobody_has_shows_the_ids_of_both():
    interactions = Interactions.from_table({"user_id": [0], "item_id": [5]}, timestamp=None)
    with pytest.raises(ValueError, match=r"1 ids leaves no user.* such as 5, .* such as '5'"):
        interactions.keep_items(["5"])
    with pytest.raises(ValueError, match="0 ids leaves no user"):
        interactions.keep_items([])


@pytest.mark.parametrize("value", [0, -1, 2.5, "3", None])
def test_counts_must_be_positive_whole_numbers(value):
    interactions = interactions_of([(0, "a", 0)])
    with pytest.raises(ValueError, match=f"n={value!r} must be a whole number of at least 1"):
        interactions.last(value)
    with pytest.raises(ValueError, match=r"k=.* must be a whole number of at least 1"):
        interactions.k_core(value)
    if value is not None:  # None means k
        with pytest.raises(ValueError, match=r"min_item=.* must be a whole number of at least 1"):
            interactions.k_core(1, min_item=value)


@given(EVENTS, st.integers(1, 4))
def test_min_length_equals_its_slow_twin(events, n):
    lengths = Counter(event[0] for event in events)
    remaining = [event for event in events if lengths[event[0]] >= n]
    expect_filtered(lambda: interactions_of(events).min_length(n), events, remaining)


@given(EVENTS, st.integers(0, 5))
def test_before_equals_its_slow_twin(events, time):
    remaining = [event for event in events if event[2] < time]
    expect_filtered(lambda: interactions_of(events).before(time), events, remaining)


def slow_drop_repeats(history, keep):
    """(item, time) pairs of one user, in order."""
    kept = []
    for position, (item, time) in enumerate(history):
        before, after = history[:position], history[position + 1 :]
        repeated = {
            "same_time": (item, time) in before,
            "in_a_row": bool(before) and before[-1][0] == item,
            "keep_first": item in [other for other, _ in before],
            "keep_last": item in [other for other, _ in after],
        }[keep]
        if not repeated:
            kept.append(item)
    return kept


@pytest.mark.parametrize("keep", ["same_time", "in_a_row", "keep_first", "keep_last"])
@given(events=EVENTS)
def test_drop_repeats_equals_its_slow_twin(keep, events):
    histories = {}
    for user, item, time in sorted(events, key=lambda event: event[2]):  # stable
        histories.setdefault(user, []).append((item, time))
    dropped = interactions_of(events).drop_repeats(keep)
    assert sequences(dropped) == {
        user: slow_drop_repeats(history, keep) for user, history in histories.items()
    }


def test_drop_repeats_refuses():
    with pytest.raises(ValueError, match=r"keep='first' must be one of \('same_time', 'in_a_row'"):
        interactions_of([(0, "a", 0)]).drop_repeats("first")
    with pytest.raises(ValueError, match=r"drop_repeats\('same_time'\) needs the times .*from_tab"):
        Interactions.from_sequences([[1]]).drop_repeats("same_time")


@given(EVENTS)
def test_times_follow_their_events(events):
    interactions = interactions_of(events).last(3)
    assert len(interactions.times) == len(interactions)
    starts = set(interactions.offsets.tolist())
    steps = np.diff(interactions.times)
    assert all(step >= 0 for i, step in enumerate(steps, start=1) if i not in starts)
    pieces = np.split(interactions.times, interactions.offsets[1:-1])
    for user, piece in zip(interactions.user_ids, pieces, strict=True):
        times = sorted(event[2] for event in events if event[0] == user)
        assert piece.tolist() == times[-3:]


# --------------------------------------------------------------------------- sequences


def test_lists_of_sequences():
    assert sequences(Interactions.from_sequences([["b", "a", "b"], [], ("c",)])) == {
        0: ["b", "a", "b"],
        2: ["c"],
    }
    named = Interactions.from_sequences({"ann": iter([3, 1]), "bob": np.array([1])})
    assert sequences(named) == {"ann": [3, 1], "bob": [1]}
    assert named.times is None


@given(EVENTS)
def test_sequences_are_the_table_in_order(events):
    slow = slow_sequences(events)
    taken = Interactions.from_sequences(slow)
    assert sequences(taken) == slow
    flat = [(user, item) for user, items in slow.items() for item in items]
    users, items = zip(*flat, strict=True)
    table = Interactions.from_table({"user_id": users, "item_id": items}, timestamp=None)
    assert (taken.user_ids, taken.item_ids) == (table.user_ids, table.item_ids)
    assert np.array_equal(taken.item_codes, table.item_codes)


@pytest.mark.parametrize(
    ("given_sequences", "error", "message"),
    [
        ([], ValueError, "the sequences have no items"),
        ({"ann": []}, ValueError, "the sequences have no items"),
        (["a b c"], TypeError, r"user 0 is 'a b c' \(str\); give a list .*split"),
        ([1, 2], TypeError, r"user 0 is 1 \(int\)"),
        ([[1, None]], ValueError, "'item_id' has 1 missing values in 2 rows"),
        ([[[1]]], TypeError, "not hashable"),
    ],
)
def test_sequences_that_are_none(given_sequences, error, message):
    with pytest.raises(error, match=message):
        Interactions.from_sequences(given_sequences)


# --------------------------------------------------------------------------- report


def test_report_says_what_was_dropped_and_why():
    events = [(0, "a", 0), (0, "a", 1), (0, "b", 2), (0, "c", 3), (1, "a", 0), (1, "b", 1)]
    interactions = interactions_of(events).drop_repeats("keep_first").k_core(2, min_item=1)
    interactions = interactions.min_length(3).keep_items(["a", "b"]).last(1)
    numbers = [step[1:] for step in interactions.report.steps]
    assert numbers == [
        (0, 6, 2, 3),
        (1, 5, 2, 3),
        (0, 5, 2, 3),
        (2, 3, 1, 3),
        (1, 2, 1, 2),
        (1, 1, 1, 1),
    ]
    printed = str(interactions.report).splitlines()
    columns = [cell.strip() for cell in printed[0].strip("|").split("|")]
    assert columns == ["step", "dropped", "interactions", "users", "items"]
    assert "| min_length(3), at least 3 interactions a user " in printed[5]
    assert "| last(1), the latest 1 of each user " in printed[7]
    assert len(set(map(len, printed))) == 1  # aligned


@given(EVENTS, st.integers(1, 3))
def test_report_adds_up(events, k):
    try:
        interactions = interactions_of(events).drop_repeats("in_a_row").k_core(k).last(2)
    except ValueError:
        return
    steps = interactions.report.steps
    for before, after in pairwise(steps):
        assert before.interactions - after.dropped == after.interactions
    assert steps[-1][2:] == (len(interactions), interactions.num_users, interactions.num_items)


def test_rows_with_missing_values_can_be_dropped():
    table = {
        "user_id": ["u", None, "u", "u", "v"],
        "item_id": ["a", "b", "c", float("nan"), "e"],
        "timestamp": [3.0, 1.0, 1.0, 2.0, np.nan],
    }
    interactions = Interactions.from_table(table, missing="drop")
    assert sequences(interactions) == {"u": ["c", "a"]}
    (step,) = interactions.report.steps
    assert (step.what, step.dropped) == ("read from the table, rows without missing values", 3)
    with pytest.raises(ValueError, match="each of the 1 rows lacks a value in 'user_id', 'item"):
        Interactions.from_table(
            {"user_id": [None], "item_id": [1], "timestamp": [1]}, missing="drop"
        )
    with pytest.raises(ValueError, match="missing='skip' must be 'error' or 'drop'"):
        Interactions.from_table(table, missing="skip")


# --------------------------------------------------------------------------- doubtful times

NOW = 1_700_000_000


def with_times(times):
    rows = list(range(len(times)))
    return Interactions.from_table(
        {"user_id": [0] * len(rows), "item_id": rows, "timestamp": times}
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda values: np.array(values, np.float32),
        lambda values: torch.tensor(values, dtype=torch.float32),
        lambda values: list(torch.tensor(values, dtype=torch.float32)),
        lambda values: [np.float32(value) for value in values],
        lambda values: pytest.importorskip("pandas").array(values, dtype="Float32"),
        lambda values: pytest.importorskip("pyarrow").array(values, type="float32"),
    ],
)
def test_float32_times_that_no_longer_hold_seconds(make):
    with pytest.warns(
        UserWarning, match=r"times as float32.* a resolution of 128 .*int64"
    ) as caught:
        with_times(make([float(NOW), NOW + 5.0]))
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert with_times(make([16_777_215.0, 3.0])).times.tolist() == [3.0, 16_777_215.0]


def test_float16_times():
    with pytest.warns(UserWarning, match=r"times as float16.* a resolution of 2 "):
        with_times(np.array([1, 4000], np.float16))


@pytest.mark.parametrize("dtype", [np.int16, np.int32])
def test_whole_numbers_that_wrapped_around(dtype):
    milliseconds = NOW * 1000 + np.arange(0, 2**33, 2**29)
    with pytest.warns(UserWarning, match=rf"times as {dtype.__name__}, down to -.* wrapped around"):
        with_times((milliseconds // 7).astype(dtype))


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([NOW, NOW * 1000], "1 times in seconds, such as 1700000000 in row 0 and 1 times"),
        (
            [NOW * 1e9, NOW * 1e6, NOW * 1e9],
            "1 times in microseconds, .* in row 1 and 2 times",
        ),
    ],
)
def test_units_that_are_mixed(times, message):
    with pytest.warns(UserWarning, match=f"'timestamp' seems to mix units: {message}"):
        with_times(times)


@pytest.mark.parametrize(
    "times",
    [
        [NOW, NOW + 1],
        np.array([NOW, NOW + 1], np.int32),
        [NOW * 1000, NOW * 1000 + 1],
        [0, 10**12],
        [NOW * 1e9, NOW * 1e9 + 512],
        np.array([-5, 3], np.int32),
        np.array([1, 2], np.uint8),
        np.array([1, 2], np.float16),
        [dt.datetime(1970, 1, 1), dt.datetime(2024, 1, 1)],
    ],
)
def test_no_word_about_sound_times(times):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with_times(times)


def test_texts_as_times_say_how_to_convert_them():
    with pytest.raises(ValueError, match=r"'2024-05-01' \(str\) .* pandas.to_datetime\(table"):
        with_times(["2024-05-01"])
    with pytest.raises(ValueError, match=r"'1700000000' \(str\) .* pandas.to_numeric\(table"):
        with_times(["1700000000"])


# --------------------------------------------------------------------------- users of sequences


def test_the_index_of_a_series_names_the_users():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"user": ["bob", "ann", "ann"], "item": ["x", "y", "x"]})
    lists = frame.groupby("user")["item"].agg(list)
    assert sequences(Interactions.from_sequences(lists)) == {"ann": ["y", "x"], "bob": ["x"]}
    assert Interactions.from_sequences(lists[lists.index != "ann"]).user_ids == ("bob",)
    assert Interactions.from_sequences(pd.Series([[3], [4]])).user_ids == (0, 1)
    numbers = pd.Series([[3], [4]], index=np.array([7, 5]))
    assert [type(user) for user in Interactions.from_sequences(numbers).user_ids] == [int, int]
    pairs = pd.Series([["x"]], index=pd.MultiIndex.from_tuples([("ann", 1)]))
    assert Interactions.from_sequences(pairs).user_ids == (("ann", 1),)
    for index in (["a", "a"], ["a", None]):
        with pytest.raises(ValueError, match="names its users, but holds .*reset_index"):
            Interactions.from_sequences(pd.Series([[3], [4]], index=index))


def test_a_table_is_no_sequence_of_sequences():
    pd, pl = pytest.importorskip("pandas"), pytest.importorskip("polars")
    pa, datasets = pytest.importorskip("pyarrow"), pytest.importorskip("datasets")
    columns = {"user_id": [1], "item_id": [2]}
    for table in (
        pd.DataFrame(columns),
        pl.DataFrame(columns),
        pa.table(columns),
        datasets.Dataset.from_dict(columns),
    ):
        with pytest.raises(
            TypeError, match=r"not a sequence of sequences: .*Interactions.from_table"
        ):
            Interactions.from_sequences(table)
    lists = datasets.Dataset.from_dict({"items": [[1, 2], [2]]}).with_format("torch")["items"]
    assert sequences(Interactions.from_sequences(lists)) == {0: [1, 2], 1: [2]}


def test_encodings_and_options_of_files(tmp_path):
    path = tmp_path / "events.CSV"
    path.write_bytes("user_id;item_id;timestamp\n1;café;2\n1;007;1\n".encode("latin-1"))
    read = Interactions.from_table(path, encoding="latin-1", csv_options={"separator": ";"})
    assert sequences(read) == {1: ["007", "café"]}
    with pytest.raises(ValueError, match="line 2, is not in utf-8"):
        Interactions.from_table(path)


# --------------------------------------------------------------------------- doubtful ids


@pytest.mark.parametrize(
    ("ids", "shown"),
    [
        (["mug", "mug ", "lamp"], "'mug' and 'mug '"),
        ([" mug", "mug ", "lamp"], "' mug' and 'mug '"),
        (["caf\u00e9", "cafe\u0301", "lamp"], r"'caf\\xe9' and 'cafe\\u0301'"),
        ([1, "1", 2], "1 and '1'"),
    ],
)
def test_ids_that_look_alike_are_named(ids, shown):
    table = {"user_id": [1, 1, 1], "item_id": ids}
    with pytest.warns(UserWarning, match=f"'item_id' holds 1 pairs of ids .*: {shown}. They"):
        interactions = Interactions.from_table(table, timestamp=None)
    assert interactions.item_ids == tuple(ids)


@pytest.mark.parametrize("text", ["", "nan", "None", "<NA>"])
def test_missing_values_that_became_texts_are_named(text):
    table = {"user_id": ["ann", text, text], "item_id": [1, 2, 3]}
    with pytest.warns(UserWarning, match=f"'user_id' holds the id '{text}' in 2 of 3 rows") as seen:
        Interactions.from_table(table, timestamp=None)
    assert seen[0].filename == __file__


def test_no_word_about_sound_ids():
    ids = ["mug", "Mug", "caf\u00e9", "cafe", "7", "007", "a b"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Interactions.from_table({"user_id": [1] * 7, "item_id": ids}, timestamp=None)
        Interactions.from_table({"user_id": [1] * 2, "item_id": [3, "x"]}, timestamp=None)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["007", "7"], r"ids such as '007', which are read as 7, and 1 of its ids become equal"),
        (["007", "8"], r"ids such as '007', which are read as 7: pass csv_options="),
        (["1.10", "1.1"], r"ids such as '1.10', which are read as 1.1, and 1 of its ids"),
        (["5", "1E3"], r"ids such as '1E3', which are read as 1000.0: pass"),
        (["true", "false"], r"ids such as 'true', which are read as True"),
        (["2024-01-01", "2024-01-02"], r"ids such as '2024-01-01', which are read as .*date"),
    ],
)
def test_ids_of_files_that_are_not_kept_as_written(tmp_path, ids, message):
    pytest.importorskip("pyarrow")
    path = tmp_path / "events.csv"
    path.write_text("user_id,item_id\n" + "".join(f"1,{item}\n" for item in ids))
    with pytest.warns(UserWarning, match=f"'item_id' of .*events.csv holds {message}") as seen:
        Interactions.from_table(path, timestamp=None)
    assert seen[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        options = {"strings": ["item_id"]}
        kept = Interactions.from_table(path, timestamp=None, csv_options=options)
    assert kept.item_ids == tuple(ids)


@pytest.mark.parametrize(
    "ids", [["7", "10"], ["7.0", "8"], ["-3", "0"], ["1.5", "2.25"], ["a", "0"]]
)
def test_no_word_about_ids_of_files_that_are_kept(tmp_path, ids):
    path = tmp_path / "events.csv"
    path.write_text("user_id,item_id\n" + "".join(f"1,{item}\n" for item in ids))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Interactions.from_table(path, timestamp=None)


def test_ids_that_are_arrays_are_refused_also_where_rows_may_be_dropped():
    for cells in ([np.array([1, 2]), np.array([3, 4])], [torch.tensor([1, 2])] * 2):
        table = {"user_id": [1, 2], "item_id": cells}
        with pytest.raises(TypeError, match=r"'item_id' holds .*, of shape \(2,\)"):
            Interactions.from_table(table, timestamp=None, missing="drop")


def test_users_of_a_mapping_are_distinct_ids():
    twice = {torch.tensor(1): ["mug"], torch.tensor(1): ["lamp"]}
    with pytest.raises(ValueError, match="keys of the mapping name its users, but hold 1 2 times"):
        Interactions.from_sequences(twice)
    with pytest.raises(ValueError, match="name its users, but hold None 1 times"):
        Interactions.from_sequences({None: ["mug"]})


@pytest.mark.parametrize("make", [np.array, torch.tensor])
@pytest.mark.parametrize(
    ("rows", "side"), [([[0, 0, 1], [0, 2, 3]], "begin"), ([[1, 0, 0], [2, 3, 4]], "end")]
)
def test_padding_of_an_array_is_named(make, rows, side):
    with pytest.warns(UserWarning, match=f"rows with 0 {side} with it: 0 is read as an item"):
        Interactions.from_sequences(make(rows))


@pytest.mark.parametrize("rows", [[[0, 1], [1, 2]], [[1, 0, 0, 2]], [["a", "b"]]])
def test_no_word_about_arrays_without_padding(rows):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Interactions.from_sequences(np.array(rows))


def test_counts_of_numpy_are_counts():
    interactions = Interactions.from_sequences([["a", "b"], ["a"]])
    assert len(interactions.k_core(np.int64(1))) == 3
    assert len(interactions.last(np.int32(1)).min_length(np.int64(1))) == 2


# --------------------------------------------------------------------------- exact times


def test_times_of_any_number_types_stay_exact():
    big = 1_714_521_600_000_000_000
    decimals = [Decimal(3), Decimal(1), Decimal("2.5")]
    for times in ([big + 3, big + 1, float(big)], [big + 3, big + 1, Fraction(big + 2)], decimals):
        order = sorted(range(3), key=times.__getitem__)
        table = {"user_id": [0] * 3, "item_id": [0, 1, 2], "timestamp": times}
        assert sequences(Interactions.from_table(table)) == {0: order}
    for times, message in (
        ([big + 1, 0.5, 3], f"mixes whole numbers such as {big + 1}, which floats cannot hold"),
        ([2**63 + 1, 2**63, -1], "whole numbers from -1 to .*do not fit into 64 bits"),
    ):
        with pytest.raises(ValueError, match=message):
            with_times(times)


def test_nanoseconds_of_timestamps_count():
    pd = pytest.importorskip("pandas")
    start = pd.Timestamp("2024-01-01")
    stamps = [start + pd.Timedelta(steps, "ns") for steps in (2, 1, 3)]
    for times in (stamps, [stamp.to_datetime64() for stamp in stamps]):
        table = {"user_id": [0] * 3, "item_id": ["b", "a", "c"], "timestamp": times}
        interactions = Interactions.from_table(table)
        assert sequences(interactions) == {0: ["a", "b", "c"]}
        assert interactions.before(stamps[0]).item_ids == ("a",)


@pytest.mark.parametrize("far", ["9999-12-31", "2600-01-01", dt.date(3000, 1, 1)])
def test_before_a_time_that_nanoseconds_cannot_express(far):
    table = {"user_id": [0] * 3, "item_id": list("abc"), "timestamp": DAYS}
    interactions = Interactions.from_table(table)
    assert len(interactions.before(far)) == 3
    assert len(interactions.before(np.datetime64("9000-01-01"))) == 3
    with pytest.raises(ValueError, match="leaves no user"):
        interactions.before("0001-01-01")


def test_before_no_time():
    table = {"user_id": [0] * 3, "item_id": list("abc"), "timestamp": DAYS}
    interactions = Interactions.from_table(table)
    for time in (np.datetime64("NaT"), float("nan"), None):
        with pytest.raises(ValueError, match="is missing; give a point in time"):
            interactions.before(time)
    with pytest.raises(ValueError, match="time='2024' is not a date .*write it as '2024-05-01'"):
        interactions.before("2024")
