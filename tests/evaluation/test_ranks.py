import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from odmt_sdk.evaluation import ranks as ranks_module
from odmt_sdk.evaluation.ranks import _count_type, target_ranks


def slow_ranks(queries, items, targets, excluded=None):
    """For each user: score, sort, and find the target, ranked last among ties."""
    found = []
    for index, (query, target) in enumerate(zip(queries, targets.tolist(), strict=True)):
        barred = {0, *([] if excluded is None else list(map(int, excluded[index])))} - {target}
        scored = [
            (float(query @ items[r]), r == target, r) for r in range(len(items)) if r not in barred
        ]
        scored.sort(key=lambda entry: (-entry[0], entry[1]))  # the target after its ties
        found.append([row for _, _, row in scored].index(target) + 1)
    return torch.tensor(found)


@st.composite
def problems(draw):
    """Draw vectors of small integers, whose inner products are exact and often tie."""
    num_queries, num_items, width = (
        draw(st.integers(1, 9)),
        draw(st.integers(1, 14)),
        draw(st.integers(1, 5)),
    )
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    torch.manual_seed(draw(st.integers(0, 2**16)))
    queries = torch.randint(-2, 3, (num_queries, width)).to(dtype)
    items = torch.randint(-2, 3, (num_items + 1, width)).to(dtype)
    targets = torch.randint(1, num_items + 1, (num_queries,))
    excluded = torch.randint(0, num_items + 1, (num_queries, draw(st.integers(0, 6))))
    return queries, items, targets, excluded


@given(problems(), st.integers(1, 80))
def test_equal_to_sorting_each_query(problem, block_size):
    queries, items, targets, excluded = problem
    expected = slow_ranks(queries, items, targets, excluded)
    assert target_ranks(queries, items, targets, excluded=excluded, block_size=block_size).equal(
        expected
    )
    ragged = [[row for row in rows if row] for rows in excluded.tolist()]
    assert target_ranks(queries, items, targets, excluded=ragged).equal(expected)
    without = target_ranks(queries, items, targets, block_size=block_size)
    assert without.equal(slow_ranks(queries, items, targets))
    assert (without >= expected).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_random_vectors_against_sorting(dtype):
    queries, items = torch.randn(40, 24, dtype=dtype), torch.randn(301, 24, dtype=dtype)
    targets, excluded = torch.randint(1, 301, (40,)), torch.randint(0, 301, (40, 30))
    expected = slow_ranks(queries, items, targets, excluded)
    assert target_ranks(queries, items, targets, excluded=excluded).equal(expected)


def test_queries_fall_into_several_blocks(monkeypatch):
    queries, items = torch.randn(300, 8), torch.randn(50, 8)
    targets = torch.randint(1, 50, (300,))
    shapes = []
    product = ranks_module.inner_products

    def record(left, right):
        shapes.append((len(left), len(right)))
        return product(left, right)

    monkeypatch.setattr(ranks_module, "inner_products", record)
    whole = target_ranks(queries, items, targets)
    assert shapes == [(50, 256), (50, 44)]
    shapes.clear()
    assert target_ranks(queries, items, targets, block_size=3_000).equal(whole)
    assert shapes == [(50, 60)] * 5


def test_closed_form():
    items = torch.tensor([[9.0], [5.0], [4.0], [3.0], [2.0]])
    queries = torch.tensor([[1.0], [1.0], [-1.0], [-1.0]])
    assert target_ranks(queries, items, torch.tensor([1, 4, 1, 4])).tolist() == [1, 4, 4, 1]


def test_a_target_ties_with_its_double():
    """A target's score computed separately from the product could differ in the last digit."""
    queries, items = torch.randn(128, 100), torch.randn(257, 100)
    items[65:129] = items[1:65]
    targets = (queries @ items[1:65].T).argmax(1) + 1
    items[129:] *= 0.01  # below all targets
    assert target_ranks(queries, items, targets).eq(2).all()
    assert target_ranks(queries, items, targets + 64).eq(2).all()


def test_ties_count_against_the_model():
    items = torch.tensor([[0.0], [2.0], [1.0], [1.0], [1.0], [0.5]])
    ranks = target_ranks(torch.ones(5, 1), items, torch.tensor([1, 2, 3, 4, 5]))
    assert ranks.tolist() == [1, 4, 4, 4, 5]


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0])
def test_a_constant_scorer_gets_the_last_rank(value):
    targets = torch.arange(1, 31)
    ranks = target_ranks(torch.ones(30, 4), torch.full((31, 4), value), targets)
    assert ranks.tolist() == [30] * 30


def test_padding_is_no_candidate():
    items = torch.tensor([[100.0], [1.0], [2.0]])
    assert target_ranks(torch.ones(2, 1), items, torch.tensor([1, 2])).tolist() == [2, 1]
    items[0] = torch.nan
    assert target_ranks(torch.ones(2, 1), items, torch.tensor([1, 2])).tolist() == [2, 1]


