"""The table at the end of `fit`: the model against counts, on the validation set."""

from toys import toy_model, toy_split

from odmt_sdk import fit, pipeline
from odmt_sdk.baselines import ItemToItem, Popularity

QUICK = {"epochs": 1, "batch_size": 16, "k": (1, 5), "metric": "ndcg@5", "use_cpu": True}


def test_the_model_is_compared_with_counts(tmp_path, capsys, monkeypatch):
    split = toy_split()
    result = fit(toy_model(), split, tmp_path / "one", disable_tqdm=True, **QUICK)
    expected = {
        "this model": result.validation,
        "popularity": Popularity(split).evaluate(split.validation, k=(1, 5)),
        "item-to-item counts": ItemToItem(split, regression=True).evaluate(
            split.validation, k=(1, 5)
        ),
    }
    assert result.comparison == expected
    printed = capsys.readouterr().out
    for name in (*expected, "- text alone", "- image alone"):
        assert f"| {name} " in printed
    monkeypatch.setattr(pipeline, "MOST_SCORES", 0)  # too large to be quick
    result = fit(toy_model(), split, tmp_path / "two", log_level="error", **QUICK)
    assert list(result.comparison) == ["this model"]
    result = fit(toy_model(), split, tmp_path / "two", compare=False, **QUICK)
    assert result.comparison == {}
    assert "| popularity" not in capsys.readouterr().out


def test_counts_are_compared_though_they_are_not_added(tmp_path):
    split = toy_split()
    result = fit(toy_model(), split, tmp_path, item_to_item=False, log_level="error", **QUICK)
    expected = ItemToItem(split, regression=True).evaluate(split.validation, k=(1, 5))
    assert result.comparison["item-to-item counts"] == expected
