"""Ranks each query's target among all items, by counting instead of sorting.

Letters: Q queries, N items, W width of a vector, M excluded items of a query.
"""

import torch

from odmt_sdk.item_neighbours import AddedScores
from odmt_sdk.scoring import (
    MAX_QUERIES_PER_BLOCK,
    ExcludedRows,
    check_block_size,
    check_vectors,
    inner_products,
    mask_rows_,
    padded_rows,
    score_type,
)


class NonFiniteScoreError(ValueError):
    """Raised when a score is NaN or infinite, so ranks are undefined."""


@torch.no_grad()
def target_ranks(
    query_vectors: torch.Tensor,
    item_vectors: torch.Tensor,
    targets: torch.Tensor,
    *,
    excluded: ExcludedRows | None = None,
    added: AddedScores | None = None,
    block_size: int = 2**25,
) -> torch.Tensor:
    """Rank each query's target over the full catalogue.

    The score of an item is its inner product with the query vector. The rank of the target is the
    number of candidates with at least the target's score, including the target. Ties therefore
    count against the model: if all items have the same score, the target is ranked last. Vectors in
    half precision are scored in float32.

    Args:
        query_vectors: (Q, W).
        item_vectors: (N + 1, W); row 0 is padding and never a candidate.
        targets: (Q,) rows in 1..N.
        excluded: rows that are not candidates of a query, as (Q, M) padded with 0 or as Q
            sequences. The target is always a candidate.
        added: scores to add to the inner products of each query; None = none.
        block_size: maximum number of scores in memory, but at least those of one query.

    Returns:
        (Q,) int64 ranks in 1..N, on the device of `item_vectors`.

    Raises:
        ValueError: if shapes do not match, a row is out of range, or a score is NaN or infinite.
        TypeError: if vectors or rows have the wrong dtype.

    Examples:
        >>> items = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
        >>> target_ranks(torch.tensor([[1.0]]), items, torch.tensor([1]), excluded=[[3]])
        tensor([2])
    """
    check_vectors(query_vectors, item_vectors)
    check_block_size(block_size)
    num_queries, num_items = len(query_vectors), len(item_vectors) - 1
    device, dtype = item_vectors.device, score_type(query_vectors, item_vectors)
    queries, items = query_vectors.to(device, dtype), item_vectors.to(dtype)
    targets = _check_targets(targets, num_queries, num_items).to(device)
    rows = targets.new_zeros(num_queries, 0)
    if excluded is not None:
        rows = padded_rows(excluded, num_queries, num_items, device)

    ranks = torch.empty_like(targets)
    bounded = _scores_are_finite(queries, items)
    per_block = max(1, min(MAX_QUERIES_PER_BLOCK, block_size // (num_items + 1)))
    for start in range(0, num_queries, per_block):
        block = slice(start, start + per_block)
        vectors = queries[block]
        if len(vectors) == 1:  # a matrix-vector product may round equal items differently
            vectors = vectors.repeat(2, 1)
        # items first, because a CPU multiplies a tall matrix faster than a wide one
        scores = inner_products(items, vectors).T  # (N + 1, W), (Q', W) -> (Q', N + 1)
        scores = scores[: len(targets[block])]
        if added is not None:
            added.add_to_(scores, block)
        if not bounded:
            _check_finite(scores, start)
        ranks[block] = ranks_among(scores, targets[block, None], rows[block])
    return ranks


def ranks_among(
    scores: torch.Tensor, targets: torch.Tensor, excluded: torch.Tensor
) -> torch.Tensor:
    """Return ranks (Q,) of `targets` (Q, 1) by `scores` (Q, N + 1), which are overwritten."""
    # Take the target's score from the same product. Computed separately, it could differ in the
    # last digit, and the target would not tie with itself.
    target_scores = scores.gather(1, targets)  # (Q, 1)
    scores[:, 0] = -torch.inf
    mask_rows_(scores, excluded)
    scores.scatter_(1, targets, target_scores)
    # Overwrite scores with ones and zeros: summing floats is much faster than summing booleans.
    return scores.ge_(target_scores).sum(1, dtype=_count_type(scores)).long()


def _count_type(scores: torch.Tensor) -> torch.dtype:
    """Return a floating-point dtype that can count the columns of `scores` exactly."""
    return scores.dtype if scores.shape[1] < 2**24 else torch.float64


def _check_targets(targets: torch.Tensor, num_queries: int, num_items: int) -> torch.Tensor:
    if targets.is_floating_point() or targets.dtype is torch.bool:
        raise TypeError(f"targets hold {targets.dtype}; they need integers: rows of items")
    if targets.shape != (num_queries,):
        raise ValueError(
            f"targets have shape {tuple(targets.shape)}, but {num_queries} queries need one each: "
            f"({num_queries},)"
        )
    if num_queries:
        low, high = (int(value) for value in targets.aminmax())
        if low < 1 or high > num_items:
            raise ValueError(
                f"targets hold row {low if low < 1 else high}, outside 1..{num_items}: was the "
                "data split with the vocabulary of this model?"
            )
    return targets.long()


def _scores_are_finite(queries: torch.Tensor, items: torch.Tensor) -> bool:
    """Check that the vectors are too small for a product to overflow; False = unknown.

    Row 0 of `items`, padding, is included, so a large value there also gives False.
    """
    if not queries.numel() or not items.shape[1]:
        return True
    largest = [torch.stack(x.aminmax()).abs().amax().double() for x in (queries, items)]
    bound = largest[0] * largest[1] * items.shape[1]
    return bool(bound < torch.finfo(items.dtype).max / 2)  # False for NaN


def _check_finite(scores: torch.Tensor, first_query: int) -> None:
    """Raise unless `scores` (Q, N + 1) are finite; column 0, padding, is ignored."""
    scores[:, 0] = 0
    if bool(scores.isfinite().all()):
        return
    query, row = (~scores.isfinite()).nonzero()[0].tolist()
    raise NonFiniteScoreError(
        f"query {first_query + query} scores item row {row} with {float(scores[query, row])}: "
        "ranks need finite scores. Look for NaN or infinity in the model's weights or features"
    )
