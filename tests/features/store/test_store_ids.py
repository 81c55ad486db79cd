"""Item ids on disk."""

import pytest

from odmt_sdk import ItemVocabulary
from odmt_sdk.features.store.ids import StoredVocabulary, write_ids

IDS = ("mug", 7, "7", "", "Größe \N{TEAPOT}", -(2**70), 0, "a" * 300, "\ud800")


@pytest.fixture
def stored(tmp_path):
    write_ids(tmp_path / "ids.safetensors", IDS)
    return StoredVocabulary(tmp_path / "ids.safetensors")


def test_it_is_as_one_in_memory(stored):
    plain = ItemVocabulary(IDS)
    assert stored.item_ids == tuple(stored) == IDS
    assert stored == plain
    assert plain == stored
    assert hash(stored) == hash(plain)
    assert repr(stored) == repr(plain)
    assert stored.rows(IDS) == list(range(1, 10))
    assert stored.ids([9, 1]) == ["\ud800", "mug"]
    assert "mug" in stored
    assert all(item_id not in stored for item_id in ("cup", 8, 7.5, None))
    assert stored.rows(["cup", 7], unknown="skip") == [2]
    with pytest.raises(ValueError, match="item id 'cup' is not among the 9 items .*'mug'"):
        stored.rows(["cup"])
    with pytest.raises(ValueError, match=r"row 10 is outside 1\.\.9"):
        stored.ids([10])
    assert stored != ItemVocabulary(IDS[:-1])
    assert stored != ItemVocabulary(IDS[::-1])


def test_ids_of_the_same_hash(tmp_path, monkeypatch):
    monkeypatch.setattr("odmt_sdk.features.store.ids._hash", lambda item_id, encoded: 5)
    write_ids(tmp_path / "ids.safetensors", IDS)
    assert StoredVocabulary(tmp_path / "ids.safetensors").rows(IDS) == list(range(1, 10))
