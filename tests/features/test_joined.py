"""Two feature sets combined into one."""

import pytest
import torch

from odmt_sdk import ItemFeatures
from odmt_sdk.features.joined import JoinedFeatures


def some(item_ids, tokens=4, dtype=torch.float32, width=6):
    rows = len(item_ids) + 1
    return ItemFeatures.from_tensors(
        item_ids=list(item_ids),
        text=torch.randn(rows, tokens, width, dtype=dtype),
        image=torch.randn(rows, 2, 5),
        lengths={"text": torch.tensor([i % (tokens + 1) for i in range(rows)])},
    )


def rows_of(features, item_ids):
    """Return item -> modality -> valid tokens."""
    gathered = features.gather(torch.tensor(features.vocabulary.rows(list(item_ids))))
    return [
        {name: tokens[i, : lengths[i]] for name, (tokens, lengths) in gathered.items()}
        for i in range(len(item_ids))
    ]


def assert_same(got, expected):
    for one, other in zip(got, expected, strict=True):
        assert set(one) == set(other)
        for name in one:
            torch.testing.assert_close(one[name], other[name], check_dtype=False)


def test_every_item_keeps_its_tokens():
    first, second, third = some("abc"), some("de", tokens=7), some("f")
    features = JoinedFeatures(JoinedFeatures(first, second), third)
    assert features.vocabulary.item_ids == tuple("abcdef")
    assert (features.num_items, features.modalities) == (6, ("text", "image"))
    assert features.widths == {"text": 6, "image": 5}
    assert repr(features) == "JoinedFeatures(6 items of 3 parts; {'text': 6, 'image': 5})"
    expected = rows_of(first, "ca") + rows_of(second, "ed") + rows_of(third, "f")
    assert_same(rows_of(features, "caedf"), expected)
    assert_same(rows_of(features, "fecad"), [expected[i] for i in (4, 2, 0, 1, 3)])


def test_select_follows_the_ids():
    first, second = some("abc"), some("de", tokens=7)
    features = JoinedFeatures(first, second).select(["d", "a", "b"])
    assert features.vocabulary.item_ids == tuple("dab")
    expected = rows_of(second, "d") + rows_of(first, "ab")
    assert_same(rows_of(features, "dab"), expected)
    again = JoinedFeatures(features, some("f"))
    assert_same(rows_of(again, "dab"), expected)
    with pytest.raises(ValueError, match="item id 'c' is not among the 3 items"):
        features.select(["c"])


def test_padding_is_empty():
    gathered = JoinedFeatures(some("abc"), some("d")).gather(torch.tensor([0, 4, 0]))
    assert gathered["image"].lengths.tolist() == [0, 2, 0]


def test_the_more_exact_type_wins():
    features = JoinedFeatures(some("abc", dtype=torch.float16), some("d"))
    assert features.gather(torch.tensor([1, 4]))["text"].tokens.dtype == torch.float32
    assert features.gather(torch.tensor([1, 2]))["text"].tokens.dtype == torch.float16


def test_no_rows():
    gathered = JoinedFeatures(some("abc"), some("d")).gather(torch.zeros(0, dtype=torch.long))
    assert gathered["text"].tokens.shape[0] == 0


def test_errors():
    with pytest.raises(ValueError, match="nothing to join"):
        JoinedFeatures()
    with pytest.raises(ValueError, match="item id 'c' stands more than once"):
        JoinedFeatures(some("abc"), some("cd"))
    message = r"features {'text': 6, 'image': 5} and {'text': 7, 'image': 5} \(values per token\)"
    with pytest.raises(ValueError, match=message):
        JoinedFeatures(some("abc"), some("d", width=7))
