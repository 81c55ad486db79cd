"""Transferring what was learned from content to another catalogue."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file
from toys import MyModel, toy_features, toy_model

from odmt_sdk import AdapterError, GRU4Rec, ItemFeatures, ODMTConfig, ODMTWrapper
from odmt_sdk.saving.card_details import CardDetails

OTHER_IDS = [f"new-{i}" for i in range(20)]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    torch.manual_seed(0)
    model = toy_model(num_layers=1, id_dropout=0.1).set_item_popularity(torch.arange(13.0))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    path = tmp_path_factory.mktemp("transfer")
    model.save_pretrained(path / "a")
    model.save_pretrained(path / "content", content_only=True)
    return model, path


@pytest.fixture(params=["a", "content"])
def folder(saved, request):
    return saved[1] / request.param


def other_features(**changed):
    features = toy_features(20, OTHER_IDS, seed=1)
    modalities = {name: features[name].tokens for name in features.modalities} | changed
    kept = {name: tokens for name, tokens in modalities.items() if tokens is not None}
    return ItemFeatures.from_tensors(item_ids=OTHER_IDS, **kept)


def transfer(folder, features, **options):
    return ODMTWrapper.from_pretrained(folder, MyModel(), features, transfer=True, **options)


CATALOGUE = {"item_log_probability", "item_encoder.id_embedding.weight", "item_encoder.unseen"}


def test_all_but_single_items_is_taken(saved, folder):
    model, _ = saved
    loaded = transfer(folder, other_features())
    assert loaded.num_items == 20
    report = loaded.transfer_report
    assert set(report.fresh) == CATALOGUE
    assert set(report.left) == (CATALOGUE if folder.name == "a" else set())
    old, new = model.state_dict(), loaded.state_dict()
    assert set(report.loaded) == set(old) - CATALOGUE
    assert all(torch.equal(old[name], new[name]) for name in report.loaded)
    assert "loaded: backbones.by_source.id (2)" in str(report)
    assert "item_encoder.id_embedding (1)" in str(report)


def test_items_are_known_by_content_until_they_are_trained(saved, folder):
    """An old item with an unknown ID has the same embedding in the new catalogue."""
    model, _ = saved
    old = toy_features(item_ids=[f"item-{i}" for i in range(12)])
    loaded = transfer(folder, old.select(["item-5", "item-2"]))
    unknown = ODMTWrapper(MyModel(), old, model.config)
    unknown.load_state_dict(model.state_dict())
    unknown.set_item_popularity(torch.tensor([0.0] + [1.0] + [0.0] * 11))  # all but one are cold
    expected = unknown.encode_catalogue()
    found = loaded.encode_catalogue()
    for source in ("id", "text", "image"):
        torch.testing.assert_close(found[source][1:], expected[source][[6, 3]])


def test_it_trains_and_recommends(folder):
    loaded = transfer(folder, other_features())
    assert loaded.recommend([["new-1"]], k=3).item_ids[0][0].startswith("new-")
    loaded.train().set_item_popularity(torch.ones(21))
    loaded(torch.randint(1, 21, (4, 5))).loss.backward()
    assert all(p.grad is not None for p in loaded.item_encoder.blocks.parameters())


def test_what_was_taken_is_frozen_if_asked_for(folder):
    loaded = transfer(folder, other_features(), freeze=True)
    trained = {name for name, p in loaded.named_parameters() if p.requires_grad}
    assert trained == {"item_encoder.id_embedding.weight"}
    loaded.train()(torch.randint(1, 21, (4, 5))).loss.backward()
    assert loaded.item_encoder.id_embedding.weight.grad is not None


def test_an_encoder_of_another_width_gets_a_new_projection(saved, folder):
    loaded = transfer(folder, other_features(text=torch.randn(21, 4, 9)))
    projection = {f"item_encoder.projections.text.{part}" for part in ("weight", "bias")}
    assert set(loaded.transfer_report.fresh) == CATALOGUE | projection
    assert projection <= set(loaded.transfer_report.left)
    assert loaded.item_encoder.projections["text"].weight.shape == (8, 9)
    bias = saved[0].item_encoder.projections["text"].bias
    assert not torch.equal(loaded.item_encoder.projections["text"].bias, bias)
    loaded.recommend([["new-1"]])


def test_modalities_come_and_go(folder):
    audio = torch.randn(21, 2, 3)
    loaded = transfer(folder, other_features(image=None, audio=audio))
    assert loaded.sources == ("id", "text", "audio")
    report = loaded.transfer_report
    assert {n for n in report.fresh if "audio" not in n} == CATALOGUE
    assert {n for n in report.left if "image" not in n} <= CATALOGUE
    assert "backbones.by_source.audio.mix.weight" in report.fresh
    loaded.recommend([["new-1"]])


def test_a_content_only_adapter_is_small_and_says_what_it_needs(saved):
    model, path = saved
    names = set(load_file(path / "content" / "model.safetensors"))
    assert names == set(model.state_dict()) - CATALOGUE
    assert sorted(p.name for p in (path / "content").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    config = json.loads((path / "content" / "config.json").read_text())
    assert set(config["files"]) == {"model"}
    message = "it has no items, because it was saved for transfer to other catalogues"
    for features in (None, toy_features(item_ids=[f"item-{i}" for i in range(12)])):
        with pytest.raises(AdapterError, match=message):
            ODMTWrapper.from_pretrained(path / "content", MyModel(), features)


def test_built_in_backbones_are_made_again(tmp_path):
    toy_model(GRU4Rec(8)).save_pretrained(tmp_path / "a", content_only=True)
    loaded = ODMTWrapper.from_pretrained(
        tmp_path / "a", item_features=other_features(), transfer=True
    )
    assert isinstance(loaded.unwrap_backbone("text"), GRU4Rec)
    loaded.save_pretrained(tmp_path / "b")
    again = ODMTWrapper.from_pretrained(tmp_path / "b")
    assert again.recommend([["new-1"]]) == loaded.recommend([["new-1"]])


@pytest.mark.parametrize("fusion", ["odmt", "sum", "concat", "towers", "late"])
def test_every_fusion_transfers(fusion, tmp_path):
    model = toy_model(fusion=fusion)
    model.save_pretrained(tmp_path / "a", content_only=True)
    loaded = transfer(tmp_path / "a", other_features())
    fresh = [n for n in loaded.transfer_report.fresh if n != "item_log_probability"]
    assert all(loaded.state_dict()[name].shape[0] == 21 for name in fresh)
    loaded.recommend([["new-1"]])


def test_the_card_does_not_tell_of_the_other_catalogue(tmp_path):
    model = toy_model()
    model.card.dataset, model.card.results = "Films", {"test": {"ndcg@10": 0.5}}
    model.save_pretrained(tmp_path / "a")
    loaded = transfer(tmp_path / "a", other_features())
    assert loaded.card == CardDetails()
    assert not loaded.feature_provenance


class TestRefusals:
    def test_ids_alone(self, tmp_path):
        model = ODMTWrapper(MyModel(), vocabulary=["a", "b", "c"], config=ODMTConfig(fusion="id"))
        model.save_pretrained(tmp_path / "a")
        with pytest.raises(AdapterError, match="represents items only by their IDs, which have no"):
            transfer(tmp_path / "a", other_features())

    def test_another_backbone(self, folder):
        with pytest.raises(
            AdapterError, match="trained with MyModel of hidden size 8; you passed GRU"
        ):
            ODMTWrapper.from_pretrained(folder, GRU4Rec(8), other_features(), transfer=True)

    def test_arguments(self, folder):
        with pytest.raises(ValueError, match="transfer=True needs item_features= of the other"):
            ODMTWrapper.from_pretrained(folder, MyModel(), transfer=True)
        with pytest.raises(ValueError, match="freeze=True needs transfer=True"):
            ODMTWrapper.from_pretrained(folder, MyModel(), freeze=True)


def test_ids_start_from_the_learned_vector_of_unknown_ones(saved, folder):
    model, _ = saved
    loaded = transfer(folder, other_features())
    unknown = model.item_encoder.missing_tokens["id"]
    assert unknown.any()
    table = loaded.item_encoder.id_embedding.weight
    assert table.requires_grad
    assert torch.equal(table[1:], unknown.expand(20, -1))
    assert not table[0].any()
    before = loaded.recommend([["new-3"]], k=5)
    loaded.set_item_popularity(torch.ones(21))  # no item is unseen any more
    assert loaded.recommend([["new-3"]], k=5) == before


def test_ids_are_drawn_where_nothing_was_learned_of_unknown_ones(tmp_path):
    toy_model(num_layers=1).save_pretrained(tmp_path)
    table = transfer(tmp_path, other_features()).item_encoder.id_embedding.weight
    assert len(table[1:].unique(dim=0)) == 20


def test_training_settings_replace_the_saved_ones(folder):
    loaded = transfer(folder, other_features(), training_settings={"id_dropout": 0.0})
    unchanged = transfer(folder, other_features())
    assert unchanged.item_encoder.id_dropout == unchanged.config.id_dropout == 0.1
    assert loaded.config == dataclasses.replace(unchanged.config, id_dropout=0.0)
    assert loaded.item_encoder.id_dropout == 0.0
    for name, value in unchanged.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name


def test_training_settings_are_for_the_same_items_too(saved):
    _, path = saved
    loaded = ODMTWrapper.from_pretrained(
        path / "a", MyModel(), training_settings={"distillation_weight": 0.0}
    )
    assert loaded.config.distillation_weight == 0.0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"num_layers": 3}, "'num_layers'.*cannot be changed for existing weights"),
        ({"fusion": "id"}, "'fusion'"),
        ({"id_dorpout": 0.0}, "'id_dorpout'.*'id_dropout'"),
        ({"id_dropout": 1.5}, "id_dropout=1.5 must be at least 0 and below 1"),
    ],
)
def test_other_settings_are_refused_at_the_door(tmp_path, settings, said):
    with pytest.raises(ValueError, match=said):  # before looking for an adapter
        transfer(tmp_path / "none", other_features(), training_settings=settings)
