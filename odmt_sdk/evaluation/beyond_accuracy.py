"""Beyond-accuracy metrics of recommended lists: coverage, novelty, serendipity, diversity.

Every function takes the recommended rows of a set of users, best first. Names and formulas follow
RecTools, so the values are comparable. The docstrings note where RePlay uses another name or scale
for the same metric.

Letters: Q users, k recommended items of a user, N items, W width of a content vector.
"""

import torch

from odmt_sdk.scoring import score_type

# Lists processed at a time; their content vectors are (LISTS_PER_BLOCK, k, W).
LISTS_PER_BLOCK = 1024


def coverage(rows: torch.Tensor, num_items: int) -> float:
    """Fraction of the catalogue that is recommended to at least one user.

    Args:
        rows: (Q, k) recommended rows in 1..N; 0 = no item.
        num_items: N.

    Returns:
        A value in 0..1. RecTools: `CatalogCoverage(normalize=True)`; RePlay: `Coverage`.

    Raises:
        ValueError: if a row is outside 0..N, or all are 0.

    Examples:
        >>> coverage(torch.tensor([[1, 2], [1, 3]]), num_items=4)
        0.75
    """
    return float((_exposure(rows, num_items) > 0).double().mean())


def gini(rows: torch.Tensor, num_items: int) -> float:
    """Gini coefficient of the recommendation counts of all items in the catalogue.

    Args:
        rows: (Q, k) recommended rows in 1..N; 0 = no item.
        num_items: N.

    Returns:
        0 if all items are recommended equally often; (N - 1) / N if only one item is recommended.

    Raises:
        ValueError: if a row is outside 0..N, or all are 0.

    Examples:
        >>> gini(torch.tensor([[1], [1]]), num_items=4)
        0.75
    """
    exposure = _exposure(rows, num_items).sort().values  # (N,)
    place = torch.arange(1, num_items + 1, dtype=torch.float64)
    weight = 2 * place - num_items - 1
    return float((weight * exposure).sum() / (num_items * exposure.sum()))


def average_popularity(rows: torch.Tensor, item_counts: torch.Tensor) -> float:
    """Mean number of training interactions of the recommended items.

    Args:
        rows: (Q, k) recommended rows in 1..N; 0 = no item.
        item_counts: (N + 1,) number of training interactions of each item; entry 0 is ignored.

    Returns:
        Mean per user, averaged over users. RecTools: `AvgRecPopularity`.

    Raises:
        ValueError: if a row is outside 0..N, or all are 0.

    Examples:
        >>> average_popularity(torch.tensor([[1, 2], [2, 0]]), torch.tensor([0, 10, 4]))
        5.5
    """
    return _mean_over_lists(item_counts.cpu().double()[_checked(rows, len(item_counts) - 1)], rows)


def novelty(rows: torch.Tensor, item_users: torch.Tensor, num_users: int) -> float:
    """Mean self-information of the recommended items, `-log2(users of the item / all users)`.

    An item without users counts as if it had one user.

    Args:
        rows: (Q, k) recommended rows in 1..N; 0 = no item.
        item_users: (N + 1,) number of training users of each item; entry 0 is ignored.
        num_users: number of training users.

    Returns:
        Bits in 0..log2(num_users): mean per user, averaged over users. RecTools: `MeanInvUserFreq`.
        RePlay's `Surprisal` is this value divided by log2(num_users).

    Raises:
        ValueError: if a row is outside 0..N, all are 0, or there are no users.

    Examples:
        >>> novelty(torch.tensor([[1, 2]]), torch.tensor([0, 8, 2]), num_users=8)
        1.0
    """
    if num_users < 1:
        raise ValueError(f"num_users={num_users} must be at least 1")
    information = -torch.log2(item_users.cpu().double().clamp(min=1) / num_users)  # (N + 1,)
    return _mean_over_lists(information[_checked(rows, len(item_users) - 1)], rows)


