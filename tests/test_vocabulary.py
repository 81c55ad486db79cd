import datetime as dt
from decimal import Decimal
from enum import Enum, StrEnum

import numpy as np
import pytest
import torch

from odmt_sdk import Interactions, ItemFeatures, ItemVocabulary, leave_one_out
from odmt_sdk.toy_shop.tiny_encoders import tiny_text_encoder


def test_rows_and_ids():
    vocabulary = ItemVocabulary(["a", 7, ("x", 1)])
    assert len(vocabulary) == 3
    assert vocabulary.rows([("x", 1), "a"]) == [3, 1]
    assert vocabulary.ids([2, 3]) == [7, ("x", 1)]
    assert "a" in vocabulary
    assert "7" not in vocabulary
    assert list(vocabulary) == ["a", 7, ("x", 1)]
    assert repr(vocabulary) == "ItemVocabulary(3 items: 'a', 7, ('x', 1))"


def test_numpy_scalars_are_the_values_they_hold():
    vocabulary = ItemVocabulary(np.array([5, 6]))
    assert vocabulary.item_ids == (5, 6)
    assert type(vocabulary.item_ids[0]) is int
    assert vocabulary.rows([np.int32(6)]) == [2]
    assert np.int64(5) in vocabulary


def test_equality_is_of_ids_and_order():
    assert ItemVocabulary(["a", "b"]) == ItemVocabulary(["a", "b"])
    assert ItemVocabulary(["a", "b"]) != ItemVocabulary(["b", "a"])


def test_errors():
    with pytest.raises(ValueError, match="the item vocabulary is empty"):
        ItemVocabulary([])
    with pytest.raises(ValueError, match="item id 'b' stands more than once"):
        ItemVocabulary(["a", "b", "c", "b"])
    with pytest.raises(TypeError, match="not hashable: .*, a list, in row 0"):
        ItemVocabulary([["a"]])
    vocabulary = ItemVocabulary(["a", "b"])
    with pytest.raises(ValueError, match="item id 'z' is not among the 2 items"):
        vocabulary.rows(["a", "z"])
    assert vocabulary.rows(["a", "z"], unknown="skip") == [1]
    with pytest.raises(ValueError, match="unknown='ignore' must be"):
        vocabulary.rows(["a"], unknown="ignore")
    with pytest.raises(ValueError, match=r"row 0 is outside 1\.\.2"):
        vocabulary.ids([0])


# --------------------------------------------------------------------------- ids of any container

pa = pytest.importorskip("pyarrow")
pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")

# All containers that can hold the integers 7, 5 and 6.
CONTAINERS = {
    "list": list,
    "tuple": tuple,
    "generator": iter,
    "numpy": np.array,
    "numpy, floats": lambda ids: np.array(ids, dtype=np.float64),
    "numpy, objects": lambda ids: np.array(ids, dtype=object),
    "list of numpy scalars": lambda ids: [np.int32(i) for i in ids],
    "list of arrays without dimensions": lambda ids: [np.array(i) for i in ids],
    "torch": torch.tensor,
    "torch, int32": lambda ids: torch.tensor(ids, dtype=torch.int32),
    "torch, floats": lambda ids: torch.tensor(ids, dtype=torch.float32),
    "list of tensors": lambda ids: list(torch.tensor(ids)),
    "pandas": pd.Series,
    "pandas, floats": lambda ids: pd.Series(ids, dtype="float64"),
    "pandas, other index": lambda ids: pd.Series(ids, index=list("cab")),
    "pandas, nullable": lambda ids: pd.Series(ids, dtype="Int64"),
    "pandas, category": lambda ids: pd.Series(ids, dtype="category"),
    "pandas, arrow": lambda ids: pd.Series(ids, dtype="int64[pyarrow]"),
    "pandas, decimals": lambda ids: pd.Series([Decimal(i) for i in ids]),
    "pandas index": pd.Index,
    "pandas array": lambda ids: pd.array(ids),
    "polars": pl.Series,
    "polars, decimals": lambda ids: pl.Series([Decimal(i) for i in ids]),
    "pyarrow": pa.array,
    "pyarrow, chunks": lambda ids: pa.chunked_array([ids[:1], ids[1:]]),
    "pyarrow, dictionary": lambda ids: pa.array(ids).dictionary_encode(),
    "pyarrow, decimals": lambda ids: pa.array([Decimal(i) for i in ids]),
    "pyarrow, list scalar": lambda ids: pa.array([ids])[0],
    "list of pyarrow scalars": lambda ids: list(pa.array(ids)),
}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_plain_values_are_taken_out_of_every_container(kind):
    make = CONTAINERS[kind]
    vocabulary = ItemVocabulary(make([7, 5, 6]))
    assert vocabulary.item_ids == (7, 5, 6)
    assert set(map(type, vocabulary.item_ids)) == {int}
    assert vocabulary.rows(make([5, 6, 7])) == [2, 3, 1]
    interactions = Interactions.from_sequences([make([7, 5, 6]), make([6, 6, 5])])
    assert interactions.item_ids == (7, 5, 6)
    assert set(map(type, interactions.item_ids)) == {int}
    assert interactions.item_codes.tolist() == [0, 1, 2, 2, 2, 1]
    assert interactions.keep_items(make([7, 5, 8])).item_ids == (7, 5)
    features = ItemFeatures.from_tensors(item_ids=make([7, 5, 6]), text=torch.randn(4, 2, 3))
    assert features.vocabulary == vocabulary
    assert features.select(make([6, 7, 5])).vocabulary.item_ids == (6, 7, 5)


