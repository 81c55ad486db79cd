"""The code on the pages of the documentation runs, in the order of each page.

Some pages have tests of their own, and so have the examples that pages include. Pages that push to
the Hub run in `hub/hub_scenarios.py`.
"""

from pathlib import Path

import pytest
from pages import ROOT, code_blocks, newcomer_folder, run_blocks, train_one_epoch

from odmt_sdk import Interactions, ItemFeatures, ODMTWrapper, SASRec, fit, leave_one_out

ELSEWHERE = {  # run by the test files that name them
    "docs/backbones.md",
    "docs/command_line.md",
    "docs/concepts.md",
    "docs/data.md",
    "docs/features.md",
    "docs/production.md",
    "docs/sharing.md",
    "docs/train_encoders.md",
    "docs/pretrained.md",
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {
        prefix: newcomer_folder(tmp_path_factory.mktemp(prefix) / "work", prefix)
        for prefix in ("item", "film")
    }


@pytest.fixture(params=["item"])
def folder(request, folders, monkeypatch):
    monkeypatch.chdir(folders[request.param])
    train_one_epoch(monkeypatch)
    return folders[request.param]


def trained(folder: Path) -> dict:
    """What a page takes for granted: features, interactions, a split and a trained model."""
    features = ItemFeatures.from_items(
        "items.parquet",
        text_encoder="bert-base-uncased",
        image_encoder="openai/clip-vit-base-patch32",
    ).standardize()
    interactions = Interactions.from_table("interactions.parquet")
    split = leave_one_out(interactions, vocabulary=features.vocabulary, max_seq_length=12)
    model = ODMTWrapper(SASRec(16, max_seq_length=12), features)
    fit(model, split, folder / "trained", epochs=1, log_level="error")
    return {"features": features, "interactions": interactions, "split": split, "model": model}


def test_readme(folder, capsys):
    names = run_blocks(code_blocks("README.md")[:1], {})
    assert "ndcg@10" in capsys.readouterr().out
    assert len(names["model"].vocabulary) == 60


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["film"], indirect=True)
def test_quickstart(folder):
    names = run_blocks(code_blocks("docs/quickstart.md"), {})
    assert len(names["found"].item_ids[0]) == 10
    assert {"film-7", "film-9"}.isdisjoint(names["found"].item_ids[0])


@pytest.mark.slow
def test_accuracy(folder):
    names = run_blocks(code_blocks("docs/accuracy.md"), trained(folder))
    assert names["model"].item_to_item_weight == names["weight"]
    assert names["before"].keys() == names["after"].keys()


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["film"], indirect=True)
def test_figures(folder):
    given = trained(folder)
    items = Interactions.from_table("interactions.parquet").item_ids
    text_encoder = "bert-base-uncased"
    from transformers import AutoTokenizer

    titles = {item_id: f"a red mug {item_id}" for item_id in given["features"].vocabulary.item_ids}
    (folder / "posters").mkdir()
    (folder / "images" / "film-12.png").rename(folder / "posters" / "film-12.jpg")
    given |= {
        "history": list(items[:3]),
        "titles": titles,
        "texts": titles,
        "images": {},
        "genres": {item_id: item_id[-1] for item_id in titles},
        "tokenizer": AutoTokenizer.from_pretrained(text_encoder),
    }
    run_blocks(code_blocks("docs/figures.md"), given)
    for name in ("recommended.png", "why.png", "reads.png", "map.png", "curves.png"):
        assert (folder / name).stat().st_size > 5_000


@pytest.mark.slow
def test_demo(folder, monkeypatch):
    pytest.importorskip("gradio")
    import odmt_sdk.demo

    shown = []
    monkeypatch.setattr(
        odmt_sdk.demo, "launch", lambda *given, **settings: shown.append((given, settings))
    )
    given = trained(folder)
    history = list(given["interactions"].item_ids[:3])
    run_blocks(code_blocks("docs/demo.md"), {**given, "items": {}, "history": history})
    assert len(shown) == 5


def test_every_page_with_code_is_run_somewhere():
    pages = ["README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
    with_code = {page for page in pages if code_blocks(page)}
    tested = {
        page
        for page in pages
        if f"test_{Path(page).stem.lower()}" in globals() or page in ELSEWHERE
    }
    assert with_code <= tested


def test_pages_that_are_run_elsewhere_are_named_there():
    others = (path for path in (ROOT / "tests").rglob("*.py") if path.name != Path(__file__).name)
    tests = "".join(path.read_text(encoding="utf-8") for path in others)
    assert [page for page in ELSEWHERE if Path(page).name not in tests] == []
