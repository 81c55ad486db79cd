"""The reported attention equals the attention of the forward pass."""

import pytest
import torch

from odmt_sdk.features.modality import ModalityTokens
from odmt_sdk.items.item_encoder import ItemEncoder
from odmt_sdk.transformer import SelfAttention

LENGTHS = {"text": (4, 2, 0), "image": (3, 0, 3)}
IDS = torch.tensor([1, 2, 3])


@pytest.fixture(params=["one_way", "mutual"])
def encoder(request):
    return ItemEncoder(
        num_items=5,
        hidden_size=8,
        modality_widths={"text": 5, "image": 6},
        num_heads=2,
        id_visibility=request.param,
    ).eval()


@pytest.fixture
def features():
    return {
        "text": ModalityTokens(torch.randn(3, 4, 5), torch.tensor(LENGTHS["text"])),
        "image": ModalityTokens(torch.randn(3, 3, 6), torch.tensor(LENGTHS["image"])),
    }


def joined(weights):
    """Concatenate weights (U, H, T) in token order."""
    return torch.cat([weights["text"], weights["image"], weights["id"]], dim=-1)


def test_weights_equal_an_independent_softmax_over_projected_keys(encoder, features):
    """Compute each head and query separately, with projected keys, from the last block's input."""
    seen = {}
    last = encoder.blocks[-1]
    read = last.read
    last.read = lambda queries, hidden, mask: (
        seen.update(queries=queries, hidden=hidden, mask=mask) or read(queries, hidden, mask)
    )
    encoder(IDS, features)
    del last.read
    query, key = last.attention.query(seen["queries"]), last.attention.key(seen["hidden"])
    found = encoder.attention(IDS, features)
    for place, reader in enumerate(("text", "image", "id")):
        for item in range(3):
            for head in range(2):
                part = slice(4 * head, 4 * head + 4)
                scores = key[item, :, part] @ query[item, place, part] / 4**0.5
                allowed = seen["mask"][item, place]
                expected = torch.zeros(8)
                expected[allowed] = scores[allowed].softmax(0)
                torch.testing.assert_close(joined(found[reader])[item, head], expected)


def test_weights_are_those_that_reading_sums_with():
    attention = SelfAttention(8, 2, dropout=0.5).eval()
    hidden, mask = torch.randn(3, 6, 8), torch.rand(3, 2, 6) > 0.3
    mask[:, :, 0] = True
    queries = hidden[:, [0, 3]]
    values = attention.value(hidden).unflatten(-1, (2, 4))  # (B, T, H, K)
    weights = attention.weights(queries, hidden, mask)
    summed = torch.einsum("bhqt,bthk->bqhk", weights, values).flatten(2)
    torch.testing.assert_close(attention.output(summed), attention.read(queries, hidden, mask))


def test_weights_add_up_to_one_and_absent_tokens_have_none(encoder, features):
    for reader, weights in encoder.attention(IDS, features).items():
        torch.testing.assert_close(joined(weights).sum(-1), torch.ones(3, 2))
        for name in ("text", "image"):
            for item, length in enumerate(LENGTHS[name]):
                # a source without tokens uses the learned token instead
                first = 1 if reader == name and length == 0 else length
                assert not weights[name][item, :, first:].any()
                assert bool((weights[name][item, :, :first] > 0).all())


def test_content_reads_the_id_only_where_it_may(encoder, features):
    found = encoder.attention(IDS, features)
    may = encoder.id_visibility == "mutual"
    assert bool((found["text"]["id"] > 0).all()) is may
    assert bool((found["image"]["id"] > 0).all()) is may
    assert bool((found["id"]["id"] > 0).all())


def test_training_mode_is_kept_and_changes_nothing(encoder, features):
    expected = encoder.attention(IDS, features)
    encoder.train()
    found = encoder.attention(IDS, features)
    assert encoder.training
    assert all(module.training for module in encoder.modules())
    for reader, weights in expected.items():
        torch.testing.assert_close(joined(found[reader]), joined(weights))


def test_a_model_of_ids_alone_reads_its_id():
    encoder = ItemEncoder(num_items=5, hidden_size=8, modality_widths={})
    assert encoder.attention(IDS)["id"]["id"].tolist() == [[[1.0]] * 2] * 3


def test_unknown_modalities_are_refused(encoder, features):
    with pytest.raises(ValueError, match=r"got features of \['text'\], this item encoder reads"):
        encoder.attention(IDS, {"text": features["text"]})
