"""Saving and loading adapters, and errors for incomplete or damaged folders."""

import json
import os

import pytest
import torch
from programs import run_python
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from toys import MyModel, toy_features, toy_model

from odmt_sdk import AdapterError, ODMTConfig, ODMTWrapper, SASRec

ITEM_IDS = [f"item-{i}" for i in range(12)]
HISTORIES = [["item-3", "item-1"], ["item-4"]]


@pytest.fixture
def saved(tmp_path):
    model = toy_model(num_heads=4, max_seq_length=7).set_item_popularity(torch.arange(13.0))
    model.save_pretrained(tmp_path / "adapter")
    return model, tmp_path / "adapter"


def test_the_folder_holds_json_and_safetensors_only(saved):
    _, path = saved
    names = {file.name for file in path.iterdir()}
    assert names == {
        "config.json",
        "items.json",
        "model.safetensors",
        "item_embeddings.safetensors",
        "README.md",
    }
    config = json.loads((path / "config.json").read_text())
    assert config["library_name"] == "odmt-sdk"
    assert config["model"]["num_heads"] == 4
    assert config["model"]["hidden_size"] == 8
    assert config["modalities"] == {"text": 6, "image": 5}


def test_recommendations_are_the_same_without_features(saved):
    model, path = saved
    loaded = ODMTWrapper.from_pretrained(path, backbone=MyModel())
    assert loaded.recommend(HISTORIES, k=5) == model.eval().recommend(HISTORIES, k=5)
    assert loaded.max_seq_length == 7
    assert not loaded.training
    with pytest.raises(ValueError, match=r"features of \['text', 'image'\] are not loaded"):
        loaded(torch.tensor([[1, 2]]))


def test_recommendations_are_the_same_in_a_new_process(saved):
    model, path = saved
    script = (
        "import json, sys; from toys import MyModel; from odmt_sdk import ODMTWrapper\n"
        f"model = ODMTWrapper.from_pretrained({str(path)!r}, backbone=MyModel())\n"
        f"print(json.dumps(model.recommend({HISTORIES!r}, k=5)))"
    )
    item_ids, scores = json.loads(run_python("-c", script).splitlines()[-1])
    expected = model.eval().recommend(HISTORIES, k=5)
    assert item_ids == expected.item_ids
    assert scores == expected.scores


def test_loading_with_features_trains_on(saved):
    model, path = saved
    shuffled = toy_features(item_ids=ITEM_IDS).select(ITEM_IDS[::-1])
    loaded = ODMTWrapper.from_pretrained(path, backbone=MyModel(), item_features=shuffled)
    assert loaded.vocabulary == model.vocabulary
    item_ids = torch.tensor([[1, 2, 3], [4, 5, 6]])
    torch.testing.assert_close(loaded(item_ids).loss, model.eval()(item_ids).loss)
    found, expected = (m.recommend(HISTORIES, k=5) for m in (loaded, model))
    assert found.item_ids == expected.item_ids


def test_every_weight_comes_back(saved):
    model, path = saved
    loaded = ODMTWrapper.from_pretrained(path, backbone=MyModel()).state_dict()
    assert list(loaded) == list(model.state_dict())
    for name, value in model.state_dict().items():
        assert torch.equal(value, loaded[name]), name


def test_integer_ids_and_shared_backbone(tmp_path):
    config = ODMTConfig(share_backbone=True)
    model = ODMTWrapper(SASRec(8), toy_features(item_ids=range(100, 112)), config)
    model.save_pretrained(tmp_path / "a")
    loaded = ODMTWrapper.from_pretrained(tmp_path / "a", backbone=SASRec(8))
    assert loaded.recommend([[101]], k=3) == model.eval().recommend([[101]], k=3)


def test_tied_weights_are_saved(tmp_path):
    class Tied(MyModel):
        def __init__(self):
            super().__init__()
            self.again = torch.nn.Linear(8, 8)
            self.again.weight = self.mix.weight

    model = toy_model(Tied())
    model.save_pretrained(tmp_path / "a")
    loaded = ODMTWrapper.from_pretrained(tmp_path / "a", backbone=Tied())
    assert loaded.recommend(HISTORIES, k=3) == model.eval().recommend(HISTORIES, k=3)
    tower = loaded.backbones.by_source["id"]
    assert tower.again.weight is tower.mix.weight


def test_saving_again_replaces_the_adapter_and_leaves_other_files(saved):
    model, path = saved
    (path / "notes.txt").write_text("mine")
    with torch.no_grad():
        model.item_encoder.id_embedding.weight += 1
    model.save_pretrained(path)
    loaded = ODMTWrapper.from_pretrained(path, backbone=MyModel())
    assert torch.equal(
        loaded.item_encoder.id_embedding.weight, model.item_encoder.id_embedding.weight
    )
    assert (path / "notes.txt").read_text() == "mine"


