"""Item ids of all types survive a round trip through a file, with little memory."""

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odmt_sdk import AdapterError
from odmt_sdk.saving import item_ids
from odmt_sdk.saving.item_ids import check_item_ids, read_item_ids, write_item_ids
from odmt_sdk.saving.packed_vocabulary import PackedVocabulary
from odmt_sdk.vocabulary import ItemVocabulary

any_text = st.text(st.characters() | st.sampled_from(['"', "\\", ",", "\ud800", "\0"]), max_size=20)
ids = st.lists(any_text | st.integers() | st.integers(-3, 3).map(str), min_size=1, unique=True)


@pytest.fixture(params=["whole", "in pieces"])
def way(request, monkeypatch):
    if request.param == "in pieces":
        monkeypatch.setattr(item_ids, "SMALL", -1)
        monkeypatch.setattr(item_ids, "PIECE", 17)
    return request.param


def read(path, count):
    with path.open("rb") as file:
        return read_item_ids(file, "items.json", count=count)


@given(found=ids)
def test_any_ids_are_read_as_they_were(found, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "items.json"
    check_item_ids(found)
    write_item_ids(path, found, "mark")
    for small, piece in ((1 << 20, 1), (-1, 17), (-1, 1 << 20)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(item_ids, "SMALL", small)
            patch.setattr(item_ids, "PIECE", piece)
            vocabulary, save_id = read(path, len(found))
        assert save_id == "mark"
        assert isinstance(vocabulary, PackedVocabulary) == (small < 0)
        assert vocabulary == ItemVocabulary(found)
        assert [type(i) for i in vocabulary] == [type(i) for i in found]
        assert vocabulary.rows(found) == list(range(1, len(found) + 1))
        assert vocabulary.ids(range(1, len(found) + 1)) == found
        again = pickle.loads(pickle.dumps(vocabulary))
        assert again == vocabulary
        assert again.rows(found) == vocabulary.rows(found)
        assert 0.5 not in vocabulary


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('"a", "b", "a"', "item id 'a' stands more than once"),
        ('"a", "b"', "it has 2 item ids, but the weights are for 3 items"),
        ('"a", "b", "c", "d"', "it has 4 item ids, but the weights are for 3 items"),
        ('"a", "b", 1.5', "must be a list of strings and integers"),
        ('"a", "b", true', "must be a list of strings and integers"),
        ('"a", "b", []', "must be a list of strings and integers"),
        ('"a", "b", {"a": 1}', "must be a list of strings and integers|is damaged"),
        ('"a", "b", "c"], "item_ids": ["d"', "is damaged"),
        ('"a", "b", "c"], ["d"', "is damaged"),
        ('"a", "b", "c', "is damaged"),
        ('"a", "b", "\\', "is damaged"),
        ('"a", "b", ', "is damaged"),
        ('"a", "b", NaN', "is damaged"),
    ],
)
def test_damaged(way, text, message, tmp_path):
    (tmp_path / "items.json").write_text('{"save_id": "0", "item_ids": [' + text + "]}")
    with pytest.raises(AdapterError, match=f"items.json.*({message})"):
        read(tmp_path / "items.json", 3)


def test_cut_anywhere(way, tmp_path):
    path = tmp_path / "items.json"
    write_item_ids(path, [*range(5), "é\ud800", 'a"b\\'], "0")
    whole = path.read_bytes()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        with pytest.raises(AdapterError, match="items.json is damaged"):
            read(path, 7)


def test_large_files_have_to_be_as_they_are_written(way, tmp_path):
    (tmp_path / "i").write_text(json.dumps({"item_ids": ["a"], "save_id": "0"}))
    if way == "whole":
        assert read(tmp_path / "i", 1)[0] == ItemVocabulary(["a"])
    else:
        with pytest.raises(AdapterError, match="object with save_id and item_ids, in this order"):
            read(tmp_path / "i", 1)
