"""The code on the docs page about production runs, and every path recommends the same items."""

import re
from pathlib import Path

import pytest

from odmt_sdk import ODMTWrapper
from odmt_sdk.toy_shop.tiny_encoders import tiny_text_encoder

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

PAGE = (Path(__file__).parents[1] / "docs" / "production.md").read_text()
SECTIONS = {
    part.splitlines()[0]: re.findall(r"^```python\n(.*?)^```", part, re.DOTALL | re.MULTILINE)
    for part in PAGE.split("\n## ")[1:]
}
HISTORY = ["1", "3114", "588"]


@pytest.fixture(scope="module")
def model():
    return ODMTWrapper.from_pretrained("shipped:films-sasrec")


@pytest.fixture(scope="module")
def best(model):
    return model.recommend([HISTORY], k=10).item_ids[0]


@pytest.fixture
def folder(tmp_path, monkeypatch, model):
    """A working folder with the files that the page names."""
    monkeypatch.chdir(tmp_path)
    films = list(model.vocabulary)
    events = [(user, films[(7 * user + n) % 300]) for user in range(30) for n in range(6)]
    users, items = zip(*events, strict=True)
    ratings = {"user_id": users, "item_id": items, "timestamp": range(len(events))}
    pq.write_table(pa.table(ratings), "ratings.parquet")
    pq.write_table(pa.table({"user_id": [7], "item_ids": [HISTORY]}), "users.parquet")
    titles = ["a red mug", "a lamp", None, "a long blue scarf"]
    pq.write_table(pa.table({"item_id": list("abcd"), "title": titles}), "items.parquet")
    return tmp_path


def run(section, **names):
    blocks = SECTIONS[section]
    assert blocks
    for block in blocks:
        exec(block.replace('"/shared/', f'"{Path.cwd()}/'), names)
    return names


def recommended(folder):
    (user,) = pq.read_table(folder).to_pylist()
    assert user["user_id"] == 7
    return user["item_ids"]


def test_recommend(folder, capsys, best):
    run("Recommend")
    assert capsys.readouterr().out == f"{best[:5]}\n"


def test_metrics(folder):
    metrics = run("Metrics beyond accuracy")["metrics"]
    assert 0 < metrics["coverage@10"] <= 1


def test_an_index(folder, best):
    pytest.importorskip("faiss")
    assert run("Search an index")["item_ids"] == [best[:5]]


@pytest.mark.slow
def test_an_exported_encoder(folder, best):
    for library in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(library)
    names = run("Export the user encoder")
    assert names["vectors"].shape == (1, 192)
    assert names["encoder"].recommend([HISTORY], k=10)[0] == [best]


@pytest.mark.slow
def test_nightly_batches(folder, best, local_ray, local_spark):
    run("Nightly batch")
    for name in ("recommendations", "recommendations-ray", "recommendations-spark"):
        assert recommended(name) == best


@pytest.mark.slow
def test_features_of_a_large_catalogue(folder, local_ray):
    encoder = tiny_text_encoder(["a red mug", "a lamp", "a long blue scarf"], width=16)
    features = run("Features of a large catalogue", text_encoder=encoder)["features"]
    assert (features["text"].lengths > 0).tolist() == [False, True, True, False, True]


def test_every_path_of_the_table_has_a_section():
    table = PAGE.split("\n## ")[0]
    links = re.findall(r"\]\(#([a-z-]+)\)", table)
    titles = [title.lower().replace(" ", "-") for title in re.findall(r"^## (.*)$", PAGE, re.M)]
    assert len(links) == 6
    assert set(links) <= set(titles)