class TestWhatCannotBeSaved:
    def test_a_model_without_items(self, tmp_path):
        with pytest.raises(AdapterError, match="a model without items cannot be saved"):
            ODMTWrapper(MyModel()).save_pretrained(tmp_path / "a")

    def test_ids_that_json_cannot_hold(self, tmp_path):
        model = ODMTWrapper(MyModel(), vocabulary=[("a", 1), ("b", 2)])
        with pytest.raises(AdapterError, match=r"item id \('a', 1\) is a tuple; only strings and"):
            model.save_pretrained(tmp_path / "a")
        assert not list(tmp_path.iterdir())

    def test_over_something_else(self, tmp_path):
        model = toy_model()
        (tmp_path / "bert").mkdir()
        (tmp_path / "bert" / "config.json").write_text('{"model_type": "bert"}')
        with pytest.raises(AdapterError, match="is not an adapter of odmt-sdk"):
            model.save_pretrained(tmp_path / "bert")
        (tmp_path / "file").write_text("")
        with pytest.raises(AdapterError, match="is a file, not an adapter folder"):
            model.save_pretrained(tmp_path / "file")


class TestDamagedFolders:
    def load(self, path, **arguments):
        return ODMTWrapper.from_pretrained(path, **{"backbone": MyModel(), **arguments})

    @pytest.mark.parametrize("name", ["nothing", ""])
    def test_no_adapter_there(self, tmp_path, name):
        with pytest.raises(AdapterError, match="is not a saved adapter: it has no config.json"):
            self.load(tmp_path / name)

    @pytest.mark.parametrize("name", ["items.json", "model.safetensors", "config.json"])
    @pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[1, 2]", b'{"a": 1}'])
    def test_damaged_files(self, saved, name, content):
        _, path = saved
        (path / name).write_bytes(content)
        with pytest.raises(AdapterError):
            self.load(path)

    @pytest.mark.parametrize(
        "name", ["items.json", "model.safetensors", "item_embeddings.safetensors"]
    )
    def test_missing_files(self, saved, name):
        _, path = saved
        (path / name).unlink()
        with pytest.raises(AdapterError, match="is damaged"):
            self.load(path)

    def test_files_of_two_saves(self, saved):
        model, path = saved
        model.save_pretrained(path.parent / "other")
        os.replace(path.parent / "other" / "model.safetensors", path / "model.safetensors")
        with pytest.raises(AdapterError, match="come from different saves"):
            self.load(path)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (
                {"format_version": 99},
                "has format 99, but this version .* reads formats 1 to 2: upgrade",
            ),
            ({"model": {"heads": 3}}, r"unknown settings \['heads'\]"),
            ({"model": {"num_heads": "two"}}, "cannot load the adapter"),
            ({"modalities": 3}, "cannot load the adapter"),
            ({"modalities": {"text": "wide"}}, "cannot load the adapter"),
        ],
    )
    def test_wrong_settings(self, saved, change, message):
        _, path = saved
        config = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(AdapterError, match=message):
            self.load(path)

    def test_another_backbone(self, saved):
        _, path = saved
        message = (
            "this adapter was trained with MyModel of hidden size 8; you passed SASRec of hidden "
            "size 8. Build it as it was for training. not in the adapter: backbones"
        )
        with pytest.raises(AdapterError, match=message):
            self.load(path, backbone=SASRec(8))
        with pytest.raises(
            AdapterError,
            match="trained with MyModel of hidden size 8; you passed MyModel of hidden size 16",
        ):
            self.load(path, backbone=MyModel(16))

    def test_missing_and_unexpected_weights(self, saved):
        _, path = saved
        with safe_open(path / "model.safetensors", framework="pt") as file:
            metadata = file.metadata()
        weights = load_file(path / "model.safetensors")
        weights["stranger"] = weights.pop("item_encoder.unseen")
        save_file(weights, path / "model.safetensors", metadata=metadata)
        message = "not in the adapter: item_encoder.unseen. not in the model: stranger"
        with pytest.raises(AdapterError, match=message):
            self.load(path)

    def test_features_of_another_encoder(self, saved):
        _, path = saved
        features = toy_features(item_ids=ITEM_IDS)
        wider = features.add_modality("audio", torch.randn(13, 2, 4))
        with pytest.raises(AdapterError, match=r"reads features {'text': 6, 'image': 5}"):
            self.load(path, item_features=wider)

    def test_features_of_other_items(self, saved):
        _, path = saved
        with pytest.raises(AdapterError, match="item id 'item-0' is not among the 12 items"):
            self.load(path, item_features=toy_features())
