"""The wheel: its content, and that it works offline and on its own."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from odmt_sdk import shipped_adapters
from odmt_sdk.saving.shipped import FOLDER

ROOT = Path(__file__).parents[1]
MAX_BYTES = 20e6
# what the card of an adapter has to cite, and the terms of its data
TERMS = {
    "films": ("https://doi.org/10.1145/2827872", "not for commercial use"),
    "wines": ("https://doi.org/10.3390/bdcc7010020", "license: cc0-1.0"),
}

# Runs in a new interpreter with only the unpacked wheel and no network.
USE = """
import socket

def refuse(*arguments, **keywords):
    raise OSError("this test has no network")

socket.socket.connect = socket.getaddrinfo = refuse
import torch
import odmt_sdk
from odmt_sdk import ItemFeatures, ODMTWrapper, load_wines, shipped_adapters

print(odmt_sdk.__file__)
print(shipped_adapters())
for adapter in shipped_adapters():
    if adapter.num_items:
        model = ODMTWrapper.from_pretrained(adapter.name)
        histories = [list(model.vocabulary)[:3]]
    else:
        widths = {"text": 384, "image": 192}
        tokens = {name: torch.randn(4, 1, widths[name]) for name in adapter.encoders}
        features = ItemFeatures.from_tensors(item_ids=["a", "b", "c"], **tokens).standardize()
        model = ODMTWrapper.from_pretrained(adapter.name, item_features=features, transfer=True)
        histories = [["a"]]
    found = model.recommend(histories, k=2)
    print("found", adapter.name, *found.item_ids[0])
wines = load_wines()
print("wines", len(wines.interactions), len(wines.items["item_id"]))
"""


@pytest.mark.slow
def test_wheel_lists_loads_and_recommends_offline(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size < MAX_BYTES
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    assert "odmt_sdk/py.typed" in names
    assert all(name.startswith(("odmt_sdk/", "odmt_sdk-")) for name in names)

    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("HF_", "PYTEST"))},
        "PYTHONPATH": str(tmp_path / "site"),
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "home"),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", USE], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]
    lines = done.stdout.splitlines()
    assert lines[0] == str(tmp_path / "site" / "odmt_sdk" / "__init__.py")
    adapters = shipped_adapters()
    assert len(adapters) >= 3
    found = [line.split() for line in lines if line.startswith("found ")]
    assert [name for _, name, *_ in found] == [adapter.name for adapter in adapters]
    assert all(len(item_ids) == 2 for _, _, *item_ids in found)
    assert lines[-1] == "wines 44035 1007"


def test_adapters_hold_what_they_should_and_nothing_else():
    allowed = {"config.json", "model.safetensors", "items.json", "item_embeddings.safetensors"}
    allowed |= {"feature_moments.safetensors"}
    assert sum(adapter.num_bytes for adapter in shipped_adapters()) < MAX_BYTES
    for folder in FOLDER.iterdir():
        files = {path.name for path in folder.iterdir()}
        assert {"config.json", "model.safetensors", "README.md"} <= files, folder
        # counts of a data set are data: they are shipped where those are free
        counts = {"item_to_item.safetensors"} if folder.name == "wines-sasrec" else set()
        assert files <= allowed | counts | {"README.md"}, folder


@pytest.mark.parametrize("adapter", shipped_adapters(), ids=lambda adapter: adapter.name)
def test_card_tells_results_terms_and_encoders(adapter):
    card = (adapter.folder / "README.md").read_text(encoding="utf-8")
    cited, terms = TERMS[adapter.name.partition(":")[2].partition("-")[0]]
    assert cited in card  # the data set asks for the citation
    assert terms in card
    assert f"from_pretrained('{adapter.name}'" in card
    assert f"{adapter.results['test']['hit_rate@10']:.4f}" in card
    for encoder in adapter.encoders.values():
        assert f"(https://huggingface.co/{encoder})" in card
        assert not encoder.startswith("/")
