"""Metrics of recommended lists, compared with slow reference implementations."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from odmt_sdk.evaluation.beyond_accuracy import (
    average_popularity,
    coverage,
    gini,
    intra_list_diversity,
    novelty,
    serendipity,
)

N = 7


@st.composite
def lists(draw):
    """Draw recommended rows (Q, k): distinct items per list, some lists padded with 0."""
    k = draw(st.integers(1, 5))
    users = draw(st.integers(1, 6))
    found = []
    for user in range(users):
        kept = draw(st.integers(1 if user == 0 else 0, k))
        found.append(draw(st.permutations(range(1, N + 1)))[:kept] + [0] * (k - kept))
    return torch.tensor(found)


counts = st.lists(st.integers(0, 5), min_size=N, max_size=N).map(lambda c: torch.tensor([0, *c]))


def items_of(rows):
    return [[row for row in user if row] for user in rows.tolist()]


def mean(values):
    values = list(values)
    return sum(values) / len(values)


@given(lists())
def test_coverage_and_gini(rows):
    shown = [row for user in items_of(rows) for row in user]
    exposure = [shown.count(row) for row in range(1, N + 1)]
    assert coverage(rows, N) == pytest.approx(sum(count > 0 for count in exposure) / N)
    differences = sum(abs(a - b) for a, b in itertools.product(exposure, repeat=2))
    assert gini(rows, N) == pytest.approx(differences / (2 * N * sum(exposure)))


@given(lists(), counts)
def test_popularity_and_novelty(rows, item_counts):
    users = [user for user in items_of(rows) if user]
    expected = mean(mean(int(item_counts[row]) for row in user) for user in users)
    assert average_popularity(rows, item_counts) == pytest.approx(expected)
    expected = mean(
        mean(-math.log2(max(1, int(item_counts[row])) / 9) for row in user) for user in users
    )
    assert novelty(rows, item_counts, num_users=9) == pytest.approx(expected)


@given(lists(), counts, st.lists(st.integers(1, N), min_size=6, max_size=6))
def test_serendipity(rows, item_counts, targets):
    distinct = sorted(set(item_counts[1:].tolist()), reverse=True)
    users = []
    for user, target in zip(items_of(rows), targets, strict=False):
        values = []
        for rank, row in enumerate(user, start=1):
            count = int(item_counts[row])
            anyone = (N + 1 - (distinct.index(count) + 1)) / N if count else 0.0
            gained = max((N + 1 - rank) / N - anyone, 0.0)
            values.append(gained if row == target else 0.0)
        if values:
            users.append(mean(values))
    found = serendipity(rows, torch.tensor(targets[: len(rows)]), item_counts)
    assert found == pytest.approx(mean(users))


@given(lists())
def test_diversity(rows):
    vectors = torch.randn(N + 1, 3, generator=torch.Generator().manual_seed(1)).double()
    users = []
    for user in items_of(rows):
        if len(user) > 1:
            users.append(
                mean(
                    1 - float(torch.cosine_similarity(vectors[a], vectors[b], dim=0))
                    for a, b in itertools.combinations(user, 2)
                )
            )
    expected = mean(users) if users else 0.0
    assert intra_list_diversity(rows, vectors) == pytest.approx(expected, abs=1e-12)


def test_the_values_of_the_documentation_of_rectools():
    """Examples from the docstrings of RecTools, averaged over users."""
    # items 1..3 are RecTools' i1..i3, in a catalogue of four
    lists_of_users = torch.tensor([[1, 2], [2, 3], [3, 0], [2, 3]])
    found = [
        serendipity(lists_of_users[user : user + 1], torch.tensor([target]), COUNTS)
        for user, target in ((0, 2), (1, 3), (2, 2), (3, 2))
    ]
    assert found == pytest.approx([0.0, 0.375, 0.0, 0.125])
    rows = torch.tensor([[1, 2, 0], [3, 1, 2], [3, 2, 0]])
    assert average_popularity(rows, torch.tensor([0, 3, 2, 1])) == pytest.approx(2.0)
    rows = torch.tensor([[3, 0], [2, 3], [1, 2]])
    users = torch.tensor([0, 3, 1, 0])
    assert novelty(rows, users, num_users=3) == pytest.approx((2 * 1.5849625 + 0.79248125) / 3)


COUNTS = torch.tensor([0, 3, 2, 0, 0])


def test_order_of_users_and_device_type_change_nothing():
    rows = torch.tensor([[1, 2, 3], [4, 5, 0]], dtype=torch.int32)
    assert gini(rows, N) == gini(rows.flip(0), N)
    assert coverage(rows, N) == 5 / N


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (torch.tensor([[8]]), "lie in 8..8; they need 0..7"),
        (torch.tensor([[-1, 1]]), "lie in -1..1"),
        (torch.zeros(2, 3, dtype=torch.long), "all recommended rows are 0"),
        (torch.ones(2, 3), "integers"),
        (torch.ones(3, dtype=torch.long), r"they need \(Q, k\)"),
    ],
)
def test_wrong_rows(rows, message):
    with pytest.raises(ValueError, match=message):
        coverage(rows, N)


def test_no_users():
    with pytest.raises(ValueError, match="num_users=0"):
        novelty(torch.tensor([[1]]), torch.ones(N + 1), num_users=0)