def serendipity(rows: torch.Tensor, targets: torch.Tensor, item_counts: torch.Tensor) -> float:
    """How much higher hits are ranked than in a list of the most popular items.

    A hit at rank i counts `max(p(i) - p_any, 0)`, where `p(i) = (N + 1 - i) / N` and `p_any` is p
    at the item's popularity rank. Items with equal counts share a rank. An item without training
    interactions has `p_any = 0`.

    Args:
        rows: (Q, k) recommended rows in 1..N; 0 = no item.
        targets: (Q,) row of each user's next item.
        item_counts: (N + 1,) number of training interactions of each item; entry 0 is ignored.

    Returns:
        A value in 0..1: mean per user, averaged over users. RecTools: `Serendipity`.

    Raises:
        ValueError: if a row is outside 0..N, or all are 0.

    Examples:
        >>> serendipity(torch.tensor([[2, 1]]), torch.tensor([2]), torch.tensor([0, 9, 3, 1, 0]))
        0.125
    """
    num_items = len(item_counts) - 1
    rows = _checked(rows, num_items)
    counts = item_counts.cpu().double()
    distinct = counts[1:].unique().flip(0)  # highest first
    place = torch.searchsorted(-distinct, -counts) + 1  # (N + 1,), ties share a rank
    by_popularity = ((num_items + 1 - place) / num_items).where(counts > 0, 0.0)
    rank = torch.arange(1, rows.shape[1] + 1)
    surprise = ((num_items + 1 - rank) / num_items - by_popularity[rows]).clamp(min=0)  # (Q, k)
    return _mean_over_lists(surprise * (rows == targets.cpu()[:, None]), rows)


def intra_list_diversity(rows: torch.Tensor, vectors: torch.Tensor) -> float:
    """Mean cosine distance between the content vectors of two items in the same list.

    Args:
        rows: (Q, k) recommended rows in 1..N; 0 = no item.
        vectors: (N + 1, W) content vector of each item; row 0 is ignored.

    Returns:
        A value in 0..2, averaged over users with at least two items; 0 if there are no such users.
        RecTools: `IntraListDiversity` with a cosine distance.

    Raises:
        ValueError: if a row is outside 0..N, or all are 0.

    Examples:
        >>> vectors = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> intra_list_diversity(torch.tensor([[1, 2]]), vectors)
        1.0
    """
    rows = _checked(rows, len(vectors) - 1)
    vectors = vectors.cpu()
    unit = torch.nn.functional.normalize(vectors.to(score_type(vectors)), dim=1)  # (N + 1, W)
    total, lists = 0.0, 0
    for block in rows.split(LISTS_PER_BLOCK):
        present = block > 0
        number = present.sum(1)  # (Q',)
        several = number > 1
        kept = unit[block].double() * present[..., None]  # (Q', k, W)
        # sum of products over pairs = square of the sum - sum of the squares
        products = kept.sum(1).square().sum(1) - kept.square().sum((1, 2))
        pairs = (number * (number - 1)).clamp(min=1)
        total += float((1 - products / pairs)[several].sum())
        lists += int(several.sum())
    return total / lists if lists else 0.0


def share(rows: torch.Tensor, group: torch.Tensor) -> float:
    """Share of the recommended items that belong to a group.

    Args:
        rows: (Q, k) recommended rows in 1..N; 0 = no item.
        group: (N + 1,) bool, the items of the group; entry 0 is ignored.

    Returns:
        A value in 0..1: mean per user, averaged over users.

    Raises:
        ValueError: if a row is outside 0..N, or all are 0.

    Examples:
        >>> share(torch.tensor([[1, 2], [2, 0]]), torch.tensor([False, True, False]))
        0.25
    """
    return _mean_over_lists(group.cpu().double()[_checked(rows, len(group) - 1)], rows)


def _exposure(rows: torch.Tensor, num_items: int) -> torch.Tensor:
    """Count how often each item is recommended, (N,)."""
    rows = _checked(rows, num_items)
    return torch.bincount(rows.flatten(), minlength=num_items + 1)[1:].double()


def _mean_over_lists(values: torch.Tensor, rows: torch.Tensor) -> float:
    """Average `values` (Q, k) per user, then over users with at least one item."""
    present = rows.cpu() > 0
    number = present.sum(1)
    means = (values * present).sum(1) / number.clamp(min=1)
    return float(means[number > 0].mean())


def _checked(rows: torch.Tensor, num_items: int) -> torch.Tensor:
    """Check rows and return them on the CPU."""
    rows = rows.cpu()
    if rows.ndim != 2 or rows.is_floating_point():
        raise ValueError(
            f"recommended rows have shape {tuple(rows.shape)} and type {rows.dtype}; they need "
            "(Q, k) and integers"
        )
    if not bool((rows > 0).any()):
        raise ValueError("all recommended rows are 0: there are no lists to measure")
    if int(rows.min()) < 0 or int(rows.max()) > num_items:
        raise ValueError(
            f"recommended rows lie in {int(rows.min())}..{int(rows.max())}; they need "
            f"0..{num_items}"
        )
    return rows.long()
