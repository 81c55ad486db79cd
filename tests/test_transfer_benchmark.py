"""Training of pretrained adapters and the transfer study: their counts, and that they finish."""

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from toys import toy_split

from odmt_sdk import ItemFeatures, make_shop
from odmt_sdk.toy_shop.tiny_encoders import tiny_image_encoder, tiny_text_encoder

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
NAMES = {
    "film_data": "film_data",
    "item_texts": "transfer.item_texts",
    "train_adapters": "transfer.train_adapters",
    "transfer": "transfer.transfer",
    "transfer_report": "transfer.report",
    "zero_shot": "transfer.zero_shot",
}


@pytest.fixture
def study(monkeypatch):
    """The modules of the benchmark."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield SimpleNamespace(**{name: importlib.import_module(path) for name, path in NAMES.items()})
    for name in [*sys.modules]:
        if name.partition(".")[0] in ("film_data", "query_vectors", "accuracy", "transfer"):
            sys.modules.pop(name)


def test_popularity_ranks_equal_one_query_at_a_time(study):
    split = toy_split()
    found = study.film_data.popularity_ranks(split, split.test)
    counts = split.item_counts.tolist()
    order = sorted(range(1, len(counts)), key=lambda row: (-counts[row], row))
    for rank, query in zip(found.tolist(), split.test, strict=True):
        seen = set(query["seen_ids"].tolist()) - {query["target_ids"]}
        assert rank == 1 + [row for row in order if row not in seen].index(query["target_ids"])


def test_a_prior_of_much_weight_is_popularity(study):
    split = toy_split()
    scores = torch.randn(len(split.test), len(split.vocabulary) + 1)
    prior = -torch.arange(len(split.vocabulary) + 1.0)
    by_prior = study.transfer.ranks_by(scores + 1e6 * prior, split.test)
    for rank, query in zip(by_prior.tolist(), split.test, strict=True):
        seen = set(query["seen_ids"].tolist()) - {query["target_ids"]}
        assert rank == query["target_ids"] - sum(row < query["target_ids"] for row in seen)


def test_a_share_of_the_sequences(study):
    split = toy_split()
    assert study.transfer.some_of(split, 1.0, seed=0) is split
    part = study.transfer.some_of(split, 0.5, seed=0)
    kept = [tuple(part.train[i]["item_ids"].tolist()) for i in range(len(part.train))]
    assert len(kept) == round(len(split.train) / 2)
    assert set(kept) <= {
        tuple(split.train[i]["item_ids"].tolist()) for i in range(len(split.train))
    }
    rows = torch.tensor([row for sequence in kept for row in sequence])
    assert part.item_counts.equal(torch.bincount(rows, minlength=len(split.item_counts)))
    other = study.transfer.some_of(split, 0.5, seed=1)
    assert [other.train[i]["item_ids"].tolist() for i in range(len(other.train))] != [
        list(sequence) for sequence in kept
    ]


def test_steps_to_a_goal(study):
    curve = [(10, 0.1), (20, 0.3), (30, 0.2)]
    assert study.transfer_report.steps_to(curve, 0.2) == 20
    assert study.transfer_report.steps_to(curve, 0.4) is None


@pytest.mark.parametrize(
    ("text", "short", "peopleless"),
    [
        (
            "Dr. No (1962). Genres: Action, Thriller. Director: Terence Young. Cast: Sean Connery, "
            "J. Lord, Ed Begley Jr.. A spy. He travels.",
            "Dr. No (1962). Genres: Action, Thriller",
            "Dr. No (1962). Genres: Action, Thriller. A spy. He travels.",
        ),
        ("Heat (1995). Genres: Crime", "Heat (1995). Genres: Crime", "Heat (1995). Genres: Crime"),
        ("A film of no year. Plot.", "A film of no year. Plot.", "A film of no year. Plot."),
    ],
)
def test_what_others_may_know_of_a_film(study, text, short, peopleless):
    assert study.item_texts.title_and_genres(text) == short
    assert study.item_texts.without_people(text) == peopleless


def test_texts_vary_while_training_only(study):
    item_ids = [f"film-{i}" for i in range(200)]
    whole, *others = (
        ItemFeatures.from_tensors(
            item_ids=item_ids,
            text=torch.full((201, 1, 3), float(version)),
            image=torch.randn(201, 2, 4, generator=torch.Generator().manual_seed(0)),
        )
        for version in range(3)
    )
    features = study.item_texts.VariedTexts(whole, others)
    varying = study.item_texts.VaryWhileTraining(features)
    rows = torch.arange(1, 201)
    assert features.gather(rows)["text"].tokens.unique().tolist() == [0]
    varying.on_epoch_begin(None, None, None)
    texts, images = features.gather(rows)["text"].tokens, features.gather(rows)["image"].tokens
    assert texts.unique().tolist() == [0, 1, 2]
    assert torch.equal(texts, texts[..., :1].expand_as(texts))  # versions are not mixed
    assert torch.equal(images, whole.gather(rows)["image"].tokens)
    varying.on_epoch_end(None, None, None)
    assert features.gather(rows)["text"].tokens.unique().tolist() == [0]


def test_the_mean_of_curves(study):
    curves = [[(10, 0.1), (20, 0.3)], [(10, 0.3), (20, 0.5)]]
    assert study.transfer_report.mean_curve(curves) == [(10, 0.2), (20, 0.4)]


@pytest.mark.slow
def test_an_adapter_is_trained_and_started_from(study, tmp_path, monkeypatch, capsys):
    folder = _films(tmp_path / "films")
    table = make_shop(num_items=50, num_users=60).items
    encoders = {"text": tiny_text_encoder(table["title"]), "image": tiny_image_encoder()}
    monkeypatch.setattr(study.film_data.ItemFeatures, "from_items", _with(encoders))
    common = ["--features", str(tmp_path / "features")]
    made = tmp_path / "adapters"
    names = ["films-sasrec", "films-content"]
    command = ["x", "--data", str(folder), "--adapters", *names, "--seeds", "0"]
    command += ["--epochs", "1", "--output", str(made), *common]
    monkeypatch.setattr(sys, "argv", command)
    study.train_adapters.main()
    trained = {name: made / name / "seed-0" for name in names}
    for name, run in trained.items():
        metrics = json.loads((run / "metrics.json").read_text())
        assert 0 <= metrics["test"]["ndcg@10"] <= metrics["test"]["hit_rate@10"] <= 1
        assert metrics["settings"]["id_dropout"] == (0.5 if name == "films-content" else 0)
        assert (run / name / "items.json").exists() == (name == "films-sasrec")
    adapter = trained["films-content"] / "films-content"
    about = json.loads((adapter / "config.json").read_text())
    assert about["features"]["text"]["encoder"] == study.film_data.ENCODERS["text"]
    assert str(tmp_path) not in (adapter / "config.json").read_text()

    again = tmp_path / "study"
    command = ["x", "--data", str(folder), "--adapter", str(adapter), "--seeds", "0"]
    command += ["--steps", "6", "4", "--validations", "2", "--output", str(again), *common]
    monkeypatch.setattr(sys, "argv", command)
    study.transfer.main()
    found = json.loads((again / "transfer.json").read_text())
    assert len(found["cells"]) == 4
    steps = [[step for step, _ in cell["curve"]] for cell in found["cells"]]
    assert steps == [[3, 6], [3, 6], [2, 4], [2, 4]]
    said = capsys.readouterr().out
    assert "a tenth | adapter |" in said
    assert "adapter with popularity" in said
    monkeypatch.setattr(study.transfer, "train", None)  # finished runs are not repeated
    study.transfer.main()


def _films(folder):
    """Write a synthetic shop in the layout of the data folders."""
    import pyarrow as pa
    from pyarrow import parquet

    shop = make_shop(num_items=50, num_users=60)
    (folder / "images").mkdir(parents=True)
    for item_id, picture in zip(shop.items["item_id"], shop.items["image"], strict=True):
        picture.save(folder / "images" / f"{item_id}.jpg")
    items = {"item_id": shop.items["item_id"], "text": shop.items["title"]}
    parquet.write_table(pa.table(items), folder / "items.parquet")
    parquet.write_table(pa.table(dict(shop.interactions)), folder / "interactions.parquet")
    return folder


def _with(encoders):
    extract = ItemFeatures.from_items

    def from_items(items, **settings):
        replaced = {
            f"{name}_encoder": encoder
            for name, encoder in encoders.items()
            if f"{name}_encoder" in settings
        }
        return extract(items, **{**settings, **replaced, "num_workers": 0, "progress": False})

    return from_items


def test_data_sets_side_by_side_keep_their_sequences(study):
    parts = []
    for seed in (0, 1):
        split = toy_split(num_users=30 + seed)
        tokens = torch.randn(len(split.vocabulary) + 1, 1, 6)
        features = ItemFeatures.from_tensors(item_ids=split.vocabulary, text=tokens)
        parts.append((split, features))
    (sequences, counts), features = study.zero_shot.mixed(parts)
    first, second = (split for split, _ in parts)
    assert len(sequences) == len(first.train) + len(second.train)
    items = len(first.vocabulary)
    shifted = sequences[len(first.train)]["item_ids"] - items
    assert shifted.equal(second.train[0]["item_ids"])
    assert counts.equal(torch.cat([first.item_counts, second.item_counts[1:]]))
    row = torch.tensor([items + 1])
    own = parts[1][1].gather(torch.tensor([1]))
    assert features.gather(row)["text"].tokens.equal(own["text"].tokens)


def test_seeds_of_an_adapter_have_one_label(study):
    assert study.zero_shot.seeds_of("shipped:films,runs/films-1=ml-1m-posters,xwines") == [
        ("shipped:films", "shipped:films", ("ml-1m-posters", "xwines"), 0),
        ("shipped:films", "runs/films-1", ("ml-1m-posters", "xwines"), 1),
    ]


def test_the_weight_for_a_data_set_is_chosen_without_it(study):
    weights = {f"{weight:g}": 0.1 for weight in study.zero_shot.WEIGHTS}
    rows = [
        {"data": "here", "users": 10, "weights": {**weights, "4": 0.9}},
        {"data": "there", "users": 30, "weights": {**weights, "1": 0.2}},
        {"data": "elsewhere", "users": 10, "weights": {**weights, "2": 0.3}},
    ]
    assert study.zero_shot.weight_without(rows, "here") == "1"  # of most users
    assert study.zero_shot.weight_without(rows, "there") == "4"
