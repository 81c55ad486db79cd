"""Groups of items or users that are measured separately.

Letters: Q queries (users), N items.
"""

from collections.abc import Hashable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch.utils.data import Dataset, Subset

from odmt_sdk.data.sequences import TrainingCounts
from odmt_sdk.vocabulary import ItemVocabulary, plain_ids

POPULAR_SHARE = 0.5  # of the training interactions


class Group(NamedTuple):
    """The members of a group, given as items or as queries.

    Attributes:
        items: (N + 1,) bool, rows of the group; its queries are those with such a target.
        queries: (Q,) bool, queries of the group.
    """

    items: torch.Tensor | None = None
    queries: torch.Tensor | None = None

    def of(self, targets: torch.Tensor) -> torch.Tensor:
        """The queries of the group, (Q,) bool, by the rows of their targets (Q,)."""
        if self.items is not None:
            return self.items[targets]
        assert self.queries is not None  # one of the two
        return self.queries


def popularity_groups(item_counts: torch.Tensor) -> dict[str, torch.Tensor]:
    """Divide the catalogue into cold, warm and popular items.

    Args:
        item_counts: (N + 1,) number of training interactions of each item; entry 0 is ignored.

    Returns:
        Name -> (N + 1,) bool; entry 0 is False. "cold": items without training interactions.
        "popular": the smallest set of most frequent items that has half of the interactions; items
        that are as frequent as the last of them belong to it, too. "warm": all other items.

    Examples:
        >>> groups = popularity_groups(torch.tensor([0, 5, 3, 1, 1, 0]))
        >>> {name: rows.nonzero()[:, 0].tolist() for name, rows in groups.items()}
        {'cold': [5], 'warm': [2, 3, 4], 'popular': [1]}
    """
    counts = item_counts.cpu().double()
    counts[0] = 0
    falling = counts.sort(descending=True).values
    enough = falling.cumsum(0) >= POPULAR_SHARE * falling.sum()
    popular = (counts >= falling[int(enough.nonzero()[0])]) & (counts > 0)
    cold = counts == 0
    cold[0] = False
    return {"cold": cold, "warm": (counts > 0) & ~popular, "popular": popular}


def number_of_rows(dataset: Dataset[Any]) -> int:
    """The length of a map-style dataset.

    Args:
        dataset: a dataset with a length, which torch does not declare for all datasets.

    Returns:
        Its length.

    Raises:
        TypeError: if it has no length.
    """
    if not hasattr(dataset, "__len__"):
        raise TypeError(
            f"dataset is a {type(dataset).__name__}: pass one part of it, or another dataset with "
            "a length, such as split.test"
        )
    return len(dataset)


def checked_groups(
    groups: Mapping[str, Any],
    dataset: Dataset[Any],
    *,
    num_items: int,
    taken: Iterable[str],
    vocabulary: ItemVocabulary | None,
) -> dict[str, Group]:
    """Check groups and convert them to masks.

    Args:
        groups: name -> {"items": item ids, or (N + 1,) bool by row} or {"users": user ids of the
            dataset, or (Q,) bool by query}.
        dataset: Q queries.
        num_items: N.
        taken: names that a group must not have.
        vocabulary: the item ids; None = items can only be given by row.

    Returns:
        Name -> group.

    Raises:
        ValueError: if a name is taken or has a slash, a group is invalid, or an id is unknown.
    """
    if not isinstance(groups, Mapping):
        raise ValueError(f"groups={groups!r} must map names to groups, such as {_EXAMPLE}")
    for name in groups:
        if not isinstance(name, str) or not name or "/" in name or name in set(taken):
            raise ValueError(
                f"a group is named {name!r}: its name must be a string without a slash, and not "
                f"one of {', '.join(taken)}"
            )
    return {
        name: _group(name, members, dataset, num_items, vocabulary)
        for name, members in groups.items()
    }


_EXAMPLE = '{"new": {"items": item_ids}} or {"heavy": {"users": user_ids}}'


