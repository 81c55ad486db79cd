"""Exported user encoders recommend what the model does."""

import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from toys import MyModel, toy_model

from odmt_sdk import (
    HSTU,
    GRU4Rec,
    Mamba2,
    NextItNet,
    ODMTConfig,
    ODMTWrapper,
    SASRec,
    export_user_encoder,
)
from odmt_sdk.export.exported import ExportedUserEncoder

HISTORIES = [
    ["item-3"],
    ["item-1", "item-2"],
    [f"item-{i}" for i in (5, 7, 1, 2, 8, 9, 3)],
    ["item-0"] * 2 + ["item-11"],
]


@pytest.fixture
def model():
    return toy_model(SASRec(8, max_seq_length=5), max_seq_length=5).eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A model and its export, which takes seconds; not to be changed."""
    torch.manual_seed(0)
    model = toy_model(SASRec(8, max_seq_length=5), max_seq_length=5).eval()
    folder = tmp_path_factory.mktemp("exported") / "out"
    encoder = export_user_encoder(model, folder, format="torch_export")
    return SimpleNamespace(model=model, folder=folder, encoder=encoder)


def needs_onnx():
    for library in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(library)


FORMATS = ["torch_export", "onnx"]


@pytest.mark.parametrize("format", FORMATS)
def test_the_same_recommendations(exported, tmp_path, format):
    model, encoder = exported.model, exported.encoder
    if format == "onnx":
        needs_onnx()
        encoder = export_user_encoder(model, tmp_path / "out", format=format)
    assert encoder.settings["any_length"]
    for histories in (HISTORIES, HISTORIES[:1], HISTORIES[2:3], HISTORIES * 70):
        expected = model.encode_histories(histories).numpy()
        np.testing.assert_allclose(encoder.encode(histories), expected, rtol=1e-3, atol=1e-4)
        items, scores = encoder.recommend(histories, k=4)
        found = model.recommend(histories, k=4)
        assert items == found.item_ids
        for mine, theirs in zip(scores, found.scores, strict=True):
            assert mine == pytest.approx(theirs, rel=1e-3, abs=1e-4)
    everything = encoder.recommend(HISTORIES, k=99)[0]  # the whole catalogue, less what was seen
    assert everything == model.recommend(HISTORIES, k=99).item_ids
    assert encoder.recommend(HISTORIES, k=4, exclude_seen=False)[0] == (
        model.recommend(HISTORIES, k=4, exclude_seen=False).item_ids
    )
    assert encoder.encode([]).shape == (0, 24)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", [MyModel, pytest.param(SASRec, marks=pytest.mark.slow)])
def test_the_items_inside(tmp_path, kind, format):
    if format == "onnx":
        needs_onnx()
    model = toy_model(kind(8), max_seq_length=5).eval()
    encoder = export_user_encoder(model, tmp_path / "out", format=format, top_k=6)
    items, _ = encoder.recommend(HISTORIES, k=6)
    assert items == model.recommend(HISTORIES, k=6).item_ids
    assert encoder.recommend(HISTORIES, k=2, exclude_seen=False)[0] == (
        model.recommend(HISTORIES, k=2, exclude_seen=False).item_ids
    )
    with pytest.raises(ValueError, match="k=7 must be at least 1, at most 6"):
        encoder.recommend(HISTORIES, k=7)
    with pytest.raises(ValueError, match="returns items instead of query vectors"):
        encoder.encode(HISTORIES)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", [NextItNet, HSTU, GRU4Rec, Mamba2, MyModel])
@pytest.mark.slow
def test_built_in_backbones(tmp_path, kind, format):
    if format == "onnx":
        needs_onnx()
    model = toy_model(kind(8), max_seq_length=5).eval()
    encoder = export_user_encoder(model, tmp_path / "out", format=format)
    items, _ = encoder.recommend(HISTORIES, k=4)
    assert items == model.recommend(HISTORIES, k=4).item_ids


class Undecided(MyModel):
    """Looks at the values that it reads, which no graph can."""

    def forward(self, inputs_embeds, attention_mask):
        if inputs_embeds.sum() > 0:
            return super().forward(inputs_embeds, attention_mask)
        return super().forward(inputs_embeds, attention_mask) * 2


def test_a_backbone_that_cannot_be_exported(tmp_path):
    model = toy_model(Undecided(), max_seq_length=5)
    with pytest.raises(ValueError, match=r"the backbone .*Undecided.* cannot be exported"):
        export_user_encoder(model, tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="contains no export"):
        ExportedUserEncoder.open(tmp_path / "out")


class ByBatch(MyModel):
    """Traces well, and its result depends on a shape that was only met while tracing."""

    def forward(self, inputs_embeds, attention_mask):
        hidden = super().forward(inputs_embeds, attention_mask)
        return hidden * (3.0 if torch.compiler.is_compiling() else 1.0)


def test_a_graph_that_differs_is_refused(tmp_path):
    with pytest.raises(ValueError, match="cannot be exported: .*other numbers than the model"):
        export_user_encoder(toy_model(ByBatch(), max_seq_length=5), tmp_path / "out")


def test_the_model_is_left_as_it_was(tmp_path):
    model = toy_model(MyModel(), max_seq_length=5).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    export_user_encoder(model, tmp_path / "out")
    assert model.training
    assert all(module.training for module in model.modules())
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


def test_another_vocabulary_or_catalogue_is_refused(exported):
    model, folder = exported.model, exported.folder
    same = ExportedUserEncoder.open(
        folder, vocabulary=model.vocabulary, fingerprint=model.catalogue_fingerprint()
    )
    assert len(same) == 12
    others = list(model.vocabulary)[::-1]
    with pytest.raises(ValueError, match="another vocabulary: .*row 1 is 'item-0', not 'item-11'"):
        ExportedUserEncoder.open(folder, vocabulary=others)
    with pytest.raises(ValueError, match="12 items, expected 11"):
        ExportedUserEncoder.open(folder, vocabulary=list(model.vocabulary)[:-1])
    with pytest.raises(ValueError, match="has other item vectors"):
        ExportedUserEncoder.open(folder, fingerprint=toy_model().catalogue_fingerprint())


def test_an_index_beside_it(exported, tmp_path):
    pytest.importorskip("faiss")
    model, encoder = exported.model, exported.encoder
    index = model.export_index(tmp_path / "index")
    assert encoder.recommend(HISTORIES, k=4, index=index)[0] == (
        model.recommend(HISTORIES, k=4).item_ids
    )
    index.settings["fingerprint"] = "another"
    with pytest.raises(ValueError, match="have different item vectors"):
        encoder.recommend(HISTORIES, index=index)


def test_damage_is_noticed(exported, tmp_path):
    folder = shutil.copytree(exported.folder, tmp_path / "out")
    settings = json.loads((folder / "export.json").read_text())
    (folder / "export.json").write_text(json.dumps(settings | {"format": 7}))
    with pytest.raises(ValueError, match="does not describe an export of format 1"):
        ExportedUserEncoder.open(folder)
    (folder / "export.json").write_text(json.dumps(settings))
    (folder / "items.json").write_text('["item-0"]')
    with pytest.raises(ValueError, match="do not belong together"):
        ExportedUserEncoder.open(folder)
    export_user_encoder(toy_model(MyModel(), max_seq_length=5), folder)  # replaces it
    with (folder / "user_encoder.pt2").open("ab") as file:
        file.write(b"more")
    with pytest.raises(ValueError, match="do not belong together"):
        ExportedUserEncoder.open(folder)


def test_bad_arguments(model, tmp_path):
    with pytest.raises(ValueError, match="format='pickle' must be one of"):
        export_user_encoder(model, tmp_path / "out", format="pickle")
    with pytest.raises(TypeError, match="not an ODMTWrapper"):
        export_user_encoder(nn.Linear(2, 2), tmp_path / "out")
    with pytest.raises(ValueError, match="top_k=0 must be"):
        export_user_encoder(model, tmp_path / "out", top_k=0)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").touch()
    with pytest.raises(ValueError, match="contains something other than an export"):
        export_user_encoder(model, tmp_path / "mine")
    waiting = ODMTWrapper(SASRec(8))
    with pytest.raises(ValueError, match="has no items to encode"):
        export_user_encoder(waiting, tmp_path / "out")
    tuples = ODMTWrapper(SASRec(8), vocabulary=[("a", 1), ("b", 2)], config=ODMTConfig())
    with pytest.raises(TypeError, match="neither a string nor an integer"):
        export_user_encoder(tuples, tmp_path / "out")


def test_bad_histories(exported):
    model, encoder = exported.model, exported.encoder
    with pytest.raises(ValueError, match="history 1 has 'mug', which is not an item"):
        encoder.recommend([["item-1"], ["mug"]])
    with pytest.raises(ValueError, match="history 0 is empty"):
        encoder.recommend([["mug"]], unknown="skip")
    with pytest.raises(ValueError, match="history 0 is 'item-1'"):
        encoder.recommend(["item-1"])
    with pytest.raises(ValueError, match="k=0 must be at least 1"):
        encoder.recommend([["item-1"]], k=0)
    assert encoder.recommend([["mug", "item-1"]], k=2, unknown="skip")[0] == (
        model.recommend([["item-1"]], k=2).item_ids
    )


def test_ties_come_in_the_order_of_the_catalogue(tmp_path):
    model = toy_model(MyModel(), max_seq_length=5).eval()
    encoder = export_user_encoder(model, tmp_path / "out")
    encoder.item_vectors = np.ones_like(encoder.item_vectors)
    expected = [f"item-{i}" for i in range(12) if i != 2][:5]
    assert encoder.recommend([["item-2"]], k=5)[0] == [expected]


def test_a_missing_library_names_the_extra(model, tmp_path, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name)
    )
    with pytest.raises(ImportError, match=r"odmt-sdk\[onnx\]"):
        export_user_encoder(model, tmp_path / "out", format="onnx")


def test_onnx_runs_without_torch(model, tmp_path):
    needs_onnx()
    export_user_encoder(model, tmp_path / "out", format="onnx")
    program = f"""
import sys
sys.modules["torch"] = None
from odmt_sdk.export.exported import ExportedUserEncoder
print(ExportedUserEncoder.open({str(tmp_path / "out")!r}).recommend([["item-3"]], k=3)[0])
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert found.stdout.strip() == str(model.recommend([["item-3"]], k=3).item_ids), found.stderr


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_a_thousand_histories_of_a_shipped_adapter(tmp_path, format):
    if format == "onnx":
        needs_onnx()
    model = ODMTWrapper.from_pretrained("shipped:films-sasrec")
    ids, rng = list(model.vocabulary), np.random.default_rng(0)
    histories = [
        [ids[row] for row in rng.choice(len(ids), rng.integers(1, 120))] for _ in range(1000)
    ]
    encoder = export_user_encoder(model, tmp_path / "out", format=format)
    assert encoder.recommend(histories, k=10)[0] == model.recommend(histories, k=10).item_ids
