import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from odmt_sdk.retrieval.top_k import top_k_rows

INFINITY = float("inf")


def slow_top_k(queries, items, k, excluded=None, allowed=None):
    """Sort all candidates of each query."""
    scores, rows = [], []
    for index, query in enumerate(queries):
        barred = {0, *([] if excluded is None else excluded[index].tolist())}
        if allowed is not None and allowed.dtype is torch.bool:
            barred |= set((~allowed).nonzero()[:, 0].tolist())
        elif allowed is not None:
            barred |= set(range(len(items))) - set(allowed[index].tolist())
        scored = [
            (-float(query @ items[row]), row) for row in range(len(items)) if row not in barred
        ]
        best = (sorted(scored) + [(INFINITY, 0)] * k)[:k]
        scores.append([-score for score, _ in best])
        rows.append([row for _, row in best])
    return torch.tensor(scores, dtype=items.dtype), torch.tensor(rows)


@given(st.data())
def test_equal_to_sorting_each_query(data):
    """Vectors of small integers, whose inner products are exact and often tie."""
    draw = data.draw
    num_queries, num_items, width = (
        draw(st.integers(1, 7)),
        draw(st.integers(1, 14)),
        draw(st.integers(1, 3)),
    )
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    torch.manual_seed(draw(st.integers(0, 2**16)))
    queries = torch.randint(-1, 2, (num_queries, width)).to(dtype)
    items = torch.randint(-2, 3, (num_items + 1, width)).to(dtype)
    excluded = torch.randint(0, num_items + 1, (num_queries, draw(st.integers(0, 8))))
    for_each = torch.randint(0, num_items + 1, (num_queries, draw(st.integers(0, 8))))
    allowed = draw(st.sampled_from([None, torch.rand(num_items + 1) < 0.5, for_each]))
    k, block_size = draw(st.integers(1, 20)), draw(st.integers(1, 120))
    expected = slow_top_k(queries, items, k, excluded, allowed)
    found = top_k_rows(queries, items, k, excluded=excluded, allowed=allowed, block_size=block_size)
    assert found[0].equal(expected[0])
    assert found[1].equal(expected[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("block_size", [40, 999, 2**22])
def test_random_vectors_against_sorting(dtype, block_size):
    queries, items = torch.randn(30, 24, dtype=dtype), torch.randn(301, 24, dtype=dtype)
    excluded = torch.randint(0, 301, (30, 30))
    scores, rows = top_k_rows(queries, items, 12, excluded=excluded, block_size=block_size)
    expected_scores, expected_rows = slow_top_k(queries, items, 12, excluded)
    assert rows.equal(expected_rows)
    torch.testing.assert_close(scores, expected_scores)


def test_closed_form():
    items = torch.tensor([[9.0], [5.0], [7.0], [6.0]])
    scores, rows = top_k_rows(torch.tensor([[1.0], [-2.0]]), items, 2)
    assert rows.tolist() == [[2, 3], [1, 3]]
    assert scores.tolist() == [[7.0, 6.0], [-10.0, -12.0]]


@pytest.mark.parametrize("block_size", [1, 700, 2**22])
def test_of_equal_items_the_lower_row_comes_first(block_size):
    items = torch.ones(2_001, 1)
    items[1_500] = 2.0
    _, rows = top_k_rows(
        torch.ones(3, 1), items, 4, excluded=[[2], [], [1_500, 1]], block_size=block_size
    )
    assert rows.tolist() == [[1_500, 1, 3, 4], [1_500, 1, 2, 3], [2, 3, 4, 5]]


def test_more_queries_than_a_block():
    queries, items = torch.randn(600, 8), torch.randn(90, 8)
    scores, rows = top_k_rows(queries, items, 5, block_size=2_000)
    expected = (queries @ items[1:].T).topk(5)
    assert rows.equal(expected.indices + 1)
    torch.testing.assert_close(scores, expected.values)


def test_too_few_candidates():
    items = torch.randn(5, 3)
    queries = torch.randn(3, 3)
    excluded = torch.tensor([[1, 2, 3, 4], [1, 2, 0, 0], [0, 0, 0, 0]])
    scores, rows = top_k_rows(queries, items, 6, excluded=excluded)
    assert (rows > 0).sum(1).tolist() == [0, 2, 4]
    assert scores.isneginf().equal(rows == 0)
    assert set(rows[1].tolist()) == {0, 3, 4}
    nothing = top_k_rows(queries, items, 2, allowed=torch.zeros(5, dtype=torch.bool))
    assert nothing[0].isneginf().all()
    assert nothing[1].eq(0).all()


def test_padding_is_never_found():
    items = torch.tensor([[100.0], [1.0], [2.0]])
    allowed = torch.tensor([True, True, True])
    assert top_k_rows(torch.ones(1, 1), items, 3, allowed=allowed)[1].tolist() == [[2, 1, 0]]
    items[0] = torch.nan
    assert top_k_rows(torch.ones(1, 1), items, 3)[1].tolist() == [[2, 1, 0]]


def test_order_of_items_does_not_matter():
    queries, items = torch.randn(30, 16), torch.randn(101, 16)
    new_row = torch.cat([torch.zeros(1).long(), torch.randperm(100) + 1])  # old row -> new row
    moved = torch.empty_like(items)
    moved[new_row] = items
    _, rows = top_k_rows(queries, items, 10)
    assert top_k_rows(queries, moved, 10)[1].equal(new_row[rows])


def test_half_precision_is_scored_in_float32():
    items = torch.tensor([[0.0, 0.0], [256.0, 0.0], [256.0, 1.0]], dtype=torch.bfloat16)
    queries = torch.ones(1, 2, dtype=torch.bfloat16)  # 257 cannot be represented in bfloat16
    scores, rows = top_k_rows(queries, items, 2)
    assert rows.tolist() == [[2, 1]]
    assert scores.tolist() == [[257.0, 256.0]]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert top_k_rows(queries, items, 2)[0].tolist() == [[257.0, 256.0]]


def test_arguments_are_left_alone_and_no_graph_is_kept():
    queries, items = torch.randn(4, 3, requires_grad=True), torch.randn(9, 3)
    before = items.clone()
    scores, _ = top_k_rows(queries, items, 2, excluded=[[1], [], [2, 3], [4]])
    assert not scores.requires_grad
    assert items.equal(before)


def test_no_queries():
    scores, rows = top_k_rows(torch.randn(0, 3), torch.randn(5, 3), 2, excluded=[])
    assert scores.shape == rows.shape == (0, 2)


@pytest.mark.parametrize("value", [float("nan"), INFINITY])
def test_scores_that_are_not_finite(value):
    items = torch.ones(9, 2)
    items[4, 1] = value
    with pytest.raises(ValueError, match="a score is NaN or infinite"):
        top_k_rows(torch.ones(3, 2), items, 2, block_size=9)
    assert top_k_rows(torch.ones(1, 2), items, 2, excluded=[[4]])[1].tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"k": 0}, ValueError, "k=0"),
        ({"query_vectors": torch.ones(3)}, ValueError, r"query_vectors has shape \(3,\)"),
        ({"item_vectors": torch.ones(1, 2)}, ValueError, "item_vectors has 1 rows"),
        ({"item_vectors": torch.ones(5, 4)}, ValueError, "2 wide and item_vectors 4"),
        ({"query_vectors": torch.ones(3, 2).long()}, TypeError, "query_vectors holds torch.int64"),
        ({"excluded": [[1]]}, ValueError, r"shape \(1, 1\), 3 queries"),
        ({"excluded": [[1], [2], [9]]}, ValueError, "row 9, outside 0..4"),
        ({"allowed": torch.ones(5)}, ValueError, "allowed is torch.float32"),
        ({"allowed": torch.ones(4).bool()}, ValueError, r"torch.bool of shape \(4,\)"),
        ({"allowed": [[1]]}, ValueError, r"allowed has shape \(1, 1\), 3 queries need"),
        ({"allowed": [[1], [], [9]]}, ValueError, "allowed holds row 9, outside 0..4"),
        ({"k": 2.5}, TypeError, "k=2.5 must be a whole number"),
        ({"block_size": 0}, ValueError, "block_size=0"),
    ],
)
def test_bad_input(changes, error, match):
    arguments = {"query_vectors": torch.ones(3, 2), "item_vectors": torch.ones(5, 2), "k": 2}
    with pytest.raises(error, match=match):
        top_k_rows(**arguments | changes)
