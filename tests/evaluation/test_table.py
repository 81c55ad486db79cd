import pytest

from odmt_sdk.evaluation.table import metrics_table


def test_rows_and_sources():
    results = {
        "bare": {"ndcg@10": 0.25, "id/ndcg@10": 0.25},
        "wrapped": {"ndcg@10": 0.5, "id/ndcg@10": 0.4, "text/ndcg@10": 0.123456},
    }
    assert metrics_table(results, metrics=["ndcg@10"]).splitlines() == [
        "| model        | ndcg@10 |",
        "|--------------|--------:|",
        "| bare         |  0.2500 |",
        "| wrapped      |  0.5000 |",
        "| - id alone   |  0.4000 |",
        "| - text alone |  0.1235 |",
    ]
    assert len(metrics_table(results, metrics=["ndcg@10"], sources=False).splitlines()) == 4


def test_a_missing_metric():
    with pytest.raises(ValueError, match=r"'bare' has no \['mrr@10'\]; it has \['ndcg@10'\]"):
        metrics_table({"bare": {"ndcg@10": 0.25}}, metrics=["mrr@10"])
