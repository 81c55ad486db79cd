"""The item encoder: its attention masks, ignored tokens, and the shortened last block."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from odmt_sdk.features.features import ModalityTokens
from odmt_sdk.items.fusions.id_only import IDEncoder
from odmt_sdk.items.id_mask import id_aware_mask
from odmt_sdk.items.item_encoder import ItemEncoder


def make(visibility="one_way", num_layers=2, modalities=("text", "image"), **settings):
    return ItemEncoder(
        num_items=9,
        hidden_size=8,
        modality_widths=dict(zip(modalities, (5, 6, 7), strict=False)),
        num_layers=num_layers,
        num_heads=4,
        id_visibility=visibility,
        **settings,
    ).eval()


def batch(encoder, lengths):
    """Return random tokens; `lengths` has a tuple per item, with a number per modality."""
    return {
        name: ModalityTokens(
            torch.randn(len(lengths), 4, encoder.projections[name].in_features),
            torch.tensor([length[m] for length in lengths]),
        )
        for m, name in enumerate(encoder.modalities)
    }


def slow_twin(encoder, item_ids, features):
    """Encode one item at a time: only valid tokens, and all of them through every block."""
    encoded = {source: [] for source in encoder.sources}
    for item in range(len(item_ids)):
        hidden, owners, first = [], [], {}
        for name in encoder.modalities:
            tokens, lengths = features[name]
            length = int(lengths[item])
            first[name] = len(owners)
            if length:
                projected = encoder.projections[name](tokens[item, :length])
                norm = encoder.token_norms
                hidden.append(norm[name](projected) if name in norm else projected)
                owners += [name] * length
            else:
                hidden.append(encoder.missing_tokens[name][None])
                owners.append("missing")
        first["id"] = len(owners)
        owners.append("id")
        id_token = encoder.projections["id"](encoder.id_embedding(item_ids[item]))
        hidden = torch.cat([*hidden, id_token[None]])[None]
        entered = hidden[0]
        mask = torch.zeros(len(owners), len(owners), dtype=torch.bool)
        for a, reader in enumerate(owners):
            for b, read in enumerate(owners):
                hides = encoder.id_visibility == "one_way" and read == "id" and reader != "id"
                mask[a, b] = a == b or (read != "missing" and not hides)
        for block in encoder.blocks:
            hidden = block(hidden, mask[None, None])
        for source in encoder.sources:
            embedding = encoder.heads[source](hidden[0, first[source]])
            if source in encoder.shortcuts:
                embedding = embedding + encoder.shortcuts[source](entered[first[source]])
            encoded[source].append(embedding)
    return {source: torch.stack(rows) for source, rows in encoded.items()}


def test_the_scale_of_features_does_not_matter_to_normed_tokens():
    encoder = make()
    features = batch(encoder, [(4, 4), (2, 3)])
    larger = {name: ModalityTokens(100 * t, n) for name, (t, n) in features.items()}
    with torch.no_grad():
        for name in encoder.modalities:
            encoder.projections[name].bias.zero_()
    ids = torch.tensor([1, 2])
    for source, got in encoder(ids, larger).items():
        torch.testing.assert_close(got, encoder(ids, features)[source], rtol=1e-3, atol=1e-4)


@given(
    st.sampled_from(["one_way", "mutual"]),
    st.integers(1, 3),
    st.sampled_from([(), ("text",), ("text", "image"), ("text", "image", "audio")]),
    st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=4),
    st.booleans(),
    st.booleans(),
)
def test_equals_the_slow_twin(visibility, num_layers, modalities, lengths, token_norm, shortcut):
    encoder = make(visibility, num_layers, modalities, token_norm=token_norm, shortcut=shortcut)
    item_ids = torch.arange(1, len(lengths) + 1)
    features = batch(encoder, lengths)
    expected = slow_twin(encoder, item_ids, features)
    for source, got in encoder(item_ids, features).items():
        torch.testing.assert_close(got, expected[source], rtol=1e-4, atol=1e-5)


def gradient_of(encoder, source, features):
    encoder(torch.tensor([3]), features)[source].sum().backward()
    return encoder.id_embedding.weight.grad[3]


@pytest.mark.parametrize("source", ["text", "image"])
def test_one_way_hides_the_id_from_content(source):
    encoder = make("one_way")
    assert not gradient_of(encoder, source, batch(encoder, [(2, 3)])).any()
    encoder = make("mutual")
    assert gradient_of(encoder, source, batch(encoder, [(2, 3)])).any()


def test_the_id_sees_content():
    encoder = make("one_way")
    features = batch(encoder, [(2, 3)])
    tokens = features["image"].tokens.requires_grad_()
    encoder(torch.tensor([3]), features)["id"].sum().backward()
    assert tokens.grad[0, :3].any(-1).all()
    assert not tokens.grad[0, 3:].any()


def test_absent_tokens_are_never_read():
    encoder = make()
    features = batch(encoder, [(2, 0), (0, 4), (4, 4)])
    item_ids = torch.tensor([1, 2, 3])
    clean = encoder(item_ids, features)
    for tokens, lengths in features.values():
        for item, length in enumerate(lengths):
            tokens[item, length:] = float("nan")
    poisoned = encoder(item_ids, features)
    for source in encoder.sources:
        assert torch.equal(clean[source], poisoned[source])
    sum(p.sum() for p in poisoned.values()).backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad.isfinite().all(), name


def test_a_missing_modality_is_told_from_the_others():
    encoder = make()
    first, second = batch(encoder, [(3, 0)]), batch(encoder, [(3, 0)])
    second["image"] = first["image"]
    ids = torch.tensor([5])
    assert not torch.allclose(encoder(ids, first)["image"], encoder(ids, second)["image"])


def test_the_mask():
    valid = torch.tensor([[True, False, True, True]])  # two text tokens, one image token, the ID
    one_way = id_aware_mask(valid, "one_way")[0].int().tolist()
    assert one_way == [[1, 0, 1, 0], [1, 1, 1, 0], [1, 0, 1, 0], [1, 0, 1, 1]]
    mutual = id_aware_mask(valid, "mutual")[0].int().tolist()
    assert mutual == [[1, 0, 1, 1], [1, 1, 1, 1], [1, 0, 1, 1], [1, 0, 1, 1]]


def test_dropout_works_only_in_training():
    encoder = make()
    features, ids = batch(encoder, [(2, 3)]), torch.tensor([1])
    assert torch.equal(encoder(ids, features)["id"], encoder(ids, features)["id"])
    encoder.train()
    assert not torch.equal(encoder(ids, features)["id"], encoder(ids, features)["id"])


def test_errors():
    encoder = make()
    with pytest.raises(ValueError, match=r"got features of \['text'\], this item encoder reads"):
        encoder(torch.tensor([1]), {"text": batch(encoder, [(1, 1)])["text"]})
    with pytest.raises(ValueError, match="hidden_size=8 is not divisible by num_heads=3"):
        ItemEncoder(num_items=3, hidden_size=8, modality_widths={}, num_heads=3)


def test_id_encoder():
    encoder = IDEncoder(num_items=4, hidden_size=6)
    assert encoder(torch.tensor([0, 2]))["id"].shape == (2, 6)
    assert not encoder(torch.tensor([0]))["id"].any()
