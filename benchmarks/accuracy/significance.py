"""Metrics and significance tests of the comparison, from every user's rank and list.

Letters: Q users, S samples, K items of a list, N items.
"""

from collections.abc import Mapping

import torch

from odmt_sdk.evaluation import ranking_metrics

CUTS = (10, 20)
METRICS = ("hit_rate@10", "ndcg@10", "hit_rate@20", "ndcg@20")
SAMPLES = 5000


def group_metrics(
    ranks: torch.Tensor, groups: Mapping[str, torch.Tensor]
) -> dict[str, dict[str, float]]:
    """Metrics of all users and of each group of targets that is not empty.

    Args:
        ranks: (Q,) ranks, starting at 1.
        groups: name -> mask (Q,).

    Returns:
        "all" and the names of the groups -> metrics, including "users", the number of users.
    """
    found = {}
    for name, mask in {"all": torch.ones_like(ranks, dtype=torch.bool), **groups}.items():
        if bool(mask.any()):
            metrics = ranking_metrics(ranks[mask], CUTS)
            found[name] = {"users": int(mask.sum()), **{m: metrics[m] for m in METRICS}}
    return found


def gains(ranks: torch.Tensor, metric: str) -> torch.Tensor:
    """Contribution (Q,) float64 of each rank (Q,) to the mean of a metric such as "ndcg@10"."""
    name, _, cut = metric.partition("@")
    inside = ranks <= int(cut)
    if name == "hit_rate":
        return inside.double()
    return torch.where(inside, 1 / torch.log2(ranks.double() + 1), 0.0)


def paired_bootstrap(
    first: torch.Tensor, second: torch.Tensor, *, samples: int = SAMPLES, seed: int = 0
) -> dict[str, float]:
    """Paired bootstrap test of two methods on the same users.

    Args:
        first: (Q,) gains of the first method.
        second: (Q,) gains of the second method for the same users.
        samples: number S of bootstrap samples.
        seed: seed of the sampling.

    Returns:
        "difference" of the means, its 95 % confidence interval "low" and "high", and "p": twice the
        smaller share of samples on either side of zero, at least 1 / (S + 1).
    """
    differences = (first - second).double()
    generator = torch.Generator().manual_seed(seed)
    number = len(differences)
    means = torch.cat(
        [
            differences[torch.randint(number, (size, number), generator=generator)].mean(1)
            for size in [100] * (samples // 100) + [samples % 100]
            if size
        ]
    )
    below, above = int((means <= 0).sum()), int((means >= 0).sum())
    low, high = means.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return {
        "difference": float(differences.mean()),
        "low": low,
        "high": high,
        "p": min(1.0, 2 * (min(below, above) + 1) / (samples + 1)),
    }


def list_figures(lists: torch.Tensor, item_counts: torch.Tensor) -> dict[str, float]:
    """Coverage and popularity of the recommended items.

    Args:
        lists: (Q, K) rows of recommended items; 0 = none.
        item_counts: (N + 1,) training interactions.

    Returns:
        "coverage": share of the catalogue that occurs in at least one list. "popularity": mean
        number of training interactions of a recommended item, divided by the mean over training
        interactions; 1 if recommended items are as popular as the items that users choose.
    """
    shown = lists[lists > 0]
    counts = item_counts.double()
    chosen = (counts * counts).sum() / counts.sum()  # mean over interactions, not over items
    return {
        "coverage": len(shown.unique()) / (len(item_counts) - 1),
        "popularity": float(counts[shown].mean() / chosen),
    }


def mean_and_deviation(values: list[float]) -> tuple[float, float]:
    """Mean and standard deviation over seeds; the deviation of a single value is 0."""
    numbers = torch.tensor(values, dtype=torch.float64)
    return float(numbers.mean()), float(numbers.std()) if len(values) > 1 else 0.0
