import numpy as np
import pytest

from odmt_sdk import ItemVocabulary


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
    with pytest.raises(TypeError, match="unhashable"):
        ItemVocabulary([["a"]])
    vocabulary = ItemVocabulary(["a", "b"])
    with pytest.raises(ValueError, match="item id 'z' is not among the 2 items"):
        vocabulary.rows(["a", "z"])
    assert vocabulary.rows(["a", "z"], unknown="skip") == [1]
    with pytest.raises(ValueError, match="unknown='ignore' must be"):
        vocabulary.rows(["a"], unknown="ignore")
    with pytest.raises(ValueError, match=r"row 0 is outside 1\.\.2"):
        vocabulary.ids([0])
