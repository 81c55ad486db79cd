"""Opening a damaged store gives features or a clear error, in bounded memory and time."""

import json
import os
import shutil
import time

import pytest
import torch
from mutated_adapters import peak_memory
from mutated_stores import make_store, open_mutated, use
from programs import TESTS, run_python
from safetensors.torch import load_file, save_file

from odmt_sdk import ItemFeatures


def check(found, count):
    assert found["opened"] + found["refused"] == count
    assert found["refused"] > found["opened"] > 0
    assert found["slowest, s"] < 2


def test_damaged_stores(tmp_path):
    before = peak_memory()
    found = open_mutated(200, 1, tmp_path)
    check(found, 200)
    assert found["peak memory, MB"] - before < 200


@pytest.mark.slow
def test_ten_thousand_damaged_stores():
    found = json.loads(run_python(TESTS / "mutated_stores.py", "10000"))
    check(found, 10_000)
    assert found["peak memory, MB"] - found["before, MB"] < 200


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "store"
    make_store(folder)
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "store")
    use(ItemFeatures.open(tmp_path / "store"))
    return tmp_path / "store"


def change_manifest(folder, change):
    content = json.loads((folder / "features.json").read_text())
    change(content)
    (folder / "features.json").write_text(json.dumps(content))


def change_tensors(path, change):
    found = load_file(path)
    save_file(change(found) or found, path, metadata={"items": "23", "problems": "[]"})


def giant_items(content):
    content["segments"][0]["items"] = 1 << 39


def giant_shards(content):
    content["segments"] = [{"items": 1 << 39, "shard_items": {"sound": 1, "smell": 1}}]


def giant_width(content):
    content["modalities"]["sound"]["width"] = 1 << 23


def giant_tokens(content):
    content["modalities"]["sound"]["tokens"] = 1 << 23


def other_dtype(content):
    content["dtype"] = "float32"


def evil_name(content):
    content["modalities"]["../../etc"] = content["modalities"].pop("sound")


@pytest.mark.parametrize(
    "change", [giant_items, giant_shards, giant_width, giant_tokens, other_dtype, evil_name]
)
def test_settings_that_lie(folder, change):
    change_manifest(folder, change)
    start = time.perf_counter()
    with pytest.raises(ValueError, match="damaged|were mixed|cannot be read"):
        use(ItemFeatures.open(folder))
    assert time.perf_counter() - start < 2


def test_an_index_that_promises_more_than_the_files_have(folder):
    path = folder / "sound" / "index-23-1.safetensors"

    def longer(found):
        found["offsets"][20:] += 1 << 23

    change_tensors(path, longer)

    def agree(content):
        offsets = load_file(path)["offsets"]
        content["modalities"]["sound"]["all_tokens"] = int(offsets[-1])
        content["modalities"]["sound"]["tokens"] = int(offsets.diff().max())

    change_manifest(folder, agree)
    features = ItemFeatures.open(folder)
    with pytest.raises(ValueError, match="but the index says"):
        features.gather(torch.arange(24))


@pytest.mark.parametrize("name", ["features.json", "report.json", "sound/0000-00000.safetensors"])
@pytest.mark.parametrize("kind", ["folder", "pipe", "link", "deep", "empty"])
def test_something_else_under_the_name_of_a_file(folder, name, kind):
    path = folder / name
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to("/etc/hostname")
    elif kind == "deep":
        path.write_bytes(b"[" * 100_000)
    else:
        path.touch()
    with pytest.raises(ValueError, match="damaged|cannot be read|is not a regular file|is a link"):
        use(ItemFeatures.open(folder))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("items-23", lambda found: {**found, "ends": found["ends"].flip(0).contiguous()}),
        ("items-23", lambda found: {**found, "ends": found["ends"] + 100}),
        ("items-23", lambda found: {**found, "rows": found["rows"] + 5}),
        ("items-23", lambda found: {**found, "is_integer": ~found["is_integer"]}),
        ("items-23", lambda found: {n: t[:5].contiguous() for n, t in found.items()}),
        ("sound/index-23-1", lambda found: {**found, "offsets": found["offsets"].flip(0)}),
        ("sound/index-23-1", lambda found: {**found, "offsets": found["offsets"].float()}),
        ("sound/index-23-1", lambda found: {**found, "sums": found["sums"][:, :2].contiguous()}),
        ("sound/0000-00000", lambda found: {**found, "tokens": found["tokens"][:3].contiguous()}),
        ("sound/0000-00000", lambda found: {**found, "tokens": found["tokens"].float()}),
        ("moments", lambda found: {**found, "sound": found["sound"] * 0}),
        ("moments", lambda found: {**found, "sound": found["sound"][0]}),
    ],
)
def test_tensors_that_do_not_belong_there(folder, name, change):
    change_tensors(folder / f"{name}.safetensors", change)
    with pytest.raises(ValueError, match="damaged|cannot be read"):
        use(ItemFeatures.open(folder))
