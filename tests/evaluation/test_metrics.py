import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from odmt_sdk.evaluation.metrics import METRICS, hit_rate, mrr, ndcg, ranking_metrics, recall


def slow_metrics(ranks, k):
    """Compute metrics by definition, from a ranked list with one relevant item."""
    totals = dict.fromkeys(METRICS, 0.0)
    for rank in ranks:
        relevance = [1 if place == rank else 0 for place in range(1, k + 1)]
        totals["hit_rate"] += any(relevance)
        totals["recall"] += sum(relevance) / 1
        totals["ndcg"] += sum(gain / math.log2(i + 2) for i, gain in enumerate(relevance))
        totals["mrr"] += 1 / (relevance.index(1) + 1) if 1 in relevance else 0
    return {f"{name}@{k}": total / len(ranks) for name, total in totals.items()}


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40), st.integers(1, 50))
def test_metrics_equal_their_definitions(ranks, k):
    assert ranking_metrics(torch.tensor(ranks), [k]) == pytest.approx(slow_metrics(ranks, k))


def test_closed_form():
    ranks = torch.tensor([1, 3, 7, 100])
    assert hit_rate(ranks, 7) == recall(ranks, 7) == 0.75
    assert ndcg(ranks, 7) == pytest.approx((1 + 1 / 2 + 1 / 3) / 4, rel=1e-15)
    assert mrr(ranks, 7) == pytest.approx((1 + 1 / 3 + 1 / 7) / 4, rel=1e-15)


def test_the_cut_is_inclusive():
    for metric in METRICS.values():
        assert metric(torch.tensor([10]), 10) > 0
        assert metric(torch.tensor([11]), 10) == 0


def test_keys_and_order_of_queries():
    ranks = torch.randint(1, 30, (50,))
    metrics = ranking_metrics(ranks, (5, 10))
    assert set(metrics) == {
        f"{n}@{k}" for n in ("hit_rate", "recall", "ndcg", "mrr") for k in (5, 10)
    }
    assert all(type(value) is float for value in metrics.values())
    assert ranking_metrics(ranks.flip(0), (5, 10)) == pytest.approx(metrics)


def test_a_mean_over_many_queries_keeps_its_digits():
    assert mrr(torch.full((3_000_000,), 3, dtype=torch.int32), 5) == pytest.approx(1 / 3, rel=1e-12)


@pytest.mark.parametrize("metric", METRICS.values())
@pytest.mark.parametrize(
    ("ranks", "k", "error", "match"),
    [
        (torch.tensor([1.0]), 5, TypeError, "torch.float32"),
        (torch.tensor([], dtype=torch.long), 5, ValueError, r"\(0,\)"),
        (torch.ones(2, 2, dtype=torch.long), 5, ValueError, r"\(2, 2\)"),
        (torch.tensor([1, 0]), 5, ValueError, "ranks hold 0: the best rank is 1"),
        (torch.tensor([1]), 0, ValueError, "k=0"),
    ],
)
def test_bad_input(metric, ranks, k, error, match):
    with pytest.raises(error, match=match):
        metric(ranks, k)


def test_no_k():
    with pytest.raises(ValueError, match="at least one cut-off"):
        ranking_metrics(torch.tensor([1]), ())


def test_ranks_of_any_kind_and_cuts_of_none():
    for ranks in ([1, 3, 12], np.array([1, 3, 12])):
        assert ndcg(ranks, 10) == ndcg(torch.tensor([1, 3, 12]), 10)
    for k in (10, (2.5,), (True,), "10"):
        with pytest.raises(TypeError, match="must be whole numbers, such as"):
            ranking_metrics(torch.tensor([1, 2]), k)
