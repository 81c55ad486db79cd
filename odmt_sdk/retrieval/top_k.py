"""Finds the k best items of each query, without keeping the scores of all items in memory.

Letters: Q queries, N items, N' items of a block, W width of a vector, M excluded items of a query.
"""

from typing import TypeGuard

import torch

from odmt_sdk.config import whole_number
from odmt_sdk.item_neighbours import AddedScores
from odmt_sdk.scoring import (
    MAX_QUERIES_PER_BLOCK,
    ExcludedRows,
    check_block_size,
    check_vectors,
    inner_products,
    mask_other_rows_,
    mask_rows_,
    padded_rows,
    score_type,
)


@torch.no_grad()
def top_k_rows(
    query_vectors: torch.Tensor,
    item_vectors: torch.Tensor,
    k: int,
    *,
    excluded: ExcludedRows | None = None,
    allowed: ExcludedRows | None = None,
    added: AddedScores | None = None,
    block_size: int = 2**22,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the k items with the highest inner product for each query.

    Items with equal scores are ordered by row, lowest first. Vectors in half precision are scored
    in float32.

    Args:
        query_vectors: (Q, W).
        item_vectors: (N + 1, W); row 0 is padding and never returned.
        k: number of items to find.
        excluded: rows to exclude for a query, as (Q, M) padded with 0 or as Q sequences.
        allowed: candidate rows. Either a mask (N + 1,) for all queries, of which entry 0 is
            ignored; or rows per query, as (Q, M) padded with 0 or as Q sequences. None = all.
        added: scores to add to the inner products of each query; None = none.
        block_size: maximum number of scores in memory.

    Returns:
        Scores (Q, k) and rows (Q, k), best first, on the device of `item_vectors`. If a query has
        fewer than k candidates, the remaining entries have score -inf and row 0.

    Raises:
        ValueError: if k is below 1, shapes do not match, a row is out of range, or a score among
            the best is NaN or infinite.
        TypeError: if vectors or rows have the wrong dtype.

    Examples:
        >>> items = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
        >>> top_k_rows(torch.tensor([[1.0]]), items, k=2, excluded=[[3]])
        (tensor([[2., 1.]]), tensor([[2, 1]]))
    """
    check_vectors(query_vectors, item_vectors)
    check_block_size(block_size)
    k = whole_number("k", k)
    num_queries, num_rows = len(query_vectors), len(item_vectors)
    device, dtype = item_vectors.device, score_type(query_vectors, item_vectors)
    queries = query_vectors.to(device, dtype)
    rows = torch.zeros(num_queries, 0, dtype=torch.long, device=device)
    if excluded is not None:
        rows = padded_rows(excluded, num_queries, num_rows - 1, device)
    closed, kept = None, None
    if _for_all(allowed):
        closed = ~_check_allowed(allowed, num_rows).to(device)
    elif allowed is not None:
        kept = padded_rows(allowed, num_queries, num_rows - 1, device, "allowed")

    # Items masked with -inf never replace these entries, because ties go to the lower row, 0.
    best_scores = torch.full((num_queries, k), -torch.inf, dtype=dtype, device=device)
    best_rows = torch.zeros(num_queries, k, dtype=torch.long, device=device)
    per_block = max(1, min(MAX_QUERIES_PER_BLOCK, num_queries, block_size))
    items_per_block = max(1, block_size // per_block)
    for start in range(0, num_queries, per_block):
        block = slice(start, start + per_block)
        for first in range(0, num_rows, items_per_block):
            items = item_vectors[first : first + items_per_block].to(dtype)  # (N', W)
            scores = inner_products(queries[block], items)  # (Q', W) -> (Q', N')
            if added is not None:
                added.add_to_(scores, block, first)
            if first == 0:
                scores[:, 0] = -torch.inf
            if closed is not None:
                scores.masked_fill_(closed[first : first + items_per_block], -torch.inf)
            if kept is not None:
                mask_other_rows_(scores, kept[block], first)
                if first == 0:
                    scores[:, 0] = -torch.inf  # padding of `allowed`
            mask_rows_(scores, rows[block], first)
            found_scores, found_columns = _top_k(scores, k)
            best_scores[block], best_rows[block] = _merge(
                (best_scores[block], best_rows[block]), (found_scores, found_columns + first)
            )
    # NaN sorts above every number, so it is among the best scores and fails this comparison
    if not bool((best_scores < torch.inf).all()):
        raise ValueError(
            "a score is NaN or infinite: retrieval needs finite scores. Look for NaN or infinity "
            "in the model's weights or features"
        )
    return best_scores, best_rows


def _top_k(scores: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the k best of `scores` (Q, N'); ties at the cut-off go to the lower column.

    Returns:
        Scores and columns, each (Q, min(k, N')), by decreasing score; ties are in any order.
    """
    # one extra value shows whether there is a tie at the cut-off
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
    """Resolve ties at the cut-off in favour of the lowest columns.

    Args:
        scores: (Q, N').
        values: (Q, k), the highest scores in decreasing order.
        columns: (Q, k), their columns.

    Returns:
        Columns (Q, k), where those with the lowest of the k values are the lowest possible ones.
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
    """Merge scores and rows (Q, k) with others (Q, <= k); keep the k best, lower rows first."""
    k = best[0].shape[1]
    scores, rows = (torch.cat(pair, dim=1) for pair in zip(best, found, strict=True))
    rows, order = rows.sort(dim=1)
    scores, order = scores.gather(1, order).sort(dim=1, descending=True, stable=True)
    return scores[:, :k], rows.gather(1, order)[:, :k]


def _for_all(allowed: ExcludedRows | None) -> TypeGuard[torch.Tensor]:
    """Check whether `allowed` is meant for all queries; it may still be invalid."""
    return isinstance(allowed, torch.Tensor) and (
        allowed.dtype is torch.bool or allowed.is_floating_point() or allowed.ndim == 1
    )


def _check_allowed(allowed: torch.Tensor, num_rows: int) -> torch.Tensor:
    if allowed.dtype is not torch.bool or allowed.shape != (num_rows,):
        raise ValueError(
            f"allowed is {allowed.dtype} of shape {tuple(allowed.shape)}; it needs torch.bool of "
            f"shape ({num_rows},): one value per row of item_vectors; or rows for each query"
        )
    return allowed