def test_everything_excluded_but_the_target():
    items, targets = torch.randn(21, 3), torch.arange(1, 21)
    everything = torch.arange(1, 21).expand(20, -1)
    ranks = target_ranks(torch.randn(20, 3), items, targets, excluded=everything)
    assert ranks.eq(1).all()


def test_order_of_items_does_not_matter():
    queries, items, targets = (
        torch.randn(30, 16),
        torch.randn(101, 16),
        torch.randint(1, 101, (30,)),
    )
    excluded = torch.randint(0, 101, (30, 12))
    new_row = torch.cat([torch.zeros(1).long(), torch.randperm(100) + 1])  # old row -> new row
    moved = torch.empty_like(items)
    moved[new_row] = items
    ranks = target_ranks(queries, items, targets, excluded=excluded)
    assert target_ranks(queries, moved, new_row[targets], excluded=new_row[excluded]).equal(ranks)


def test_half_precision_is_scored_in_float32():
    items = torch.tensor([[0.0, 0.0], [256.0, 1.0], [256.0, 0.0]], dtype=torch.bfloat16)
    queries = torch.ones(1, 2, dtype=torch.bfloat16)  # 257 cannot be represented in bfloat16
    assert target_ranks(queries, items, torch.tensor([1])).tolist() == [1]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert target_ranks(queries, items.float(), torch.tensor([1])).tolist() == [1]


def test_arguments_are_left_alone_and_no_graph_is_kept():
    queries = torch.randn(4, 3, requires_grad=True)
    items, targets = torch.randn(9, 3), torch.tensor([1, 2, 3, 4])
    before = items.clone()
    ranks = target_ranks(queries, items, targets, excluded=torch.tensor([[5, 0]] * 4))
    assert not ranks.requires_grad
    assert items.equal(before)


def test_no_queries():
    assert target_ranks(torch.randn(0, 3), torch.randn(5, 3), torch.zeros(0).long()).shape == (0,)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_scores_that_are_not_finite(value):
    queries, items = torch.ones(200, 2), torch.ones(9, 2)
    queries[150, 0] = value
    with pytest.raises(ValueError, match=f"query 150 scores item row 1 with {value}"):
        target_ranks(queries, items, torch.ones(200).long())
    items[4, 1] = value
    with pytest.raises(ValueError, match=f"query 0 scores item row 4 with {value}"):
        target_ranks(torch.ones(1, 2), items, torch.tensor([1]), excluded=[[4]])


def test_finite_scores_whose_sum_is_not():
    items = torch.tensor([[0.0], [3e38], [2e38], [1e38]])
    assert target_ranks(torch.ones(1, 1), items, torch.tensor([3])).tolist() == [3]


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"query_vectors": torch.ones(3)}, ValueError, r"query_vectors has shape \(3,\)"),
        ({"item_vectors": torch.ones(1, 2)}, ValueError, "item_vectors has 1 rows"),
        ({"item_vectors": torch.ones(5, 4)}, ValueError, "2 wide and item_vectors 4"),
        ({"item_vectors": torch.ones(5, 2).long()}, TypeError, "item_vectors holds torch.int64"),
        ({"targets": torch.tensor([1])}, ValueError, r"shape \(1,\), but 3 queries"),
        ({"targets": torch.tensor([1, 2, 0])}, ValueError, "row 0, outside 1..4"),
        ({"targets": torch.tensor([1, 2, 5])}, ValueError, "row 5, outside 1..4"),
        ({"targets": torch.ones(3)}, TypeError, "targets hold torch.float32"),
        ({"excluded": torch.ones(2, 1).long()}, ValueError, r"shape \(2, 1\), 3 queries"),
        ({"excluded": [[1], [2], [9]]}, ValueError, "row 9, outside 0..4"),
        ({"excluded": [[1], [-2], [1]]}, ValueError, "row -2, outside 0..4"),
        ({"excluded": torch.ones(3, 1)}, TypeError, "excluded holds torch.float32"),
        ({"block_size": 0}, ValueError, "block_size=0"),
    ],
)
def test_bad_input(changes, error, match):
    arguments = {
        "query_vectors": torch.ones(3, 2),
        "item_vectors": torch.ones(5, 2),
        "targets": torch.tensor([1, 2, 3]),
    }
    with pytest.raises(error, match=match):
        target_ranks(**arguments | changes)


@pytest.mark.parametrize("queries", [1, 2, 257])
@pytest.mark.parametrize("items", [7, 100, 1001])
def test_equal_items_tie_to_the_last_digit(queries, items):
    vectors = torch.randn(1, 192).repeat(items + 1, 1)
    targets = torch.randint(1, items + 1, (queries,))
    ranks = target_ranks(torch.randn(queries, 192), vectors, targets)
    assert ranks.unique().tolist() == [items]


def test_counting_is_exact_beyond_what_float32_counts():
    assert _count_type(torch.empty(1, 2**24 - 1, device="meta")) is torch.float32
    assert _count_type(torch.empty(1, 2**24, device="meta")) is torch.float64
