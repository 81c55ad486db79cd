import pytest
import torch

from odmt_sdk import ItemFeatures


def tokens(rows=4, length=3, width=5):
    return torch.randn(rows, length, width)


def test_from_tensors():
    features = ItemFeatures.from_tensors(text=tokens(), image=tokens(width=6))
    assert features.num_items == 3
    assert features.modalities == ("text", "image")
    assert features.widths == {"text": 5, "image": 6}
    assert features.vocabulary.item_ids == (1, 2, 3)
    assert features["text"].lengths.tolist() == [0, 3, 3, 3]
    assert repr(features) == "ItemFeatures(3 items; text: 3 items, 3 x 5; image: 3 items, 3 x 6)"


def test_gather_cuts_to_the_longest_asked_for():
    features = ItemFeatures.from_tensors(
        text=tokens(), lengths={"text": torch.tensor([0, 1, 3, 0])}
    )
    gathered = features.gather(torch.tensor([3, 1]))["text"]
    assert gathered.tokens.shape == (2, 1, 5)
    assert gathered.lengths.tolist() == [0, 1]
    assert torch.equal(gathered.tokens[1, 0], features["text"].tokens[1, 0])


def test_select_joins_by_id_not_by_order():
    text = tokens()
    features = ItemFeatures.from_tensors(item_ids=["a", "b", "c"], text=text)
    selected = features.select(["c", "a"])
    assert selected.vocabulary.item_ids == ("c", "a")
    assert torch.equal(selected["text"].tokens[1:], text[[3, 1]])
    assert selected["text"].lengths.tolist() == [0, 3, 3]
    with pytest.raises(ValueError, match="item id 'd' is not among the 3 items"):
        features.select(["a", "d"])


def test_to_converts_and_shares():
    features = ItemFeatures.from_tensors(text=tokens())
    assert features.to(dtype=torch.float16)["text"].tokens.dtype == torch.float16
    assert features.to("cpu")["text"].tokens is features["text"].tokens


def test_standardize():
    text = tokens(rows=50, width=6) * 3 + 7
    text[..., 5] = 2.5  # a feature that never varies
    lengths = torch.tensor([0] + [1 + i % 3 for i in range(49)])
    features = ItemFeatures.from_tensors(text=text, lengths={"text": lengths}).standardize()
    valid = torch.arange(3) < lengths[:, None]
    kept = features["text"].tokens[valid]
    torch.testing.assert_close(kept.mean(0), torch.zeros(6), rtol=0, atol=1e-5)
    torch.testing.assert_close(kept[:, :5].std(0, correction=0), torch.ones(5))
    assert not features["text"].tokens[~valid].any()
    assert torch.equal(features["text"].lengths, lengths)


def test_add_modality():
    features = ItemFeatures.from_tensors(text=tokens())
    more = features.add_modality("audio", tokens(width=2))
    assert more.modalities == ("text", "audio")
    assert features.modalities == ("text",)
    with pytest.raises(ValueError, match="modality 'text' is there already"):
        features.add_modality("text", tokens())
    with pytest.raises(ValueError, match="audio features have 5 rows, but 3 items need 4"):
        features.add_modality("audio", tokens(rows=5))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_name_the_item(value):
    text = tokens()
    text[2, 1, 0] = value
    with pytest.raises(ValueError, match=r"text features of item 'b' \(row 2\) hold NaN or infin"):
        ItemFeatures.from_tensors(item_ids=["a", "b", "c"], text=text)
    # tokens past an item's length are ignored
    ItemFeatures.from_tensors(text=text, lengths={"text": torch.tensor([0, 3, 1, 3])})


def test_padding_may_hold_anything():
    text = tokens()
    text[0] = float("nan")
    assert ItemFeatures.from_tensors(text=text)["text"].lengths[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "no modality given"),
        (
            {"text": tokens(), "image": tokens(rows=5)},
            "image features have 5 rows, but 3 items need 4",
        ),
        ({"text": tokens(), "item_ids": ["a"]}, "text features have 4 rows, but 1 items need 2"),
        ({"text": tokens(), "item_ids": ["a", "b", "a"]}, "item id 'a' stands more than once"),
        ({"text": torch.randn(4, 5)}, r"shape \(4, 5\); they must be \(N \+ 1, tokens, width\)"),
        ({"id": tokens()}, "a modality cannot be called 'id'"),
        ({"pop": tokens()}, "modality name 'pop' must be a plain word"),
        ({"text": tokens(), "lengths": {"image": torch.ones(4)}}, r"lengths name \['image'\]"),
        ({"text": tokens(), "lengths": {"text": torch.ones(3)}}, "must be 4 integers"),
        (
            {"text": tokens(), "lengths": {"text": torch.tensor([0, 4, 1, 1])}},
            r"text of item 1 \(row 1\) has length 4, outside 0..3",
        ),
        (
            {"text": tokens(), "lengths": {"text": torch.tensor([1, 1, 1, 1])}},
            "row 0 of text is padding",
        ),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        ItemFeatures.from_tensors(**arguments)


def test_tokens_must_be_floating_point_tensors():
    with pytest.raises(TypeError, match=r"text features must be a floating-point .* torch.int64"):
        ItemFeatures.from_tensors(text=torch.ones(4, 3, 5, dtype=torch.long))
    with pytest.raises(TypeError, match="text features must be a tensor, got list"):
        ItemFeatures.from_tensors(text=[[[1.0]]])
