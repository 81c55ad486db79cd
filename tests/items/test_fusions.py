"""The contract of every fusion: scale, missing tokens, gradients, saving, growing."""

import pytest
import torch
from toys import MyModel, toy_features, toy_model

from odmt_sdk import ItemFeatures, ODMTConfig, ODMTWrapper
from odmt_sdk.features.modality import ModalityTokens
from odmt_sdk.items.embedder import GrowingItemEmbedder, build_item_encoder
from odmt_sdk.items.fusions.content import ContentHead
from odmt_sdk.items.fusions.summed import SumFusion
from odmt_sdk.items.fusions.vectors import ItemVectors

WIDTHS = {"text": 6, "image": 5}
SOURCES = {
    "sum": ("item",),
    "concat": ("item",),
    "gated": ("item",),
    "non_invasive": ("item",),
    "early_deep": ("item",),
    "towers": ("id", "text", "image"),
    "late": ("id", "text", "image"),
    "late_deep": ("id", "text", "image"),
    "only:text": ("text",),
    "only:id": ("id",),
    "id_ensemble": ("id", "id_2", "id_3"),
}
OF_IDS_ALONE = {"only:id", "id_ensemble"}
OF_VECTORS = set(SOURCES) - OF_IDS_ALONE - {"only:text", "early_deep"}


def make(fusion, num_items=12, hidden_size=8, widths=WIDTHS, **settings):
    config = ODMTConfig(fusion=fusion, **settings)
    return build_item_encoder(config, num_items, hidden_size, widths)


def tokens(num_items, lengths=None, scale=1.0):
    return {
        name: ModalityTokens(
            scale * torch.randn(num_items, 4, width),
            torch.full((num_items,), 4) if lengths is None else lengths[name],
        )
        for name, width in WIDTHS.items()
    }


@pytest.mark.parametrize("fusion", SOURCES)
def test_shapes(fusion):
    encoder = make(fusion)
    encoded = encoder(torch.arange(1, 6), tokens(5))
    assert encoder.sources == tuple(encoded) == SOURCES[fusion]
    assert {embeddings.shape for embeddings in encoded.values()} == {(5, 8)}


@pytest.mark.parametrize("scale", [0.1, 10.0])
@pytest.mark.parametrize("fusion", SOURCES)
@pytest.mark.parametrize("length", [None, 1.0])
def test_embeddings_start_at_the_initial_length(fusion, scale, length):
    settings = {} if length is None else {"initial_length": length}
    encoder = make(fusion, num_items=200, hidden_size=64, **settings).eval()
    expected = pytest.approx(0.16 if length is None else length, rel=0.25)
    for source, embeddings in encoder(torch.arange(1, 201), tokens(200, scale=scale)).items():
        assert float(embeddings.detach().norm(dim=1).mean()) == expected, source


@pytest.mark.parametrize("fusion", SOURCES)
def test_absent_tokens_are_not_read(fusion):
    encoder = make(fusion).eval()
    lengths = {"text": torch.tensor([4, 0, 2]), "image": torch.tensor([0, 0, 3])}
    given = tokens(3, lengths)
    spoilt = {
        name: ModalityTokens(
            values.masked_fill(torch.arange(4)[None, :, None] >= count[:, None, None], torch.nan),
            count,
        )
        for name, (values, count) in given.items()
    }
    item_ids = torch.tensor([1, 2, 3])
    for source, embeddings in encoder(item_ids, spoilt).items():
        assert torch.equal(embeddings, encoder(item_ids, given)[source])


