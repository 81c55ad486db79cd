"""The model card after training and evaluation."""

import pytest
from toys import toy_model, toy_split

from odmt_sdk import ODMTWrapper, SASRec, fit


def measured(metrics):
    return {name: value for name, value in metrics.items() if "@" in name}


def test_fit_fills_the_card_in_with_what_it_measured(tmp_path):
    split = toy_split()
    model = toy_model(SASRec(8, max_seq_length=6, num_layers=1), num_layers=1)
    result = fit(
        model, split, tmp_path / "a", epochs=4, learning_rate=0.1, warmup_steps=0, k=(5, 10),
        item_to_item=False,  # the metrics of the best epoch, as they are
        batch_size=8, report_to="none", disable_tqdm=True, use_cpu=True,
    )  # fmt: skip
    values = [entry["eval_ndcg@10"] for entry in result.history if "eval_ndcg@10" in entry]
    results = model.card.results
    assert measured(results["validation"]) == measured(result.validation)
    assert results["validation"]["ndcg@10"] == max(values)
    assert results["test"] == pytest.approx(measured(result.test))
    assert model.card.training["best epoch"] == f"{result.best_epoch:g}"
    assert model.card.training["sequences"] == "40"
    card = (tmp_path / "a" / "README.md").read_text()
    assert f"{result.test['ndcg@10']:.4f}" in card
    assert "On the validation targets" in card
    loaded = ODMTWrapper.from_pretrained(tmp_path / "a")
    assert loaded.card == model.card
    checkpoint = next((tmp_path / "a").glob("checkpoint-*"))
    early = ODMTWrapper.from_pretrained(checkpoint)
    assert set(early.card.results) == {"validation"}
