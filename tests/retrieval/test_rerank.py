"""Maximal marginal relevance, compared with a slow reference."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from odmt_sdk.retrieval.rerank import MaximalMarginalRelevance


def slow_order(rows, scores, vectors, diversity):
    kept = [place for place, row in enumerate(rows) if row]
    low, high = min(scores[p] for p in kept), max(scores[p] for p in kept)
    chosen = []
    while len(chosen) < len(kept):

        def value(place):
            relevance = (scores[place] - low) / (high - low) if high > low else 0.0
            like = max(
                (
                    float(torch.cosine_similarity(vectors[rows[place]], vectors[rows[c]], dim=0))
                    for c in chosen
                ),
                default=0.0,
            )
            return (1 - diversity) * relevance - diversity * like

        left = [place for place in kept if place not in chosen]
        chosen.append(max(left, key=lambda place: (round(value(place), 6), -place)))
    return chosen + [place for place in range(len(rows)) if place not in kept]


@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0]))
def test_equals_a_slow_twin(seed, diversity):
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(31, 4, generator=generator)
    rows = torch.stack([torch.randperm(30, generator=generator)[:8] + 1 for _ in range(3)])
    scores = torch.randn(3, 8, generator=generator).sort(1, descending=True).values
    rows[2, 5:], scores[2, 5:] = 0, -torch.inf
    found = MaximalMarginalRelevance(vectors, diversity=diversity)(rows, scores)
    for user in range(3):
        expected = slow_order(rows[user].tolist(), scores[user].tolist(), vectors, diversity)
        assert found[user].tolist() == expected


def test_zero_keeps_the_order_and_one_score_is_enough():
    rerank = MaximalMarginalRelevance(torch.randn(6, 3), diversity=0.0)
    rows = torch.tensor([[3, 1, 5]])
    assert rerank(rows, torch.tensor([[1.0, 1.0, 0.5]])).tolist() == [[0, 1, 2]]
    assert rerank(rows[:, :1], torch.tensor([[1.0]])).tolist() == [[0]]


def test_wrong_settings():
    with pytest.raises(ValueError, match=r"diversity=1\.5 must lie in 0\.\.1"):
        MaximalMarginalRelevance(torch.randn(3, 2), diversity=1.5)
    with pytest.raises(ValueError, match="NaN or infinite"):
        MaximalMarginalRelevance(torch.full((3, 2), torch.nan))
