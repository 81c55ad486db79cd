"""Adds item-to-item counts to a trained model, as an additional source of scores.

Letters: B histories, N items.
"""

import operator
from collections.abc import Mapping, Sequence

import torch
from torch.utils.data import DataLoader, Subset

from odmt_sdk.baselines import ItemToItem
from odmt_sdk.data.collator import SequenceCollator
from odmt_sdk.data.sequences import RankingDataset
from odmt_sdk.data.splits import Split
from odmt_sdk.evaluation.metrics import ranking_metrics
from odmt_sdk.evaluation.ranks import target_ranks
from odmt_sdk.item_neighbours import ItemNeighbours
from odmt_sdk.item_regression import can_regress
from odmt_sdk.modes import evaluating
from odmt_sdk.scoring import fused_vectors, score_deviation, weighted_query_vectors
from odmt_sdk.wrapper import ODMTWrapper

# Shares of the deviation of the model's scores that the deviation of the counts may have.
SHARES = (0.0, 0.02, 0.05, 0.08, 0.11, 0.15, 0.2, 0.3, 0.5)
DECAYS = (0.7, 0.9)  # of the items of a history, the latest first
MOST_QUERIES = 10_000  # of validation on which the weight is chosen
MAX_DISTANCE = 20  # pairs of a training sequence that stand further apart are not counted


def add_item_to_item(
    model: ODMTWrapper,
    split: Split,
    *,
    counts: ItemToItem | None = None,
    neighbours: int = 50,
    metric: str = "ndcg@10",
    exclude_seen: bool = True,
    batch_size: int = 256,
) -> float:
    """Count which items follow each other in training, and add the counts to a model's scores.

    Catalogues of up to 10,000 items also get weights of a linear regression (EASE): which items of
    a user predict which others. In total they weigh twice as much as the counts.

    Nine weights of the counts are tried, including 0, and the one with the best validation metric
    is kept. Weights around it are tried once more with counts that read more of a history: each
    item counts 0.9 times as much as the next one, instead of 0.7 times. `fit` calls this function
    after training. Call it yourself for a model that was trained without counts.

    Args:
        model: a trained model; its `item_to_item` is replaced, or set to None if weight 0 is best.
        split: from `leave_one_out` or `time_split`, with the vocabulary of the model.
        counts: the counts to add; both decays are tried, whatever their own is. None =
            `ItemToItem(split, max_distance=20, regression=True)`, without the regression where the
            data are too large for it.
        neighbours: number of neighbours to keep per item, 1..1000.
        metric: validation metric that selects the weight, such as "ndcg@10".
        exclude_seen: whether to exclude items the user has already seen, except the target.
        batch_size: histories scored at once.

    Returns:
        The weight, which is `model.item_to_item_weight` from now on.

    Raises:
        ValueError: if split, counts and model have different vocabularies, `neighbours` is not in
            1..1000, the metric is unknown, or validation is empty.
        TypeError: if `split` is no `Split`, or `counts` no `ItemToItem`.

    Examples:
        >>> model.item_to_item_weight, add_item_to_item(model, split)       # doctest: +SKIP
        (0.0, 20.5)
    """
    check_same_items(model, split)
    _, cut = metric_and_cut(metric)
    if counts is None:
        counts = item_to_item_counts(split)
    elif not isinstance(counts, ItemToItem):
        raise TypeError(f"counts is a {type(counts).__name__}, but it must be an ItemToItem")
    elif counts.vocabulary != model.vocabulary:
        raise ValueError(
            f"counts are of {len(counts.vocabulary)} items, other than the {model.num_items} items "
            "of the model, or in another order: count the same split"
        )
    counted = counts.neighbours(neighbours)
    queries = EncodedQueries(
        model, split.validation, exclude_seen=exclude_seen, batch_size=batch_size
    )
    tried: list[tuple[float, int, ItemNeighbours]] = []  # metric, place in `SHARES`, counts

    def try_shares(decay: float, places: Sequence[int]) -> None:
        rows, weights = counted.rows, counted.weights
        full = queries.full_weight(model.source_weights, ItemNeighbours(rows, weights, decay=decay))
        for place in places:
            near = ItemNeighbours(rows, weights, decay=decay, weight=SHARES[place] * full)
            ranks = queries.ranks(model.source_weights, near)
            tried.append((ranking_metrics(ranks, (cut,))[metric], place, near))

    first, *others = DECAYS
    try_shares(first, range(len(SHARES)))
    _, place, _ = max(tried, key=operator.itemgetter(0))  # the first of several maxima
    for decay in others:
        try_shares(decay, range(max(1, place - 1), min(place + 2, len(SHARES))))
    _, _, best = max(tried, key=operator.itemgetter(0))
    model.item_to_item = best if best.weight else None
    return model.item_to_item_weight


