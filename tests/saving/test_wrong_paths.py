"""Arguments of `from_pretrained` that are not adapters."""

import json
import shutil
from pathlib import Path

import pytest
from toys import MyModel, toy_model

from odmt_sdk import AdapterError, ODMTWrapper


@pytest.fixture
def adapter(tmp_path):
    return toy_model().save_pretrained(tmp_path / "a")


def refused(path, message):
    with pytest.raises(AdapterError, match=message):
        ODMTWrapper.from_pretrained(path, MyModel())


@pytest.mark.parametrize("kind", [str, Path])
def test_a_file_of_an_adapter(adapter, kind):
    refused(kind(adapter / "model.safetensors"), f"is a file; an adapter is a folder: .*{adapter}")


def test_any_other_file(tmp_path):
    (tmp_path / "weights.bin").write_text("")
    refused(
        tmp_path / "weights.bin", "is a file; an adapter is a folder: pass the folder of model.save"
    )


@pytest.mark.parametrize("kind", [str, Path])
def test_a_store_of_features(tmp_path, kind):
    (tmp_path / "features.json").write_text("{}")
    refused(kind(tmp_path), "It contains item features: pass item_features=ItemFeatures.open")


def test_a_model_of_transformers(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    refused(tmp_path, "looks like a transformers model: load it with transformers and wrap")


def test_an_empty_folder(tmp_path):
    refused(tmp_path, "it has no config.json; it is empty")


def test_a_folder_of_adapters(adapter):
    refused(adapter.parent, r"Its subfolders \['a'\] are adapters: pass .*, or subfolder='a'")
    ODMTWrapper.from_pretrained(adapter.parent, MyModel(), subfolder="a")


@pytest.mark.parametrize(
    "path", ["~nobody-of-this-name/a", "a\0b", "", "x" * 5000, "a//b", "a/b/c"]
)
def test_names_of_nothing(path):
    refused(path, "is not a saved adapter|File name too long")


@pytest.mark.parametrize("path", [None, 3, b"a", MyModel()])
def test_no_names(path):
    refused(path, "path= must be a folder or the name of a repository, got a ")


def test_a_tilde_means_the_same_folder_to_save_and_to_load(adapter, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    saved = toy_model().save_pretrained("~/b")
    assert saved == tmp_path / "b"
    ODMTWrapper.from_pretrained("~/b", MyModel())
    shutil.rmtree(saved)
