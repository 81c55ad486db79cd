"""Adds item-to-item counts to a trained model, as an additional source of scores.

Letters: B histories, N items.
"""

from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, Subset

from odmt_sdk.baselines import ItemToItem
from odmt_sdk.data.collator import SequenceCollator
from odmt_sdk.data.sequences import RankingDataset
from odmt_sdk.data.splits import Split
from odmt_sdk.evaluation.metrics import ranking_metrics
from odmt_sdk.evaluation.ranks import target_ranks
from odmt_sdk.item_neighbours import ItemNeighbours
from odmt_sdk.modes import evaluating
from odmt_sdk.scoring import fused_vectors, score_deviation, weighted_query_vectors
from odmt_sdk.wrapper import ODMTWrapper

# Shares of the deviation of the model's scores that the deviation of the counts may have.
SHARES = (0.0, 0.02, 0.05, 0.08, 0.11, 0.15, 0.2, 0.3, 0.5)
MOST_QUERIES = 10_000  # of validation on which the weight is chosen
MAX_DISTANCE = 20  # pairs of a training sequence that stand further apart are not counted


def add_item_to_item(
    model: ODMTWrapper,
    split: Split,
    *,
    neighbours: int = 50,
    metric: str = "ndcg@10",
    exclude_seen: bool = True,
    batch_size: int = 256,
) -> float:
    """Count which items follow each other in training, and add the counts to a model's scores.

    Nine weights of the counts are tried, including 0, and the one with the best validation metric
    is kept. `fit` calls this function after training. Call it yourself for a model that was trained
    without counts.

    Args:
        model: a trained model; its `item_to_item` is replaced, or set to None if weight 0 is best.
        split: from `leave_one_out` or `time_split`, with the vocabulary of the model.
        neighbours: number of neighbours to keep per item.
        metric: validation metric that selects the weight, such as "ndcg@10".
        exclude_seen: whether to exclude items the user has already seen, except the target.
        batch_size: histories scored at once.

    Returns:
        The weight, which is `model.item_to_item_weight` from now on.

    Raises:
        ValueError: if the vocabularies of split and model differ, `neighbours` is not in 1..1000,
            the metric is unknown, or validation is empty.

    Examples:
        >>> model.item_to_item_weight, add_item_to_item(model, split)       # doctest: +SKIP
        (0.0, 20.5)
    """
    check_same_items(model, split)
    _, cut = metric_and_cut(metric)
    counted = ItemToItem(split, max_distance=MAX_DISTANCE).neighbours(neighbours)
    scale, ranks = _ranks_by_share(model, split.validation, counted, exclude_seen, batch_size)
    values = [ranking_metrics(found, (cut,))[metric] for found in ranks]
    best = values.index(max(values))
    counted.weight = SHARES[best] * scale
    model.item_to_item = counted if counted.weight else None
    return model.item_to_item_weight


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


def encoded_queries(
    model: ODMTWrapper, dataset: RankingDataset, batch_size: int
) -> Iterator[tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]]:
    """Encode validation queries, or every n-th of more than `MOST_QUERIES`.

    Args:
        model: in eval mode.
        dataset: the queries.
        batch_size: histories encoded at once.

    Yields:
        Source -> states (B, D), and the batch that `SequenceCollator` made.
    """
    step = -(-len(dataset) // MOST_QUERIES)
    queries = Subset(dataset, range(0, len(dataset), max(1, step)))
    catalogue = model.encode_catalogue()
    for batch in DataLoader(queries, batch_size=batch_size, collate_fn=SequenceCollator()):
        encoded = model.encode_sequences(
            batch["item_ids"].to(model.device),
            batch["attention_mask"].to(model.device),
            item_embeddings=catalogue,
        )
        yield encoded, batch


@torch.no_grad()
def _ranks_by_share(
    model: ODMTWrapper,
    dataset: RankingDataset,
    counted: ItemNeighbours,
    exclude_seen: bool,
    batch_size: int,
) -> tuple[float, list[torch.Tensor]]:
    """Rank the targets with each of `SHARES`.

    Returns:
        The weight that corresponds to a share of 1, and the ranks (Q,) for each share.
    """
    scale = 0.0
    ranks: list[list[torch.Tensor]] = [[] for _ in SHARES]
    with evaluating(model):
        items = fused_vectors(model.encode_catalogue(), model.sources)  # (N + 1, S * D)
        for encoded, batch in encoded_queries(model, dataset, batch_size):
            vectors = weighted_query_vectors(  # (B, S * D)
                encoded, model.sources, model.source_weights
            )
            added = counted.scores(batch["seen_ids"])
            if not scale:  # deviation of the model's scores / deviation of the counts
                of_counts = (added.values.square().sum(1) / len(items)).sqrt().mean()
                of_model = score_deviation(vectors, items).mean()
                scale = float(of_model) / max(float(of_counts), 1e-12)
            for share, found in zip(SHARES, ranks, strict=True):
                found.append(
                    target_ranks(
                        vectors,
                        items,
                        batch["target_ids"],
                        excluded=batch["seen_ids"] if exclude_seen else None,
                        added=added.times(share * scale),
                    ).cpu()
                )
    return scale, [torch.cat(found) for found in ranks]