@pytest.mark.parametrize("kind", CONTAINERS)
def test_plain_values_are_taken_out_of_columns(kind):
    if kind in ("generator", "pyarrow, list scalar"):
        return  # no columns
    table = {"user_id": [1, 1, 1], "item_id": CONTAINERS[kind]([7, 5, 7])}
    interactions = Interactions.from_table(table, timestamp=None)
    assert interactions.item_ids == (7, 5)
    assert set(map(type, interactions.item_ids)) == {int}
    assert interactions.item_codes.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    "ids",
    [
        torch.ones(2, 2),
        np.ones((2, 2)),
        torch.tensor(1),
        [torch.ones(2)],
        [np.ones(2)],
        [[1]],
        [{}],
        [object()],
        "mug",
        b"mug",
        5,
        None,
        {1, 2},
        frozenset({1}),
        pd.DataFrame({"a": [1]}),
    ],
)
def test_what_holds_no_ids_is_refused(ids):
    message = "dimensions|not one id|not hashable|compared by identity|give a list"
    with pytest.raises((TypeError, ValueError), match=message):
        ItemVocabulary(ids)
    with pytest.raises((TypeError, ValueError), match=message):
        ItemVocabulary([1, 2]).rows(ids)
    with pytest.raises((TypeError, ValueError), match=message):
        Interactions.from_sequences([ids])


# --------------------------------------------------------------------------- value and type


class Size(Enum):
    SMALL = 1


class Colour(StrEnum):
    RED = "red"


# Each row: four different ids, some of which are equal in Python.
ALIKE = [
    (1, 1.0, True, "1", b"1", Decimal(1), Size.SMALL),
    ("red", Colour.RED, b"red"),
    (0, 0.0, False, "0"),
]


@pytest.mark.parametrize("ids", ALIKE)
def test_ids_are_compared_by_value_and_type(ids):
    for known in ids:
        for asked in ids:
            vocabulary = ItemVocabulary([known])
            assert (asked in vocabulary) == (asked is known)
            assert vocabulary.rows([asked], unknown="skip") == [1] * (asked is known)
            assert (ItemVocabulary([asked]) == vocabulary) == (asked is known)
            interactions = Interactions.from_sequences([[known, "other"]])
            kept = interactions.keep_items([asked, "other"])
            assert (known in kept.item_ids) == (asked is known)
            if asked == known and asked is not known:
                with pytest.raises(ValueError, match=r"holds both .* are equal in Python"):
                    ItemVocabulary([known, asked])
                with pytest.raises(ValueError, match=r"holds both .* are equal in Python"):
                    Interactions.from_sequences([[known, asked]])
                column = np.fromiter([known, asked], dtype=object)
                with pytest.raises(ValueError, match=r"holds both .* are equal in Python"):
                    Interactions.from_table({"user_id": [0, 0], "item_id": column}, timestamp=None)


