"""Ranking metrics of queries with one relevant item each, from the rank of that item.

Letters: Q queries.
"""

from collections.abc import Callable, Sequence

import torch


def hit_rate(ranks: torch.Tensor, k: int) -> float:
    """Share of queries whose target is among the first k.

    Args:
        ranks: (Q,) 1-based ranks of the targets.
        k: length of the list.

    Returns:
        A number in 0..1.

    Raises:
        ValueError: if there are no ranks, one is below 1, or k is.
        TypeError: if the ranks are no integers.

    Examples:
        >>> hit_rate(torch.tensor([1, 3, 12]), k=10)
        0.6666666666666666
    """
    return _mean_gain(torch.ones_like, ranks, k)


def recall(ranks: torch.Tensor, k: int) -> float:
    """Share of the relevant items that are among the first k.

    With one relevant item a query this equals the hit rate.

    Args:
        ranks: (Q,) 1-based ranks of the targets.
        k: length of the list.

    Returns:
        A number in 0..1.

    Raises:
        ValueError: if there are no ranks, one is below 1, or k is.
        TypeError: if the ranks are no integers.
    """
    return _mean_gain(torch.ones_like, ranks, k)


def ndcg(ranks: torch.Tensor, k: int) -> float:
    """Normalised discounted cumulative gain: 1 / log2(rank + 1) where the rank is at most k.

    With one relevant item a query the ideal gain is 1.

    Args:
        ranks: (Q,) 1-based ranks of the targets.
        k: length of the list.

    Returns:
        A number in 0..1.

    Raises:
        ValueError: if there are no ranks, one is below 1, or k is.
        TypeError: if the ranks are no integers.

    Source: Järvelin and Kekäläinen 2002, https://doi.org/10.1145/582415.582418.
    """
    return _mean_gain(lambda rank: 1 / torch.log2(rank + 1), ranks, k)


def mrr(ranks: torch.Tensor, k: int) -> float:
    """Mean reciprocal rank: 1 / rank where the rank is at most k.

    Args:
        ranks: (Q,) 1-based ranks of the targets.
        k: length of the list.

    Returns:
        A number in 0..1.

    Raises:
        ValueError: if there are no ranks, one is below 1, or k is.
        TypeError: if the ranks are no integers.
    """
    return _mean_gain(torch.reciprocal, ranks, k)


METRICS: dict[str, Callable[[torch.Tensor, int], float]] = {
    "hit_rate": hit_rate,
    "recall": recall,
    "ndcg": ndcg,
    "mrr": mrr,
}


def ranking_metrics(ranks: torch.Tensor, k: Sequence[int] = (5, 10, 20)) -> dict[str, float]:
    """All metrics at several lengths of the list.

    Args:
        ranks: (Q,) 1-based ranks of the targets.
        k: lengths of the list.

    Returns:
        "hit_rate@5", "recall@5", ... to values in 0..1.

    Raises:
        ValueError: if there are no ranks, one is below 1, or a k is; or if there is no k.
        TypeError: if the ranks are no integers.

    Examples:
        >>> ranking_metrics(torch.tensor([1, 3, 12]), k=[10])["ndcg@10"]
        0.5
    """
    if not k:
        raise ValueError("k is empty: name at least one length of the list, such as k=(10,)")
    return {f"{name}@{cut}": metric(ranks, cut) for cut in k for name, metric in METRICS.items()}


def _mean_gain(gain: Callable[[torch.Tensor], torch.Tensor], ranks: torch.Tensor, k: int) -> float:
    """Mean over queries of the gain of a rank, 0 beyond k."""
    if ranks.is_floating_point():
        raise TypeError(f"ranks hold {ranks.dtype}, they need integers")
    if ranks.ndim != 1 or not len(ranks):
        raise ValueError(f"ranks have shape {tuple(ranks.shape)}, they need (Q,) with Q at least 1")
    if int(ranks.min()) < 1:
        raise ValueError(f"ranks hold {int(ranks.min())}: the best rank is 1")
    if k < 1:
        raise ValueError(f"k={k} must be at least 1")
    # in float64: a mean over millions of queries keeps its digits
    return float(gain(ranks.cpu().double()).where(ranks.cpu() <= k, 0.0).mean())