def _group(
    name: str,
    members: Any,
    dataset: Dataset[Any],
    num_items: int,
    vocabulary: ItemVocabulary | None,
) -> Group:
    if not isinstance(members, Mapping) or list(members) not in (["items"], ["users"]):
        raise ValueError(f"group {name!r} must name its items or its users: {_EXAMPLE}")
    ((kind, chosen),) = members.items()
    mask = _as_mask(chosen)
    size = num_items + 1 if kind == "items" else number_of_rows(dataset)
    if mask is not None:
        if mask.shape != (size,):
            one = "row of the catalogue, padding first" if kind == "items" else "query"
            raise ValueError(
                f"group {name!r} has booleans of shape {tuple(mask.shape)}; it needs ({size},): "
                f"one per {one}"
            )
        if kind == "users":
            return Group(queries=mask)
        mask = mask.clone()
        mask[0] = False
        return Group(items=mask)
    ids = plain_ids(chosen, f"group {name!r}", ordered=False)
    if kind == "items":
        if vocabulary is None:
            raise ValueError(
                f"group {name!r} has item ids, but the model has no vocabulary: give booleans by "
                "row"
            )
        try:
            rows = vocabulary.rows(ids)
        except ValueError as error:
            raise ValueError(f"group {name!r}: {error}") from None
        mask = torch.zeros(size, dtype=torch.bool)
        mask[rows] = True
        return Group(items=mask)
    return Group(queries=_queries_of(name, ids, dataset))


def _as_mask(chosen: Any) -> torch.Tensor | None:
    """Booleans by row or query, or None if these are ids."""
    if hasattr(chosen, "dtype") and str(chosen.dtype).lower().endswith("bool"):
        return torch.as_tensor(chosen).cpu()
    if isinstance(chosen, list | tuple) and set(map(type, chosen)) == {bool}:
        return torch.tensor(chosen)
    return None


def _queries_of(name: str, ids: list[Hashable], dataset: Dataset[Any]) -> torch.Tensor:
    users = _user_ids(dataset)
    if users is None:
        raise ValueError(
            f"group {name!r} has user ids, but the dataset has none: give booleans by query"
        )
    known = {(type(user), user) for user in users}  # 1 and True are different ids
    unknown = [user for user in ids if (type(user), user) not in known]
    if unknown:
        raise ValueError(
            f"group {name!r} has {len(unknown)} users that are not in the dataset, such as "
            f"{unknown[0]!r}: use ids of dataset.user_ids, of the same type"
        )
    wanted = {(type(user), user) for user in ids}
    return torch.tensor([(type(user), user) in wanted for user in users])


def _user_ids(dataset: Dataset[Any]) -> list[Hashable] | None:
    if isinstance(dataset, Subset):
        users = _user_ids(dataset.dataset)
        return users and [users[index] for index in dataset.indices]
    users = getattr(dataset, "user_ids", None)
    return None if users is None else list(users)


def counts_of(dataset: Dataset[Any], num_items: int) -> TrainingCounts:
    """The training counts of a dataset; for a subset, those of the whole dataset.

    Args:
        dataset: a `RankingDataset`, or a `Subset` of it.
        num_items: N.

    Returns:
        The counts.

    Raises:
        ValueError: if the dataset has no counts, or they belong to another catalogue.
    """
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    counts: TrainingCounts | None = getattr(dataset, "training_counts", None)
    if counts is None:
        raise ValueError(
            f"beyond_accuracy=True needs the training counts of items, but this "
            f"{type(dataset).__name__} has no training_counts: evaluate on a part of "
            "leave_one_out or time_split, or set dataset.training_counts = "
            "TrainingCounts.of(rows, offsets, num_items=...)"
        )
    for which in ("items", "users"):
        shape = tuple(getattr(counts, which).shape)
        if shape != (num_items + 1,):
            raise ValueError(
                f"training_counts.{which} has shape {shape}, but the {num_items} items of the "
                f"model need ({num_items + 1},): split the data with the model's vocabulary"
            )
    return counts