def item_to_item_counts(split: Split) -> ItemToItem:
    """Count pairs as `fit` does, with a regression unless the data are too large for it.

    Args:
        split: from `leave_one_out` or `time_split`; its training part is counted.

    Returns:
        The counts.
    """
    return ItemToItem(split, max_distance=MAX_DISTANCE, regression=can_regress(split))


def metric_and_cut(metric: str) -> tuple[str, int]:
    """Split the name of a metric of the whole model into the metric and its cut-off.

    Args:
        metric: such as "ndcg@10".

    Returns:
        For example ("ndcg", 10).

    Raises:
        ValueError: if it is the metric of a source, or unknown.
    """
    name, _, cut = metric.rpartition("@")
    if not cut.isdigit() or metric not in ranking_metrics(torch.ones(1).long(), (int(cut),)):
        raise ValueError(
            f"metric={metric!r} must be hit_rate, recall, ndcg or mrr of the whole model at a "
            "cut-off, such as 'ndcg@10'"
        )
    return name, int(cut)


def check_same_items(model: ODMTWrapper, split: Split) -> None:
    """Raise `ValueError` unless a model has the items of a split, in the same order.

    Args:
        model: the model.
        split: the split.

    Raises:
        ValueError: if the vocabularies differ.
        TypeError: if one of them is something else.
    """
    if not hasattr(model, "vocabulary"):
        raise TypeError(
            f"model is a {type(model).__name__}, which has no items: wrap it, "
            "ODMTWrapper(backbone=model, item_features=...)"
        )
    if not isinstance(split, Split):
        raise TypeError(
            f"split is a {type(split).__name__}: pass the whole split of leave_one_out or "
            "time_split, not a part of it"
        )
    if model.vocabulary != split.vocabulary:
        raise ValueError(
            f"the {model.num_items} items of the model and the {len(split.vocabulary)} items of "
            "the split differ, or their order does: split the data with "
            "leave_one_out(..., vocabulary=model.vocabulary)"
        )


class EncodedQueries:
    """Validation queries of a trained model, encoded once to be ranked in several ways.

    Of more than `MOST_QUERIES` queries, every n-th is used.

    Args:
        model: a trained model.
        dataset: the queries.
        exclude_seen: whether to exclude items the user has already seen, except the target.
        batch_size: histories encoded and ranked at once.

    Raises:
        ValueError: if there are no queries.
    """

    @torch.no_grad()
    def __init__(
        self, model: ODMTWrapper, dataset: RankingDataset, *, exclude_seen: bool, batch_size: int
    ) -> None:
        if not len(dataset):
            raise ValueError("validation is empty: there is no user to choose weights on")
        queries = Subset(dataset, range(0, len(dataset), -(-len(dataset) // MOST_QUERIES)))
        self._sources, self._exclude_seen = model.sources, exclude_seen
        # source -> states (B, D), targets (B,) and rows of the whole history (B, M), of each batch
        self._batches: list[tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]] = []
        with evaluating(model):
            catalogue = model.encode_catalogue()
            self._items = fused_vectors(catalogue, model.sources)  # (N + 1, S * D)
            for batch in DataLoader(queries, batch_size=batch_size, collate_fn=SequenceCollator()):
                encoded = model.encode_sequences(
                    batch["item_ids"].to(model.device),
                    batch["attention_mask"].to(model.device),
                    item_embeddings=catalogue,
                )
                self._batches.append((encoded, batch["target_ids"], batch["seen_ids"]))

    def ranks(
        self, weights: Mapping[str, float], neighbours: ItemNeighbours | None = None
    ) -> torch.Tensor:
        """Rank the targets by the weighted mean of the sources' scores.

        Args:
            weights: source -> weight.
            neighbours: item-to-item counts to add to the scores.

        Returns:
            (Q,) ranks, 1 = best.
        """
        return torch.cat(
            [
                target_ranks(
                    weighted_query_vectors(encoded, self._sources, weights),
                    self._items,
                    targets,
                    excluded=seen if self._exclude_seen else None,
                    added=None if neighbours is None else neighbours.scores(seen),
                ).cpu()
                for encoded, targets, seen in self._batches
            ]
        )

    def full_weight(self, weights: Mapping[str, float], neighbours: ItemNeighbours) -> float:
        """The weight with which counts would deviate as much as the scores, by the first batch.

        Args:
            weights: source -> weight.
            neighbours: item-to-item counts with a weight of 1.
        """
        encoded, _, seen = self._batches[0]
        vectors = weighted_query_vectors(encoded, self._sources, weights)  # (B, S * D)
        values = neighbours.scores(seen).values
        of_counts = (values.square().sum(1) / len(self._items)).sqrt().mean()
        return float(score_deviation(vectors, self._items).mean()) / max(float(of_counts), 1e-12)
