"""Pretrained adapters of the package: listed and loaded by name, without ambiguity."""

import shutil
from pathlib import Path

import pytest
import torch

from odmt_sdk import AdapterError, GRU4Rec, ItemFeatures, ODMTWrapper, shipped_adapters
from odmt_sdk.saving import shipped
from odmt_sdk.saving.shipped import ShippedAdapters


@pytest.fixture
def films(tmp_path, monkeypatch):
    """Replace the adapters of the package by a small one, "shipped:films"."""
    features = ItemFeatures.from_tensors(
        item_ids=[f"film-{i}" for i in range(1, 9)],
        text=torch.randn(9, 2, 6),
        image=torch.randn(9, 1, 4),
    )
    features.provenance = {"text": {"encoder": "me/text"}, "image": {"encoder": "me/image"}}
    model = ODMTWrapper(GRU4Rec(8), features).eval()
    model.card.title = "Recommends films"
    model.card.results["test"] = {"hit_rate@10": 0.25, "ndcg@10": 0.125}
    model.save_pretrained(tmp_path / "package" / "films")
    model.save_pretrained(tmp_path / "package" / "films-content", content_only=True)
    (tmp_path / "package" / "notes").mkdir()  # not an adapter, so not listed
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "package")
    return model


def test_list_tells_what_each_is(films):
    listed = {adapter.name: adapter for adapter in shipped_adapters()}
    assert list(listed) == ["shipped:films", "shipped:films-content"]
    adapter = listed["shipped:films"]
    assert (adapter.purpose, adapter.backbone, adapter.num_items) == (
        "Recommends films",
        "GRU4Rec",
        8,
    )
    assert adapter.encoders == {"text": "me/text", "image": "me/image"}
    assert adapter.results["test"] == {"hit_rate@10": 0.25, "ndcg@10": 0.125}
    sizes = [path.stat().st_size for path in adapter.folder.iterdir()]
    assert adapter.num_bytes == sum(sizes) > 1000
    assert listed["shipped:films-content"].num_items == 0


def test_printed_list_is_a_table(films):
    header, _, row, content = str(shipped_adapters()).splitlines()
    assert header.split("|")[1].strip() == "name"
    assert [cell.strip() for cell in row.strip("|").split("|")][:6] == [
        "shipped:films",
        "Recommends films",
        "GRU4Rec",
        "text",
        "image",
        "8",
    ]
    assert row.strip("| ").endswith("0.2500 |  0.1250")
    assert "none" in content
    assert isinstance(shipped_adapters(), ShippedAdapters)


def test_loads_by_name_and_recommends_the_same(films):
    loaded = ODMTWrapper.from_pretrained("shipped:films")
    history = [["film-3", "film-5"]]
    assert loaded.recommend(history, k=4) == films.recommend(history, k=4)


def test_content_only_starts_another_catalogue(films):
    others = ItemFeatures.from_tensors(
        item_ids=["a", "b", "c"], text=torch.randn(4, 2, 6), image=torch.randn(4, 1, 4)
    )
    loaded = ODMTWrapper.from_pretrained(
        "shipped:films-content", item_features=others, transfer=True
    )
    assert loaded.recommend([["a"]], k=2).item_ids[0] != []
    with pytest.raises(AdapterError, match="it has no items, because it was saved for transfer"):
        ODMTWrapper.from_pretrained("shipped:films-content")


def test_local_folder_of_that_name_takes_nothing_over(films, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    other = ODMTWrapper(GRU4Rec(4), vocabulary=["mug", "cup"])
    other.save_pretrained(tmp_path / "shipped:films")
    assert ODMTWrapper.from_pretrained("shipped:films").num_items == 8
    assert ODMTWrapper.from_pretrained("./shipped:films").num_items == 2
    assert ODMTWrapper.from_pretrained(Path("shipped:films")).num_items == 2


def test_unknown_name_lists_the_known_ones(films):
    with pytest.raises(
        AdapterError,
        match=r"'shipped:books' is not among the adapters that come with the package: choose one "
        r"of \['shipped:films', 'shipped:films-content'\]",
    ):
        ODMTWrapper.from_pretrained("shipped:books")


@pytest.mark.parametrize("name", ["shipped:../films", "shipped:", "shipped:/tmp", "shipped:."])
def test_name_leads_nowhere_else(films, name):
    with pytest.raises(AdapterError, match="is not among the adapters"):
        ODMTWrapper.from_pretrained(name)


def test_revision_is_refused(films):
    with pytest.raises(AdapterError, match="comes with the package, but revision='v1' is only for"):
        ODMTWrapper.from_pretrained("shipped:films", revision="v1")


def test_hub_cannot_have_such_a_name():
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    with pytest.raises(HFValidationError):
        validate_repo_id(f"{shipped.PREFIX}films")


def test_damaged_one_is_said_to_be_damaged(films, tmp_path):
    shutil.copy(
        tmp_path / "package" / "films-content" / "model.safetensors",
        tmp_path / "package" / "films" / "model.safetensors",
    )
    with pytest.raises(AdapterError, match="damaged"):
        ODMTWrapper.from_pretrained("shipped:films")
