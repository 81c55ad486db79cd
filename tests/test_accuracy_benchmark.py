"""The accuracy benchmark: its counts, its use of test data, and its reproducibility."""

import dataclasses
import importlib
import json
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from toys import toy_features, toy_split

from odmt_sdk import ItemFeatures
from odmt_sdk.evaluation.metrics import ranking_metrics
from odmt_sdk.features.modality import ModalityTokens

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
FOLDER = Path("toy-data")


@pytest.fixture
def accuracy(monkeypatch):
    """The modules of the benchmark, by name."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    names = ("methods", "significance", "data", "cells", "report", "mixtures", "presets")
    names += ("compare", "picture")
    yield SimpleNamespace(**{name: importlib.import_module(f"accuracy.{name}") for name in names})
    for name in [*sys.modules]:
        if name in ("film_data", "query_vectors") or name.partition(".")[0] == "accuracy":
            sys.modules.pop(name)


@pytest.fixture
def study(accuracy, monkeypatch, tmp_path):
    """A study of a toy split."""
    data = accuracy.data.Data(toy_split(), toy_features(item_ids=[f"item-{i}" for i in range(12)]))
    monkeypatch.setattr(accuracy.cells, "load_data", lambda *_: data)
    settings = accuracy.data.DataSettings("", "", "mean", 4, 3, True, 6, 0)
    of_fit = {"epochs": 2, "patience": 5, "batch_size": 8, "weight_decay": 0.1, "warmup_steps": 2}
    return accuracy.cells.Study(tmp_path, settings, 8, tuple(of_fit.items()), True, False, 1)


def make_cell(accuracy, method="id", setting=(("learning_rate", 0.01),), seed=0):
    return accuracy.cells.Cell(FOLDER, "GRU4Rec", method, setting, seed)


def test_averaging_neighbours_equals_one_item_at_a_time(accuracy):
    tokens, lengths = torch.randn(5, 8, 3), torch.tensor([8, 0, 1, 4, 5])
    few, left = accuracy.data.average_neighbours(ModalityTokens(tokens, lengths), 4)
    for item, length in enumerate(lengths.tolist()):
        rest = tokens[item, 1:length]
        expected = [tokens[item, 0], *(run.mean(0) for run in rest.split(3) if len(run))]
        assert int(left[item]) == (len(expected) if length else 0)
        if length:
            torch.testing.assert_close(few[item, : len(expected)], torch.stack(expected))
    one, left = accuracy.data.average_neighbours(ModalityTokens(tokens, lengths), 1)
    assert one.shape == (5, 1, 3)
    assert left.tolist() == [1, 0, 1, 1, 1]
    same = accuracy.data.average_neighbours(ModalityTokens(tokens, lengths), 8)
    assert same.tokens is tokens


def test_groups_of_targets(accuracy):
    counts = torch.tensor(
        [0, 100, 4, 5, 0, *[7] * 16]
    )  # 20 items; the two most frequent are popular
    groups = accuracy.data.target_groups(torch.tensor([1, 2, 3, 4, 5]), counts)
    assert groups["cold"].tolist() == [False, True, False, True, False]
    assert groups["popular"].tolist() == [
        True,
        False,
        False,
        False,
        True,
    ]  # as frequent as the second item
    assert groups["warm"].tolist() == [False, False, True, False, False]


def test_gains_add_up_to_the_metrics(accuracy):
    ranks = torch.randint(1, 40, (50,))
    expected = ranking_metrics(ranks, (10, 20))
    for metric in accuracy.significance.METRICS:
        mean = accuracy.significance.gains(ranks, metric).mean()
        assert float(mean) == pytest.approx(expected[metric])


class TestBootstrap:
    def test_a_clear_difference(self, accuracy):
        first = torch.rand(200, dtype=torch.float64)
        found = accuracy.significance.paired_bootstrap(first + 0.5, first, samples=500)
        assert found["difference"] == pytest.approx(0.5)
        assert (found["low"], found["high"]) == pytest.approx((0.5, 0.5))
        assert found["p"] == pytest.approx(2 / 501)

    def test_no_difference(self, accuracy):
        same = torch.rand(50)
        assert accuracy.significance.paired_bootstrap(same, same, samples=200)["p"] == 1

    def test_the_interval_is_that_of_a_normal_mean(self, accuracy):
        differences = torch.randn(4000, dtype=torch.float64)
        found = accuracy.significance.paired_bootstrap(differences, torch.zeros(4000))
        reach = 1.96 * float(differences.std()) / 4000**0.5
        assert found["high"] - found["low"] == pytest.approx(2 * reach, rel=0.1)

    def test_it_is_the_same_the_other_way_round(self, accuracy):
        a, b = torch.rand(100), torch.rand(100)
        one = accuracy.significance.paired_bootstrap(a, b, samples=300)
        other = accuracy.significance.paired_bootstrap(b, a, samples=300)
        assert one["p"] == other["p"]
        assert one["low"] == pytest.approx(-other["high"])


def test_figures_of_lists(accuracy):
    counts = torch.tensor([0, 3, 1, 0, 0])
    found = accuracy.significance.list_figures(torch.tensor([[1, 2], [1, 0]]), counts)
    assert found["coverage"] == 0.5
    assert found["popularity"] == pytest.approx((7 / 3) / ((9 + 1) / 4))


def test_the_best_validation_is_chosen_and_the_earlier_of_equals(accuracy):
    cells = [make_cell(accuracy, setting=(("learning_rate", rate),)) for rate in (0.1, 0.2, 0.3)]
    found = {
        cell: {"validation": {"ndcg@10": value}}
        for cell, value in zip(cells, (0.2, 0.3, 0.3), strict=True)
    }
    assert accuracy.compare.choose(cells, found) == (("learning_rate", 0.2),)


def test_training_never_sees_the_test(accuracy, study, monkeypatch):
    class Forbidden:
        def __len__(self):
            raise AssertionError("the test was looked at")

        __getitem__ = __iter__ = __len__

    data = study.load(FOLDER)
    hidden = dataclasses.replace(data, split=dataclasses.replace(data.split, test=Forbidden()))
    monkeypatch.setattr(accuracy.cells, "load_data", lambda *_: hidden)
    cell = make_cell(accuracy, "odmt")
    record = accuracy.cells.train_cell(study, cell)
    assert [epoch["epoch"] for epoch in record["epochs"]] == [1, 2]
    assert {"ndcg@10", "text/ndcg@10", "id/hit_rate@10"} < set(record["epochs"][0])
    with pytest.raises(AssertionError, match="the test was looked at"):
        accuracy.cells.evaluate_cell(study, cell)


def test_a_cell_is_tested_resumed_and_refused_with_other_settings(accuracy, study):
    cell = make_cell(accuracy)
    trained = accuracy.cells.train_cell(study, cell)
    tested = accuracy.cells.evaluate_cell(study, cell)
    users = len(study.load(FOLDER).split.test)
    assert tested["metrics"]["all"]["users"] == users
    assert sum(g["users"] for name, g in tested["metrics"].items() if name != "all") == users
    assert not (cell.folder(study) / "training").exists()

    written = (cell.folder(study) / "cell.json").stat().st_mtime_ns
    assert accuracy.cells.train_cell(study, cell) == json.loads(json.dumps(trained))
    assert accuracy.cells.evaluate_cell(study, cell) == json.loads(json.dumps(tested))
    assert (cell.folder(study) / "cell.json").stat().st_mtime_ns == written
    wider = dataclasses.replace(study, hidden_size=16)
    with pytest.raises(ValueError, match="made with other settings .hidden_size.: choose another"):
        accuracy.cells.train_cell(wider, cell)


def test_the_command_beside_a_cell_repeats_it(accuracy):
    words = [
        "compare",
        "--data",
        "a",
        "b",
        "--text-encoder",
        "t",
        "--image-encoder",
        "i",
        "--no-standardize",
    ]
    words += ["--last", "0", "--jobs", "2", "--grid", "dropout=0.1,0.2", "id_visibility=mutual"]
    words += ["--methods", "odmt", "mine=fusion:only:text,dropout:0.3", "--core", "1"]
    given = accuracy.compare.parser().parse_args(words)
    setting = (("dropout", 0.2), ("id_visibility", "mutual"))
    cell = accuracy.cells.Cell(Path("b"), "GRU4Rec", given.methods[1], setting, 3)
    again = shlex.split(accuracy.compare.command(given, cell))
    assert again[:3] == ["python", "benchmarks/accuracy/run.py", "compare"]
    repeated = accuracy.compare.parser().parse_args(again[2:])
    assert accuracy.methods.settings_of_grid(repeated.grid) == [setting]
    assert (repeated.data, repeated.methods, repeated.seeds) == ([Path("b")], [cell.method], [3])
    assert (repeated.core, repeated.windows, repeated.batch_size) == (1, "all", None)
    assert (repeated.last, repeated.no_standardize, repeated.jobs) == (0, True, 1)
    assert repeated.output != given.output


def test_methods_and_settings(accuracy):
    methods = accuracy.methods
    for name in methods.METHODS:
        assert methods.Method(name).settings == methods.METHODS[name]
    mine = methods.Method("mine=fusion:only:text,dropout:0.3")
    assert (mine.name, mine.settings) == ("mine", {"fusion": "only:text", "dropout": 0.3})
    assert mine.is_alternative
    assert not methods.Method("odmt-mutual").is_alternative
    with pytest.raises(ValueError, match="method 'odnt' is none of"):
        methods.Method("odnt").settings  # noqa: B018
    with pytest.raises(ValueError, match="setting 'droput' is none of"):
        methods.settings_of_grid(["droput=0.1"])
    with pytest.raises(ValueError, match="backbone 'BERT' is none of"):
        methods.build_backbone("BERT", 8, 6, None, None)


def test_nextitnet_reaches_over_the_input(accuracy):
    net = accuracy.methods.build_backbone("NextItNet", 8, 200, 0.1, None).eval()
    inputs = torch.randn(1, 200, 8, requires_grad=True)
    net(inputs, torch.ones(1, 200))[0, -1].sum().backward()
    assert inputs.grad[0, 0].any()


def test_codes_of_pictures_are_one_hot_side_by_side(accuracy):
    features = toy_features(item_ids=[f"item-{i}" for i in range(12)])
    text = ItemFeatures(features.vocabulary, {"text": features["text"]})
    codes = {"item_id": ["item-3", "other", "item-0"]}
    codes |= {name: [n, 9, 255 - n] for n, name in enumerate(accuracy.data.CODE_COLUMNS)}
    found = accuracy.data.with_codes(text, codes)
    tokens, lengths = found["image"]
    assert tokens.shape == (13, 1, 1024)
    assert lengths.tolist() == [0, 1, 0, 0, 1, *[0] * 8]
    assert tokens[4, 0].nonzero().flatten().tolist() == [0, 257, 514, 771]
    assert tokens[1, 0].nonzero().flatten().tolist() == [255, 510, 765, 1020]
    assert torch.equal(found["text"].tokens, features["text"].tokens)


def test_a_data_set_has_its_settings_and_options_change_them(accuracy):
    words = ["--data", "a", "--text-encoder", "t"]
    for name, settings in accuracy.presets.PRESETS.items():
        given = vars(accuracy.compare.read_arguments([name, *words]))
        assert settings.items() <= given.items()
    given = accuracy.compare.read_arguments(["instruments", *words, "--positions", "9"])
    assert (given.positions, given.core, given.batch_size, given.warmup_steps) == (9, 1, None, None)
    assert set(accuracy.presets.PUBLISHED) <= set(accuracy.presets.PRESETS)
    for rows in accuracy.presets.PUBLISHED.values():
        assert all(0 < ndcg < hit_rate < 1 for _, hit_rate, ndcg, _ in rows)


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_the_whole_comparison(accuracy, study, monkeypatch, tmp_path, capsys, jobs):
    import pandas as pd

    features = {name: torch.randn(13, 3, 5) for name in ("text", "image")}
    ids = [f"item-{i}" for i in range(12)]
    folder, output = tmp_path / "toy-data", tmp_path / "found"
    folder.mkdir()
    rows = [(u, f"item-{(u + step) % 12}", step) for u in range(40) for step in range(8)]
    table = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    table.to_parquet(folder / "interactions.parquet")
    accuracy.data._write(
        ItemFeatures.from_tensors(item_ids=ids, **features),
        output / "features" / "toy-data-t-mean-i-1-1.safetensors",
    )
    monkeypatch.undo()
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    arguments = [
        "compare",
        "--data",
        folder,
        "--text-encoder",
        "t",
        "--image-encoder",
        "i",
        "--cpu",
    ]
    arguments += ["--methods", "odmt", "id", "sum", "--grid", "learning_rate=0.01,0.02"]
    arguments += ["--backbones", "GRU4Rec", "--seeds", "0", "1", "--epochs", "2", "--jobs", jobs]
    arguments += ["--hidden-size", "8", "--positions", "6", "--output", output]
    accuracy.compare.main([str(word) for word in arguments])

    (result,) = json.loads((output / "results.json").read_text())["results"]
    assert list(result["methods"]) == ["odmt", "id", "sum"]
    for found in result["methods"].values():
        assert len(found["tuning"]) == len(found["test"]) == len(found["commands"]) == 2
        chosen = f"learning_rate={found['chosen']['learning_rate']}"
        assert found["tuning"][chosen] == max(found["tuning"].values())
    comparison = result["comparison"]["ndcg@10"]
    assert [v.get("best alternative", False) for v in comparison.values()].count(True) == 1
    for verdict in comparison.values():
        assert verdict["low"] <= verdict["difference"] <= verdict["high"]
    tested = [path.parent for path in output.glob("cells/**/test.json")]
    assert len(tested) == 6  # only the chosen settings
    assert len(list(output.glob("cells/**/cell.json"))) == 9
    text = (output / "results.md").read_text()
    assert "GRU4Rec" in text
    assert "against the best alternative" in text
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if "|" in line}
    assert {"odmt", "id", "sum", "popularity", "item-to-item"} < set(lines)
    assert result["counted"]["item-to-item"]["all"]["hit_rate@10"] == 1.0
    drawn = {path.name.rpartition("-")[2] for path in (output / "figures").glob("*.png")}
    assert drawn == {"bars.png", "curves.png", "overview.png"}

    capsys.readouterr()
    mixtures = ["--data", str(folder), "--cells", str(output), "--backbone", "GRU4Rec"]
    accuracy.mixtures.main([*mixtures, "--methods", "odmt", "id"])
    lines = [line.split("|")[1:4] for line in capsys.readouterr().out.splitlines()]
    shown = {name.strip(): float(value.split()[0]) for name, value, _ in lines[2:]}
    assert list(shown)[3:5] == ["odmt", "odmt, all seeds"]
    for method in ("odmt", "id"):  # as validated by `fit`, before counts are added
        values = []
        for cell in output.glob(f"cells/*/GRU4Rec/{method}/*/*/test.json"):
            record = json.loads((cell.parent / "cell.json").read_text())
            values += [
                epoch["ndcg@10"]
                for epoch in record["epochs"]
                if epoch["epoch"] == record["best_epoch"]
            ]
        assert len(values) == 2
        assert shown[method] == pytest.approx(sum(values) / 2, abs=1e-4)


def test_the_command_names_what_it_can_run():
    command = [sys.executable, str(BENCHMARKS / "accuracy" / "run.py")]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.returncode == 1
    assert "instruments, ml-1m-50" in told.stderr
    shown = subprocess.run(
        [*command, "xwines", "--help"], capture_output=True, text=True, check=True
    )
    assert "--min-user" in shown.stdout


@pytest.mark.parametrize("data", ["instruments", "ml-1m-50"])
def test_the_page_shows_the_numbers_that_the_picture_draws(accuracy, tmp_path, data):
    _, found = accuracy.picture.results(data)
    assert accuracy.picture.table(found) in (BENCHMARKS.parent / "docs" / "accuracy.md").read_text()
    values = [result.values[1] for result in found]
    assert values == sorted(values, reverse=True)
    assert {result.kind for result in found} == {"ours", "counts", "published"}
    accuracy.picture.main([data, "--output", str(tmp_path / "new" / "bars.png")])
    assert (tmp_path / "new" / "bars.png").stat().st_size > 20_000
