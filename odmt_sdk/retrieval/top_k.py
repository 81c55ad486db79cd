"""The k best items of each query, without holding the scores of all items at once.

Letters: Q queries, N items, N' items of a block, W width of a vector, M excluded items of a query.
"""

import torch

from odmt_sdk.scoring import (
    ExcludedRows,
    check_block_size,
    check_vectors,
    inner_products,
    mask_rows_,
    padded_rows,
    score_type,
)

# More queries at once make the product hardly faster, and their scores leave the CPU's cache.
MAX_QUERIES_PER_BLOCK = 256


@torch.no_grad()
def top_k_rows(
    query_vectors: torch.Tensor,
    item_vectors: torch.Tensor,
    k: int,
    *,
    excluded: ExcludedRows | None = None,
    allowed: torch.Tensor | None = None,
    block_size: int = 2**22,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the k items with the highest inner products for each query.

    Of items that score alike the one with the lower row comes first. Vectors of half precision are
    scored in float32.

    Args:
        query_vectors: (Q, W).
        item_vectors: (N + 1, W); row 0, padding, is never found.
        k: how many to find.
        excluded: rows not to find for a query, (Q, M) padded with 0 or Q sequences.
        allowed: (N + 1,) bool, the rows that any query may find; None = all. Entry 0 is ignored.
        block_size: scores held at once.

    Returns:
        Scores (Q, k) and rows (Q, k), best first, on the device of `item_vectors`. Where a query
        has fewer than k candidates, the rest is score -inf and row 0.

    Raises:
        ValueError: if k is below 1, shapes do not fit, a row is out of range, or a score found is
            NaN or infinite.
        TypeError: if vectors or rows have the wrong type.

    Examples:
        >>> items = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
        >>> top_k_rows(torch.tensor([[1.0]]), items, k=2, excluded=[[3]])
        (tensor([[2., 1.]]), tensor([[2, 1]]))
    """
    check_vectors(query_vectors, item_vectors)
    check_block_size(block_size)
    if k < 1:
        raise ValueError(f"k={k} must be at least 1")
    num_queries, num_rows = len(query_vectors), len(item_vectors)
    device, dtype = item_vectors.device, score_type(query_vectors, item_vectors)
    queries = query_vectors.to(device, dtype)
    rows = torch.zeros(num_queries, 0, dtype=torch.long, device=device)
    if excluded is not None:
        rows = padded_rows(excluded, num_queries, num_rows - 1, device)
    closed = None if allowed is None else ~_check_allowed(allowed, num_rows).to(device)

    # Items masked with -inf never come in: these rows 0 score the same and are lower.
    best_scores = torch.full((num_queries, k), -torch.inf, dtype=dtype, device=device)
    best_rows = torch.zeros(num_queries, k, dtype=torch.long, device=device)
    per_block = max(1, min(MAX_QUERIES_PER_BLOCK, num_queries, block_size))
    items_per_block = max(1, block_size // per_block)
    for start in range(0, num_queries, per_block):
        block = slice(start, start + per_block)
        for first in range(0, num_rows, items_per_block):
            items = item_vectors[first : first + items_per_block].to(dtype)  # (N', W)
            scores = inner_products(queries[block], items)  # (Q', W) -> (Q', N')
            if first == 0:
                scores[:, 0] = -torch.inf
            if closed is not None:
                scores.masked_fill_(closed[first : first + items_per_block], -torch.inf)
            mask_rows_(scores, rows[block], first)
            found_scores, found_columns = _top_k(scores, k)
            best_scores[block], best_rows[block] = _merge(
                (best_scores[block], best_rows[block]), (found_scores, found_columns + first)
            )
    # NaN sorts above every number, so it would stand among the best and fail this comparison
    if not bool((best_scores < torch.inf).all()):
        raise ValueError(
            "a score is NaN or infinite: retrieval needs finite scores. Look for NaN or infinity "
            "in the model's weights or features"
        )
    return best_scores, best_rows


def _top_k(scores: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The best of `scores` (Q, N'), at most k; which of equal ones come in is decided by column.

    Returns:
        Scores and columns, each (Q, min(k, N')), by falling score, equal ones in any order.
    """
    # one more than asked for shows where equal scores stand on both sides of the cut
    values, columns = scores.topk(min(k + 1, scores.shape[1]))
    if values.shape[1] <= k:
        return values, columns
    cut = values[:, k - 1]
    values, beyond, columns = values[:, :k], values[:, k], columns[:, :k]
    tied = ((cut == beyond) & (cut > -torch.inf)).nonzero()[:, 0]
    if len(tied):
        columns[tied] = _lowest_columns(scores[tied], values[tied], columns[tied])
    return values, columns


def _lowest_columns(
    scores: torch.Tensor, values: torch.Tensor, columns: torch.Tensor
) -> torch.Tensor:
    """Replace the columns of the lowest of the k values by the lowest columns that have it.

    Args:
        scores: (Q, N').
        values: (Q, k), the highest scores, falling.
        columns: (Q, k), where they were found.

    Returns:
        Columns (Q, k).
    """
    k = values.shape[1]
    cut = values[:, -1:]
    position = torch.arange(scores.shape[1], device=scores.device)
    holders = position.where(scores == cut, len(position)).topk(k, largest=False).values  # (Q, k)
    above = values > cut
    place = torch.arange(k, device=scores.device) - above.sum(1, keepdim=True)  # among the tied
    return columns.where(above, holders.gather(1, place.clamp(min=0)))


def _merge(
    best: tuple[torch.Tensor, torch.Tensor], found: tuple[torch.Tensor, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The k best of `best`, scores and rows (Q, k), and `found` (Q, <= k); lower rows first."""
    k = best[0].shape[1]
    scores, rows = (torch.cat(pair, dim=1) for pair in zip(best, found, strict=True))
    rows, order = rows.sort(dim=1)
    scores, order = scores.gather(1, order).sort(dim=1, descending=True, stable=True)
    return scores[:, :k], rows.gather(1, order)[:, :k]


def _check_allowed(allowed: torch.Tensor, num_rows: int) -> torch.Tensor:
    if allowed.dtype is not torch.bool or allowed.shape != (num_rows,):
        raise ValueError(
            f"allowed is {allowed.dtype} of shape {tuple(allowed.shape)}, it needs torch.bool of "
            f"shape ({num_rows},): one value per row of item_vectors"
        )
    return allowed