@pytest.mark.parametrize("fusion", SOURCES)
def test_gradients_reach_everything(fusion):
    encoder = make(fusion)
    lengths = {"text": torch.tensor([4, 0, 2]), "image": torch.tensor([4, 4, 0])}
    encoder.train()
    for module in encoder.modules():
        if hasattr(module, "id_dropout"):
            module.id_dropout = 0.5
    for _ in range(8):  # until an ID is hidden
        given = tokens(3, lengths)
        embeddings = torch.stack(list(encoder(torch.arange(1, 4), given).values()))
        (embeddings * torch.randn_like(embeddings)).sum().backward()
    without = [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@pytest.mark.parametrize("fusion", sorted(OF_VECTORS))
def test_a_missing_modality_is_named(fusion):
    given = tokens(2)
    del given["image"]
    with pytest.raises(ValueError, match=r"got features of \['text'\].* give items that lack"):
        make(fusion)(torch.tensor([1, 2]), given)


@pytest.mark.parametrize("fusion", SOURCES)
def test_trains_saves_and_loads(fusion, tmp_path):
    model = toy_model(fusion=fusion)
    rows = torch.randint(1, 13, (4, 6))
    before = model(rows).loss
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(8):
        optimizer.zero_grad()
        model(rows).loss.backward()
        optimizer.step()
    assert model(rows).loss < before
    model.eval()
    model.save_pretrained(tmp_path / "adapter")
    loaded = ODMTWrapper.from_pretrained(
        tmp_path / "adapter", MyModel(), toy_features(item_ids=model.vocabulary.item_ids)
    )
    expected, got = model.encode_catalogue(), loaded.encode_catalogue()
    assert got.keys() == expected.keys()
    for source in expected:
        assert torch.equal(got[source], expected[source])


@pytest.mark.parametrize("fusion", SOURCES)
def test_items_can_be_added(fusion):
    model = toy_model(fusion=fusion).eval()
    if fusion in OF_IDS_ALONE:
        with pytest.raises(ValueError, match="represents items only by their IDs"):
            model.add_items(toy_features(1, item_ids=["new"]))
        return
    old = {source: values.clone() for source, values in model.encode_catalogue().items()}
    model.add_items(toy_features(3, item_ids=["new-0", "new-1", "new-2"], seed=1))
    assert isinstance(model.item_encoder, GrowingItemEmbedder)
    grown = model.encode_catalogue()
    for source, values in grown.items():
        assert values.shape == (16, 8)
        assert torch.equal(values[:13], old[source])
    assert "new-1" in model.recommend([["item-3", "new-0"]], k=13).item_ids[0]


def test_a_grown_table_keeps_its_kind_of_gradient():
    model = toy_model(fusion="sum", sparse_id_gradients=True)
    model.add_items(toy_features(1, item_ids=["new"]))
    model(torch.tensor([[1, 13, 2]])).loss.backward()
    assert model.item_encoder.ids.embedding.weight.grad.is_sparse


@pytest.mark.parametrize("fusion", sorted(OF_VECTORS))
def test_unseen_ids_count_as_unknown_outside_training(fusion):
    encoder = make(fusion).eval()
    given = tokens(1)
    encoder.set_unseen(torch.arange(13) > 6)
    both = ItemVectors.vectors(encoder, torch.tensor([7]), given)["id"]
    assert torch.equal(both[0], encoder.ids.unknown)
    assert not torch.equal(encoder.train().vectors(torch.tensor([7]), given)["id"], both)


@pytest.mark.parametrize("fusion", sorted(set(SOURCES) - {"only:text"}))
def test_without_content(fusion):
    model = ODMTWrapper(
        MyModel(), config=ODMTConfig(fusion=fusion), vocabulary=["a", "b", "c", "d"]
    )
    assert model(torch.tensor([[1, 2, 3]])).loss.isfinite()
    assert len(model.recommend([["a"]], k=2).item_ids[0]) == 2


def test_all_ids_can_be_hidden_and_content_stays():
    encoder = make("sum", id_dropout=0.999, modality_dropout=0.999).train()
    vectors = encoder.vectors(torch.arange(1, 13), tokens(12))
    hidden = (vectors["id"] == encoder.ids.unknown).all(1)
    text, image = ((vectors[name] == encoder.contents[name].missing).all(1) for name in WIDTHS)
    assert hidden.all()
    assert not (text & image).any()


def test_sum_is_the_scaled_sum():
    encoder = SumFusion(num_items=4, hidden_size=8, modality_widths={}).eval()
    vectors = {"id": torch.ones(2, 8), "text": torch.full((2, 8), 2.0)}
    torch.testing.assert_close(encoder.combine(vectors)["item"], torch.full((2, 8), 3 * 0.5**0.5))


def test_gates_and_weights_start_even():
    ones = {"id": torch.randn(5, 64), "text": torch.randn(5, 64) * 0.125}
    for fusion in ("gated", "non_invasive"):
        encoder = make(fusion, hidden_size=64, widths={"text": 6}).eval()
        for linear in (getattr(encoder, "gates", None), getattr(encoder, "weigh", None)):
            if linear is not None:
                torch.nn.init.zeros_(linear.weight)
        expected = ones["id"] if fusion == "non_invasive" else sum(ones.values()) * 0.5**0.5
        torch.testing.assert_close(encoder.combine(ones)["item"], expected)


def test_non_invasive_content_only_weighs_the_id():
    encoder = make("non_invasive").eval()
    encoder.set_unseen(torch.arange(13) == 3)  # its ID is the unknown one, which is zero
    embeddings = encoder(torch.tensor([2, 3]), tokens(2))["item"]
    assert embeddings[0].any()
    assert not embeddings[1].any()
    assert ((embeddings[0] * encoder.ids(torch.tensor([2]))[0]) > 0).all()


def test_late_sources_see_only_their_own():
    encoder = make("late_deep").eval()
    given = tokens(2)
    before = encoder(torch.tensor([1, 2]), given)
    given["text"].tokens.mul_(-1)
    after = encoder(torch.tensor([3, 2]), given)
    assert torch.equal(before["image"], after["image"])
    assert not torch.allclose(before["text"], after["text"])
    assert torch.equal(before["id"][1], after["id"][1])
    assert not torch.allclose(before["id"][0], after["id"][0])


def test_deep_content_equals_one_item_at_a_time():
    head = ContentHead(5, 8, num_layers=2, num_heads=4).eval()
    content = torch.randn(4, 3, 5)
    lengths = torch.tensor([3, 1, 0, 2])
    together = head(ModalityTokens(content, lengths))
    for item, length in enumerate(lengths.tolist()):
        alone = ModalityTokens(content[item : item + 1, : max(length, 1)], lengths[item : item + 1])
        torch.testing.assert_close(together[item], head(alone)[0], rtol=1e-4, atol=1e-6)


def test_an_ensemble_has_as_many_copies_as_odmt_has_sources():
    assert make("id_ensemble", widths={"text": 6}).sources == ("id", "id_2")
    first, second = make("id_ensemble", widths={"text": 6})(torch.tensor([1, 2])).values()
    assert not torch.allclose(first, second)


def test_only_names_a_modality_that_is_there():
    with pytest.raises(
        ValueError, match="fusion='only:audio' reads 'audio', but the features have"
    ):
        make("only:audio")
    with pytest.raises(ValueError, match="fusion='sum:text' is not registered"):
        make("sum:text")
    with pytest.raises(ValueError, match=r"got features of \['image'\], this fusion reads 'text'"):
        make("only:text")(torch.tensor([1]), {"image": tokens(1)["image"]})


def test_a_fusion_says_how_it_combines():
    features = ItemFeatures.from_tensors(text=torch.randn(3, 2, 4)).gather(torch.tensor([1]))
    bare = ItemVectors(num_items=2, hidden_size=8, modality_widths={"text": 4})
    with pytest.raises(NotImplementedError, match="ItemVectors must define combine"):
        bare(torch.tensor([1]), features)
