"""Adapters of every released format load, and unknown formats are rejected."""

import json
import shutil
from pathlib import Path

import pytest
from toys import toy_features

from odmt_sdk import AdapterError, ODMTConfig, ODMTWrapper, SASRec
from odmt_sdk.saving.layout import FORMAT_VERSION
from odmt_sdk.saving.migrations import RENAMES, Renames, migrate, renamed

FORMATS = Path(__file__).parent / "formats"
ITEM_IDS = [*(f"item-{i}" for i in range(11)), 12]


@pytest.mark.parametrize("version", range(1, FORMAT_VERSION + 1))
def test_an_adapter_of_every_format_loads(version, tmp_path):
    folder = FORMATS / str(version)
    config = json.loads((folder / "config.json").read_text())
    expected = json.loads((folder / "expected.json").read_text())
    assert config["format_version"] == version
    backbone = SASRec(8, max_seq_length=6, num_layers=1)
    for features in (None, toy_features(item_ids=ITEM_IDS)):
        loaded = ODMTWrapper.from_pretrained(folder, backbone, features)
        found = loaded.recommend([["item-3", "item-1"], ["item-4", 12]], k=4)
        assert found.item_ids == expected["item_ids"]
        assert found.scores == [pytest.approx(scores) for scores in expected["scores"]]
    loaded.save_pretrained(tmp_path / "now")
    now = json.loads((tmp_path / "now" / "config.json").read_text())
    assert now["format_version"] == FORMAT_VERSION


def test_every_older_format_has_its_renames():
    assert set(RENAMES) == set(range(1, FORMAT_VERSION))


def test_saving_over_an_older_format_replaces_it(tmp_path):
    shutil.copytree(FORMATS / "1", tmp_path / "a")
    model = ODMTWrapper.from_pretrained(tmp_path / "a", SASRec(8, max_seq_length=6, num_layers=1))
    model.save_pretrained(tmp_path / "a")
    loaded = ODMTWrapper.from_pretrained(tmp_path / "a")  # the current release can create SASRec
    assert loaded.recommend([["item-3"]]) == model.recommend([["item-3"]])


@pytest.mark.parametrize("version", [0, -1, FORMAT_VERSION + 1, 10**20, "1", 1.0, True, None, []])
def test_unknown_formats_are_refused(version):
    with pytest.raises(AdapterError, match=f"reads formats 1 to {FORMAT_VERSION}: "):
        migrate({"format_version": version}, where="here")


def test_renames_of_several_versions_add_up(monkeypatch):
    steps = {
        1: Renames(
            keys={"a": "b"},
            settings={"heads": "num_heads"},
            weights={"encoder": "items", "x.y": "x.z"},
            implied={"files.model": ["m"]},
        ),
        2: Renames(keys={"b": "c.d"}, weights={"items": "item_encoder"}),
    }
    monkeypatch.setattr("odmt_sdk.saving.migrations.RENAMES", steps)
    monkeypatch.setattr("odmt_sdk.saving.migrations.FORMAT_VERSION", 3)
    monkeypatch.setattr("odmt_sdk.saving.migrations.ABSENT", {"later": "off"})
    old = {"format_version": 1, "a": 5, "model": {"heads": 2}}
    config, weights = migrate(old, where="here")
    assert config == {
        "format_version": 3,
        "c": {"d": 5},
        "model": {"later": "off", "num_heads": 2},
        "files": {"model": ["m"]},
    }
    assert old == {"format_version": 1, "a": 5, "model": {"heads": 2}}
    assert renamed("encoder.blocks.0.weight", weights) == "item_encoder.blocks.0.weight"
    assert renamed("x.y", weights) == "x.z"
    assert renamed("encoders.weight", weights) == "encoders.weight"


def test_adapters_from_before_a_setting_keep_their_numbers(tmp_path):
    loaded = ODMTWrapper.from_pretrained(FORMATS / str(FORMAT_VERSION), backbone=None)
    assert not loaded.config.scale_inputs
    assert ODMTConfig().scale_inputs
    for scale_inputs in (True, False):
        model = ODMTWrapper(
            SASRec(8, max_seq_length=6, num_layers=1),
            toy_features(item_ids=ITEM_IDS),
            ODMTConfig(scale_inputs=scale_inputs),
        )
        model.save_pretrained(tmp_path / "a")
        again = ODMTWrapper.from_pretrained(tmp_path / "a")
        assert again.config.scale_inputs is scale_inputs
        assert again.recommend([["item-3", 12]]) == model.recommend([["item-3", 12]])
