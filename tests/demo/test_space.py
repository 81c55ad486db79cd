"""The folder of a Hugging Face Space, and the drawn shop that it shows by default."""

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
import torch
from toys import toy_features

from odmt_sdk import ODMTWrapper, SASRec, make_shop
from odmt_sdk.demo import drawn_shop, make_space

gradio = pytest.importorskip("gradio", reason="needs odmt-sdk[demo]")
IDS = [f"item/{number}" for number in range(12)]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return ODMTWrapper(SASRec(8, max_seq_length=6), toy_features(item_ids=IDS)).eval()


@pytest.fixture(scope="module")
def space(model, tmp_path_factory):
    shop = make_shop(num_items=50, num_users=1, image_size=16)
    items = {"item_id": IDS, "title": ["ünï {x}", *IDS[1:]], "image": shop.items["image"][:12]}
    items["image"][3] = b"broken"
    folder = tmp_path_factory.mktemp("space") / "mine"
    examples = {"Ann": IDS[2:4]}
    return make_space(folder, model, items, examples=examples, title='Ann\'s "shop": {all}')


def test_a_space_holds_all_that_it_needs(model, space):
    lines = (space / "items.jsonl").read_text(encoding="utf-8").splitlines()
    items = [json.loads(line) for line in lines]
    assert [item["item_id"] for item in items] == IDS
    assert items[0]["title"] == "ünï {x}"
    assert "image" not in items[3]
    pictures = {path.name for path in (space / "images").iterdir()}
    assert pictures == {item["image"] for item in items if "image" in item}
    assert len(pictures) == 11
    assert json.loads((space / "examples.json").read_text()) == {"Ann": IDS[2:4]}
    card = (space / "README.md").read_text(encoding="utf-8")
    assert card.startswith('---\ntitle: "Ann\'s \\"shop\\": {all}"\n')
    assert f"\nsdk: gradio\nsdk_version: {gradio.__version__}\napp_file: app.py\n" in card
    requirements = (space / "requirements.txt").read_text()
    assert re.search(r"^torch>=", requirements, re.MULTILINE)
    assert "extra" not in requirements
    compile((space / "app.py").read_text(encoding="utf-8"), "app.py", "exec")
    assert (space / "odmt_sdk" / "demo" / "page.py").is_file()
    loaded = ODMTWrapper.from_pretrained(space / "adapter")
    assert loaded.recommend([IDS[:2]]).item_ids == model.recommend([IDS[:2]]).item_ids


def test_nothing_is_overwritten(model, space):
    with pytest.raises(FileExistsError, match="already exists: remove it, or choose another"):
        make_space(space, model)


@pytest.mark.slow
def test_a_space_runs_offline(space):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "PORT": str(port)}
    environment.pop("PYTHONPATH", None)
    command = [sys.executable, str(space / "app.py")]
    with subprocess.Popen(command, env=environment, cwd=space, stderr=subprocess.PIPE) as process:
        try:
            deadline = time.monotonic() + 240
            while True:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as answer:
                        page = answer.read().decode()
                    break
                except OSError:
                    assert process.poll() is None, process.stderr.read().decode()
                    assert time.monotonic() < deadline
                    time.sleep(0.5)
        finally:
            process.terminate()
    assert "odmt-card" in page


@pytest.mark.slow
def test_the_drawn_shop_is_trained_once(tmp_path, monkeypatch, capsys):
    settings = {"epochs": 1, "num_users": 60}
    model, items, examples = drawn_shop.drawn_shop(tmp_path, **settings)
    assert "once; it is kept in" in capsys.readouterr().err
    assert int(model.item_encoder.unseen.sum()) >= drawn_shop.NUM_NEW
    monkeypatch.setattr(drawn_shop, "_train", None)
    again, _, _ = drawn_shop.drawn_shop(tmp_path, **settings)
    assert set(items["item_id"]) == set(model.vocabulary)
    for history in examples.values():
        assert again.recommend([history]).item_ids == model.recommend([history]).item_ids
