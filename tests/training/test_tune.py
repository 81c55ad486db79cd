"""Searching for settings on the validation set."""

import pytest
import torch
from toys import MyModel, toy_features, toy_split

from odmt_sdk import ODMTConfig, ODMTTrainer, ODMTWrapper, evaluate, tune

pytest.importorskip("optuna", reason="needs odmt-sdk[tune]")

SPACE = {"learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}, "dropout": [0.0, 0.2]}
QUICK = {"epochs": 2, "batch_size": 16, "k": (1, 5), "metric": "ndcg@5", "use_cpu": True}


def make_model(dropout=0.0, **settings):
    features = toy_features(item_ids=[f"item-{i}" for i in range(12)])
    return ODMTWrapper(MyModel(), features, ODMTConfig(dropout=dropout, **settings))


@pytest.fixture(scope="module")
def split():
    return toy_split()


def test_the_best_adapter_is_kept_and_a_search_goes_on(split, tmp_path, capsys):
    first = tune(make_model, split, SPACE, tmp_path, trials=2, **QUICK)
    again = tune(make_model, split, SPACE, tmp_path, trials=3, **QUICK)
    assert [trial["number"] for trial in again.trials] == [0, 1, 2]
    assert again.trials[:2] == first.trials
    done = [trial for trial in again.trials if trial["state"] == "complete"]
    best = max(done, key=lambda trial: trial["value"])
    assert (again.parameters, again.value) == (best["parameters"], best["value"])
    # the adapter is that of the best trial, measured on the validation set
    model = ODMTWrapper.from_pretrained(tmp_path, MyModel())
    measured = evaluate(model, split.validation, k=(5,))["ndcg@5"]
    assert measured == pytest.approx(again.value, abs=1e-6)
    assert model.config.dropout == best["parameters"]["dropout"]
    assert sorted(p.name for p in tmp_path.iterdir() if "trial" in p.name) == ["trials.db"]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["trial 1/2", "trial 2/2", "trial 3/3"]
    assert "learning_rate" in lines[0]
    with pytest.raises(ValueError, match="contains trials with another space"):
        tune(make_model, split, {"dropout": [0.1]}, tmp_path, trials=4, **QUICK)


def test_learning_rates_of_parts_can_be_searched(split, tmp_path, monkeypatch):
    rates = []
    create = ODMTTrainer.create_optimizer

    def note(trainer, *args):
        optimizer = create(trainer, *args)
        rates.append({group["lr"] for group in optimizer.param_groups})
        return optimizer

    monkeypatch.setattr(ODMTTrainer, "create_optimizer", note)
    space = {"backbone_learning_rate": [2e-3, 3e-3], "dropout": [0.1]}
    settings = {**QUICK, "epochs": 1, "learning_rate": 1e-3, "prune": False}
    result = tune(make_model, split, space, tmp_path / "searched", trials=3, **settings)
    found = [trial["parameters"]["backbone_learning_rate"] for trial in result.trials]
    assert rates == [{1e-3, rate} for rate in found]
    assert len(set(found)) == 2
    rates.clear()
    space = {"dropout": [0.1]}
    settings["backbone_learning_rate"] = 4e-3
    tune(make_model, split, space, tmp_path / "fixed", trials=1, **settings)
    assert rates == [{1e-3, 4e-3}]


def test_the_test_set_is_not_looked_at(split, tmp_path, monkeypatch):
    monkeypatch.setattr(type(split.test), "__getitem__", _refuse_test(split))
    result = tune(make_model, split, {"dropout": [0.0]}, tmp_path, trials=1, **QUICK)
    assert result.trials[0]["state"] == "complete"


def _refuse_test(split):
    read = type(split.test).__getitem__

    def get(dataset, index):
        assert dataset is not split.test
        return read(dataset, index)

    return get


def test_a_trial_that_diverges_does_not_end_the_search(split, tmp_path, capsys):
    class Broken(MyModel):
        def forward(self, inputs_embeds, attention_mask):
            out = super().forward(inputs_embeds, attention_mask)
            return out * float("nan") if self.training and self.broken else out

    def make(broken):
        features = toy_features(item_ids=[f"item-{i}" for i in range(12)])
        backbone = Broken()
        backbone.broken = broken
        return ODMTWrapper(backbone, features, check=False)

    with pytest.raises(ValueError, match="no trial was completed"):
        tune(make, split, {"broken": [True]}, tmp_path, trials=1, **QUICK)
    assert "diverged" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("space", "settings", "message"),
    [
        ({}, {}, "space is empty"),
        ({"dropout": 0.1}, {}, "must be a list of values"),
        ({"dropout": []}, {}, "must be a list of values"),
        ({"dropout": {"low": 0.1}}, {}, "must have the numbers low and high"),
        ({"dropout": {"low": 0.3, "high": 0.1}}, {}, "low below high"),
        ({"dropout": {"low": 0, "high": 0.1, "log": True}}, {}, "above 0 with log"),
        ({"dropout": [0.1]}, {"trials": 0}, "trials=0 must be at least 1"),
        ({"encoder_learning_rate": [0.1]}, {}, "encoder_learning_rate=0.1 is for trained content"),
        ({"dropout": [0.1]}, {"metric": "ndcg@7"}, "metric='ndcg@7' is not computed"),
    ],
)
def test_mistakes_are_found_before_anything_is_written(split, tmp_path, space, settings, message):
    with pytest.raises(ValueError, match=message):
        tune(make_model, split, space, tmp_path / "new", **{**QUICK, **settings})
    assert not (tmp_path / "new").exists()


def test_an_unknown_parameter_is_refused(split, tmp_path):
    with pytest.raises(TypeError, match="dropuot"):
        tune(make_model, split, {"dropuot": [0.1]}, tmp_path / "new", **QUICK)
    torch.manual_seed(0)