@pytest.mark.parametrize(
    ("known", "asked", "meant"),
    [
        (1, "1", "the integer 1"),
        (1, " 1", "the integer 1"),
        (7, "007", "the integer 7"),
        (1, 1.0, "the integer 1"),
        (1, True, "the integer 1"),
        ("1", 1, "the string '1'"),
        ("1", 1.0, "the string '1'"),
        (1.0, 1, "the float 1.0"),
        ("mug", b"mug", "the string 'mug'"),
        ("mug", "mug ", "the string 'mug'"),
    ],
)
def test_an_id_of_another_type_is_named(known, asked, meant):
    with pytest.raises(ValueError, match=f"did you mean {meant}\\?"):
        ItemVocabulary(["other", known]).rows([asked])
    interactions = Interactions.from_sequences([[known] * 4])
    with pytest.raises(ValueError, match=f"did you mean {meant}\\?"):
        interactions.keep_items([asked])
    asked_for = Interactions.from_sequences([[asked] * 4])
    with pytest.raises(ValueError, match=f"did you mean {meant}\\?"):
        leave_one_out(asked_for, vocabulary=ItemVocabulary([known]))


@pytest.mark.parametrize(
    "asked", ["2", 2, None, float("nan"), 1.5, "9" * 9999, float("inf"), "1e9"]
)
def test_nothing_is_suggested_for_what_is_unknown(asked):
    with pytest.raises(ValueError, match=r"\(for example 1\); ids are compared"):
        ItemVocabulary([1]).rows([asked])


@pytest.mark.parametrize(
    "missing", [None, float("nan"), np.nan, pd.NA, pd.NaT, np.datetime64("NaT")]
)
def test_missing_ids_are_refused_with_their_row(missing):
    with pytest.raises(ValueError, match=r"item id in row 1 of 3 is missing .* drop it"):
        ItemVocabulary(["a", missing, "c"])
    with pytest.raises(ValueError, match="item id in row 1 of 3 is missing"):
        ItemFeatures.from_tensors(item_ids=["a", missing, "c"], text=torch.randn(4, 1, 2))
    encoder = tiny_text_encoder(["lamp"], width=8)
    items = {"item_id": [1, missing, 3], "text": ["lamp"] * 3}
    for table in (items, pd.DataFrame(items)):
        with pytest.raises(ValueError, match="item id in row 1 of 3 is missing"):
            ItemFeatures.from_items(table, text_encoder=encoder, progress=False)


@pytest.mark.parametrize(
    ("dtype", "digits"), [(np.float16, 11), (np.float32, 24), (np.float64, 53)]
)
def test_floats_that_are_too_large_to_be_ids(dtype, digits):
    largest = 2.0**digits - 1
    assert ItemVocabulary(np.array([largest], dtype)).item_ids == (int(largest),)
    for bad in (np.array([largest + 1], dtype), pd.Series(np.array([-largest - 1], dtype))):
        with pytest.raises(ValueError, match=rf"floats of 2\*\*{digits} and more"):
            ItemVocabulary(bad)


def test_floats_that_are_no_whole_numbers_stay():
    assert ItemVocabulary(np.array([1.0, 2.5])).item_ids == (1.0, 2.5)
    assert [type(i) for i in ItemVocabulary([1.0, 2.0])] == [float, float]


def test_datetimes_stay_datetimes():
    day = dt.datetime(2024, 1, 2)
    ids = np.array([day], dtype="datetime64[ns]")
    assert ItemVocabulary(ids).item_ids == ItemVocabulary(list(ids)).item_ids == (day,)


def test_another_unicode_form_is_suggested():
    vocabulary = ItemVocabulary(["caf\u00e9", "mug"])
    with pytest.raises(ValueError, match=r"'caf\\xe9', another Unicode form of"):
        vocabulary.rows(["cafe\u0301"])
