"""Encoding items of similar length together gives the same embeddings with less padding."""

import torch

from odmt_sdk.features.modality import ModalityTokens
from odmt_sdk.items.item_encoder import ItemEncoder
from odmt_sdk.items.length_groups import MAX_GROUPS, MIN_ITEMS, encode_by_length


class Counting:
    """An item encoder that records the number of tokens it receives."""

    sources, modalities = ("id", "text", "image"), ("text", "image")

    def __init__(self):
        torch.manual_seed(0)
        widths = {"text": 5, "image": 4}
        self.encoder = ItemEncoder(num_items=500, hidden_size=8, modality_widths=widths).eval()
        self.shapes: list[tuple[int, int]] = []

    def __call__(self, item_ids, features=None):
        self.shapes.append((len(item_ids), features["text"].tokens.shape[1]))
        return self.encoder(item_ids, features)


def features(items: int, longest: int, shortest: int = 0):
    lengths = torch.randint(shortest, longest + 1, (items,))
    lengths[0] = longest
    return {
        "text": ModalityTokens(torch.randn(items, longest, 5), lengths),
        "image": ModalityTokens(torch.randn(items, 2, 4), torch.randint(3, (items,))),
    }


def test_the_embeddings_and_gradients_stay():
    item_ids, tokens, encoder = torch.randperm(300) + 1, features(300, 20), Counting()
    table = encoder.encoder.id_embedding.weight
    found = encode_by_length(encoder, item_ids, tokens)
    expected = encoder.encoder(item_ids, tokens)
    assert len(encoder.shapes) == MAX_GROUPS
    weights = torch.randn(300, 8)
    for source, embeddings in expected.items():
        torch.testing.assert_close(found[source], embeddings, rtol=1e-5, atol=1e-6)
        (a,) = torch.autograd.grad((embeddings * weights).sum(), table, retain_graph=True)
        (b,) = torch.autograd.grad((found[source] * weights).sum(), table, retain_graph=True)
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-6)


def test_padding_is_saved():
    encoder = Counting()
    encode_by_length(encoder, torch.arange(1, 301), features(300, 20))
    assert sum(items * tokens for items, tokens in encoder.shapes) < 0.75 * 300 * 20
    assert sum(items for items, _ in encoder.shapes) == 300


def test_items_stay_together_where_little_is_to_save():
    few, alike = Counting(), Counting()
    encode_by_length(few, torch.arange(1, 2 * MIN_ITEMS), features(2 * MIN_ITEMS - 1, 20))
    encode_by_length(alike, torch.arange(1, 301), features(300, 20, shortest=20))
    assert len(few.shapes) == len(alike.shapes) == 1


def test_items_without_any_content():
    tokens = {
        "text": ModalityTokens(torch.randn(100, 6, 5), torch.arange(100) % 7),
        "image": ModalityTokens(torch.randn(100, 2, 4), torch.zeros(100, dtype=torch.long)),
    }
    encoder = Counting()
    found = encode_by_length(encoder, torch.arange(1, 101), tokens)
    assert len(encoder.shapes) > 1
    expected = encoder.encoder(torch.arange(1, 101), tokens)
    for source, embeddings in expected.items():
        torch.testing.assert_close(found[source], embeddings, rtol=1e-5, atol=1e-6)
