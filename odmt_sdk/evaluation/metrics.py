"""Ranking metrics for queries with one relevant item, computed from the rank of that item.

Letters: Q queries.
"""

from collections.abc import Callable, Sequence
from operator import index

import torch


def hit_rate(ranks: torch.Tensor, k: int) -> float:
    """Fraction of queries whose target is among the first k items.

    Args:
        ranks: (Q,) 1-based ranks of the targets.
        k: cut-off, the length of the list.

    Returns:
        A value in 0..1.

    Raises:
        ValueError: if there are no ranks, or a rank or k is below 1.
        TypeError: if the ranks are not integers.

    Examples:
        >>> hit_rate(torch.tensor([1, 3, 12]), k=10)
        0.6666666666666666
    """
    return _mean_gain(torch.ones_like, ranks, k)


def recall(ranks: torch.Tensor, k: int) -> float:
    """Fraction of the relevant items that are among the first k items.

    With one relevant item per query, recall equals the hit rate.

    Args:
        ranks: (Q,) 1-based ranks of the targets.
        k: cut-off, the length of the list.

    Returns:
        A value in 0..1.

    Raises:
        ValueError: if there are no ranks, or a rank or k is below 1.
        TypeError: if the ranks are not integers.
    """
    return _mean_gain(torch.ones_like, ranks, k)


def ndcg(ranks: torch.Tensor, k: int) -> float:
    """Normalized discounted cumulative gain: 1 / log2(rank + 1) if the rank is at most k, else 0.

    With one relevant item per query, the ideal gain is 1.

    Args:
        ranks: (Q,) 1-based ranks of the targets.
        k: cut-off, the length of the list.

    Returns:
        The mean over queries, a value in 0..1.

    Raises:
        ValueError: if there are no ranks, or a rank or k is below 1.
        TypeError: if the ranks are not integers.

    Source: Järvelin and Kekäläinen 2002, https://doi.org/10.1145/582415.582418.
    """
    return _mean_gain(lambda rank: 1 / torch.log2(rank + 1), ranks, k)


def mrr(ranks: torch.Tensor, k: int) -> float:
    """Mean reciprocal rank: 1 / rank if the rank is at most k, else 0.

    Args:
        ranks: (Q,) 1-based ranks of the targets.
        k: cut-off, the length of the list.

    Returns:
        The mean over queries, a value in 0..1.

    Raises:
        ValueError: if there are no ranks, or a rank or k is below 1.
        TypeError: if the ranks are not integers.
    """
    return _mean_gain(torch.reciprocal, ranks, k)


METRICS: dict[str, Callable[[torch.Tensor, int], float]] = {
    "hit_rate": hit_rate,
    "recall": recall,
    "ndcg": ndcg,
    "mrr": mrr,
}


def checked_cuts(k: Sequence[int]) -> tuple[int, ...]:
    """Check the cut-offs of the metrics and return them as plain integers.

    A cut-off above the number of items is allowed and covers the whole catalogue.

    Args:
        k: the cut-offs.

    Returns:
        The cut-offs.

    Raises:
        ValueError: if there are none, or one is below 1.
        TypeError: if one is not an integer, or `k` is not a sequence.
    """
    try:
        if any(isinstance(cut, bool) for cut in k):
            raise TypeError
        cuts = tuple(index(cut) for cut in k)
    except TypeError:
        raise TypeError(f"k={k!r} must be whole numbers, such as k=(5, 10)") from None
    if not cuts or min(cuts) < 1:
        raise ValueError(f"k={cuts} must have at least one cut-off, and none below 1")
    return cuts


def ranking_metrics(ranks: torch.Tensor, k: Sequence[int] = (5, 10, 20)) -> dict[str, float]:
    """Compute all metrics at several cut-offs.

    Args:
        ranks: (Q,) 1-based ranks of the targets.
        k: the cut-offs.

    Returns:
        "hit_rate@5", "recall@5", ... -> value in 0..1.

    Raises:
        ValueError: if there are no ranks or no cut-offs, or one of them is below 1.
        TypeError: if the ranks or cut-offs are not integers, or `k` is not a sequence.

    Examples:
        >>> ranking_metrics(torch.tensor([1, 3, 12]), k=[10])["ndcg@10"]
        0.5
    """
    k = checked_cuts(k)
    return {f"{name}@{cut}": metric(ranks, cut) for cut in k for name, metric in METRICS.items()}


def _mean_gain(gain: Callable[[torch.Tensor], torch.Tensor], ranks: torch.Tensor, k: int) -> float:
    """Average the gain of each rank over queries; the gain is 0 for ranks above k."""
    ranks = torch.as_tensor(ranks)  # also a list or a NumPy array
    if ranks.is_floating_point():
        raise TypeError(f"ranks hold {ranks.dtype}; they need integers")
    if ranks.ndim != 1 or not len(ranks):
        raise ValueError(f"ranks have shape {tuple(ranks.shape)}; they need (Q,) with Q at least 1")
    if int(ranks.min()) < 1:
        raise ValueError(f"ranks hold {int(ranks.min())}: the best rank is 1")
    if k < 1:
        raise ValueError(f"k={k} must be at least 1")
    # float64, so that a mean over millions of queries stays exact enough
    return float(gain(ranks.cpu().double()).where(ranks.cpu() <= k, 0.0).mean())
