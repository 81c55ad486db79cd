"""Precomputed tokens, given as arrays."""

import numpy as np
import pandas as pd
import pytest
import torch

from odmt_sdk import ItemFeatures

IDS = ["a", "b", "c"]


def from_arrays(sound, items=None, **settings):
    items = {"item_id": IDS} if items is None else items
    settings = {"dtype": torch.float32, "progress": False, **settings}
    return ItemFeatures.from_items(items, arrays={"sound": sound}, **settings)


@pytest.mark.parametrize("path", [None, "store"])
@pytest.mark.parametrize("shape", [(3, 4), (3, 2, 4)])
def test_one_large_array(shape, path, tmp_path):
    values = np.random.default_rng(0).normal(size=shape)
    np.save(tmp_path / "sound.npy", values)
    mapped = np.load(tmp_path / "sound.npy", mmap_mode="r")
    for number, given in enumerate((values, mapped, torch.from_numpy(values), list(values))):
        where = None if path is None else tmp_path / f"{path}{number}"
        features = from_arrays(given, path=where)
        tokens, lengths = features["sound"]
        assert lengths.tolist() == [0, *[1 if len(shape) == 2 else 2] * 3]
        assert torch.equal(tokens[1:], torch.from_numpy(values).float().view(3, -1, 4))
    assert features.provenance["sound"]["encoder"] == "given as arrays"


def test_arrays_of_different_lengths_and_items_without_one():
    features = from_arrays([[[1.0, 2.0], [3.0, 4.0]], None, np.array([5.0, 6.0])])
    tokens, lengths = features["sound"]
    assert lengths.tolist() == [0, 2, 0, 1]
    assert tokens[1:].tolist() == [[[1, 2], [3, 4]], [[0, 0], [0, 0]], [[5, 6], [0, 0]]]
    assert features.report.present == {"sound": 2}
    assert str(features.report) == "sound: 2 of 3 items; 1 without"


def test_a_column_of_a_table():
    vectors = [np.array([1.0, 2.0]), None, np.array([3.0, 4.0])]
    table = pd.DataFrame({"item_id": IDS, "vector": pd.Series(vectors, dtype=object)})
    for items in (table, {"item_id": IDS, "vector": vectors}):
        tokens, lengths = from_arrays("vector", items)["sound"]
        assert lengths.tolist() == [0, 1, 0, 1]
        assert tokens[:, 0].tolist() == [[0, 0], [1, 2], [0, 0], [3, 4]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((2, 4)), "sound has 2 entries, but there are 3 items: give one for each"),
        (
            [[1.0], [1.0, 2.0], None],
            "sound of item 'b' has 2 values per token, .* earlier item has 1",
        ),
        (np.zeros((3, 1, 2, 4)), r"sound of item 'a' has shape \(1, 2, 4\); it must be \(width,\)"),
        ([["loud"], None, None], "sound of item 'a' is not an array of numbers"),
        ([[[1.0], [1.0, 2.0]], None, None], "sound of item 'a' is not an array of numbers"),
        ([None, [float("nan")], None], "the tokens of the sound of item 'b' cannot be stored"),
        ([None, None, None], "none of 3 items has a sound that can be encoded"),
    ],
)
def test_what_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        from_arrays(given)


def test_names_that_are_taken():
    items = {"item_id": IDS, "text": IDS}
    with pytest.raises(ValueError, match="'text' is both encoded and among arrays=; choose"):
        ItemFeatures.from_items(items, text_encoder="any", arrays={"text": np.zeros((3, 1))})


@pytest.mark.parametrize("path", [None, "store"])
def test_later_arrays_may_be_longer(path, tmp_path):
    arrays = [np.full((1 + row // 200, 2), row) for row in range(600)]  # more than one batch
    where = None if path is None else tmp_path / path
    features = from_arrays(arrays, {"item_id": range(600)}, path=where)
    tokens, lengths = features["sound"]
    assert lengths[1:].tolist() == [len(array) for array in arrays]
    assert tokens[1].tolist() == [[0, 0], [0, 0], [0, 0]]
    assert tokens[600].tolist() == [[599, 599]] * 3


def test_a_series_is_read_in_the_order_of_its_rows():
    table = pd.DataFrame({"item_id": IDS, "vector": [np.full(2, n) for n in (1.0, 2.0, 3.0)]})
    table = table.iloc[[2, 0, 1]]
    for given in (table["vector"], table["vector"].tolist(), "vector"):
        features = from_arrays(given, table)
        assert features.vocabulary.item_ids == ("c", "a", "b")
        assert features["sound"].tokens[1:, 0, 0].tolist() == [3, 1, 2]


def test_columns_of_table_libraries():
    pa, pl = pytest.importorskip("pyarrow"), pytest.importorskip("polars")
    rows = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
    for given in (
        pd.DataFrame(rows),
        pd.DataFrame(rows, index=[5, 3, 4]),
        pa.array(rows),
        pa.array(rows, pa.list_(pa.float32(), 2)),
        pl.Series(rows),
        pl.DataFrame(rows, orient="row"),
    ):
        assert from_arrays(given)["sound"].tokens[1:, 0].tolist() == rows


def test_arrays_without_an_order_or_of_complex_numbers():
    with pytest.raises(TypeError, match="sound is a dict, but its arrays must be in the order of"):
        from_arrays({"a": [1.0], "b": [2.0], "c": [3.0]})
    with pytest.raises(ValueError, match="sound of item 'a' is not an array .* are complex"):
        from_arrays(np.ones((3, 2), complex))
