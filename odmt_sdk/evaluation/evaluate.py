"""Full-catalogue evaluation of a model, for its ensemble score and for each source.

Letters: Q queries, B queries of a batch, L positions, N items, M seen items of a user, S sources,
D hidden size.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset

from odmt_sdk.config import whole_number
from odmt_sdk.data.collator import SequenceCollator
from odmt_sdk.data.sequences import TrainingCounts, check_same_rows
from odmt_sdk.evaluation.beyond_accuracy import (
    average_popularity,
    coverage,
    gini,
    intra_list_diversity,
    novelty,
    serendipity,
    share,
)
from odmt_sdk.evaluation.groups import (
    Group,
    checked_groups,
    counts_of,
    number_of_rows,
    popularity_groups,
)
from odmt_sdk.evaluation.metrics import checked_cuts, ranking_metrics
from odmt_sdk.evaluation.ranks import target_ranks
from odmt_sdk.item_neighbours import added_scores
from odmt_sdk.modes import evaluating
from odmt_sdk.processes import gather_shares, is_distributed, own_share
from odmt_sdk.retrieval.top_k import top_k_rows
from odmt_sdk.scoring import fused_vectors, score_type, weighted_query_vectors, weights_of
from odmt_sdk.scoring_model import ScoringModel
from odmt_sdk.terminal import shows_bars

FUSED = "fused"
PROGRESS_DELAY_SECONDS = 3.0


def evaluate(
    model: ScoringModel,
    dataset: Dataset[Any],
    *,
    k: Sequence[int] = (5, 10, 20),
    batch_size: int = 256,
    exclude_seen: bool = True,
    per_source: bool = True,
    progress: bool = True,
    distributed: bool = False,
    beyond_accuracy: bool = False,
    groups: Mapping[str, Any] | None = None,
    content: torch.Tensor | None = None,
) -> dict[str, float]:
    """Evaluate how well a model ranks the target of each query among all items.

    A score is the mean over sources of the inner products of the history's state and the item's
    embedding, plus the score of item-to-item counts, if the model has them. Ties count against the
    model. Use `rank_targets` if you need the rank of each target, for example for confidence
    intervals.

    Args:
        model: the model; its training mode is restored afterwards.
        dataset: a `RankingDataset`, such as `leave_one_out(...).test`.
        k: cut-offs of the metrics; a cut-off above N covers the whole catalogue.
        batch_size: histories encoded at once, on each process.
        exclude_seen: whether to exclude items the user has already seen, except the target.
        per_source: whether to measure each source separately as well.
        progress: whether to show a progress bar, in terminals and after a few seconds only.
        distributed: whether to share the users among the processes of a `torch.distributed` run.
            All processes must call this function, and each returns the result for all users.
        beyond_accuracy: whether to measure also the lists that `recommend` would give to these
            users: "coverage@10", "novelty@10", "diversity@10", "gini@10", "popularity@10" and
            "serendipity@10", see `odmt_sdk.evaluation.beyond_accuracy`.
        groups: groups to measure separately: name -> {"items": item ids, or (N + 1,) bool by row}
            for the users whose target is one of these items; or {"users": user ids, or (Q,) bool by
            query}. None = with `beyond_accuracy`, the items that are "cold", "warm" and "popular",
            see `popularity_groups`; otherwise no groups.
        content: (N + 1, W) item vectors for "diversity@10"; row 0 is ignored. None = the mean
            cosine over the item embeddings of all sources except "id". A model that has only IDs
            then has no "diversity@10".

    Returns:
        "hit_rate@10", "recall@10", "ndcg@10", "mrr@10", ... for the score above, and
        "id/hit_rate@10", ... for each source; values in 0..1. For a group "cold": "cold/users", its
        number of users, and, if it has users, "cold/hit_rate@10", .... With `beyond_accuracy` also
        "cold/share@10", the share of the recommended items that belong to a group of items, or
        "heavy/coverage@10", ... for a group of users.

    Raises:
        ValueError: if a k is below 1, the dataset is empty or not a ranking dataset, a row is not
            in the model's catalogue, a score is NaN or infinite, a group is invalid, or the dataset
            has no training counts for `beyond_accuracy`.
        TypeError: if a k is not an integer, or the model is wrapped in `nn.DataParallel`.

    Examples:
        >>> metrics = evaluate(model, split.test, k=(10,))          # doctest: +SKIP
        >>> metrics["ndcg@10"], metrics["text/ndcg@10"]             # doctest: +SKIP
        (0.143, 0.128)
    """
    k = checked_cuts(k)
    refuse_parallel(model)
    measured = None
    if beyond_accuracy:
        measured = _Lists(counts_of(dataset, model.num_items), model, content)
        if groups is None:
            by_popularity = popularity_groups(measured.counts.items)
            groups = {name: {"items": rows} for name, rows in by_popularity.items()}
    chosen = checked_groups(
        groups or {},
        dataset,
        num_items=model.num_items,
        taken=(FUSED, *model.sources),
        vocabulary=getattr(model, "vocabulary", None),
    )
    ranks, lists, targets = _rank(
        model,
        dataset,
        batch_size=batch_size,
        exclude_seen=exclude_seen,
        per_source=per_source,
        progress=progress,
        distributed=distributed,
        list_length=max(k) if beyond_accuracy else 0,
    )
    fused = ranks.pop(FUSED)
    metrics = ranking_metrics(fused, k)
    if measured is not None:
        metrics |= measured.metrics(lists, targets, k)
    for source, source_ranks in ranks.items():
        values = ranking_metrics(source_ranks, k)
        metrics |= {f"{source}/{name}": value for name, value in values.items()}
    for group_name, group in chosen.items():
        inside = group.of(targets)
        values = {"users": float(inside.sum())}
        if bool(inside.any()):
            values |= ranking_metrics(fused[inside], k)
        if measured is not None:
            values |= measured.of_group(group, lists, targets, k)
        metrics |= {f"{group_name}/{name}": value for name, value in values.items()}
    return metrics


class _Lists:
    """Measures recommended lists.

    Args:
        counts: counts of the training data.
        model: the model whose item embeddings are the content.
        content: (N + 1, W) vectors to use instead.
    """

    def __init__(
        self, counts: TrainingCounts, model: ScoringModel, content: torch.Tensor | None
    ) -> None:
        if content is not None and (
            content.ndim != 2 or len(content) != model.num_items + 1 or content.is_complex()
        ):
            raise ValueError(
                f"content has shape {tuple(content.shape)}; it needs ({model.num_items + 1}, W): a "
                "vector for each row, padding first"
            )
        self.counts, self._model, self._content = counts, model, content

    def metrics(
        self, lists: torch.Tensor, targets: torch.Tensor, k: Sequence[int]
    ) -> dict[str, float]:
        """Measure the lists (Q, k) of users with these targets (Q,)."""
        items, users, num_users = self.counts
        content = self._content_vectors()
        found = {}
        for cut in k:
            rows = lists[:, :cut]
            found[f"coverage@{cut}"] = coverage(rows, self._model.num_items)
            found[f"novelty@{cut}"] = novelty(rows, users, num_users)
            if content is not None:
                found[f"diversity@{cut}"] = intra_list_diversity(rows, content)
            found[f"gini@{cut}"] = gini(rows, self._model.num_items)
            found[f"popularity@{cut}"] = average_popularity(rows, items)
            found[f"serendipity@{cut}"] = serendipity(rows, targets, items)
        return found

    def of_group(
        self, group: Group, lists: torch.Tensor, targets: torch.Tensor, k: Sequence[int]
    ) -> dict[str, float]:
        """Measure the recommendations of a group of items, or those for a group of users."""
        if group.items is not None:
            return {f"share@{cut}": share(lists[:, :cut], group.items) for cut in k}
        inside = group.of(targets)
        return self.metrics(lists[inside], targets[inside], k) if bool(inside.any()) else {}

    def _content_vectors(self) -> torch.Tensor | None:
        """Vectors (N + 1, W) whose cosine is the mean of the cosines of all sources."""
        if self._content is None:
            others = [source for source in self._model.sources if source != "id"]
            if not others:
                return None
            with evaluating(self._model), torch.no_grad():
                catalogue = self._model.encode_catalogue()
            unit = [
                nn.functional.normalize(catalogue[source].to(score_type(catalogue[source])), dim=1)
                for source in others
            ]
            self._content = torch.cat(unit, dim=1).cpu()
        return self._content


def rank_targets(
    model: ScoringModel,
    dataset: Dataset[Any],
    *,
    batch_size: int = 256,
    exclude_seen: bool = True,
    per_source: bool = True,
    progress: bool = True,
    distributed: bool = False,
) -> dict[str, torch.Tensor]:
    """Rank the target of each query among all items.

    Args:
        model: the model; its training mode is restored afterwards.
        dataset: a `RankingDataset`, such as `leave_one_out(...).test`.
        batch_size: queries encoded at once, on each process.
        exclude_seen: whether to exclude items the user has already seen, except the target.
        per_source: whether to rank by each source separately as well.
        progress: whether to show a progress bar, in terminals and after a few seconds only.
        distributed: whether to share the queries among the processes of a `torch.distributed` run.
            All processes must call this function, and each returns the result for all queries.

    Returns:
        "fused", for the mean of the sources' scores, and each source, if `per_source` -> int64
        ranks (Q,) in 1..N, in dataset order, on the CPU.

    Raises:
        ValueError: if the dataset is empty or not a ranking dataset, a row is not in the model's
            catalogue, or a score is NaN or infinite.
        TypeError: if the model is wrapped in `nn.DataParallel`.
    """
    return _rank(
        model,
        dataset,
        batch_size=batch_size,
        exclude_seen=exclude_seen,
        per_source=per_source,
        progress=progress,
        distributed=distributed,
    ).ranks


class _Found(NamedTuple):
    """Source -> ranks (Q,), recommended rows (Q, k) and targets (Q,), on the CPU."""

    ranks: dict[str, torch.Tensor]
    lists: torch.Tensor
    targets: torch.Tensor


def _rank(
    model: ScoringModel,
    dataset: Dataset[Any],
    *,
    batch_size: int,
    exclude_seen: bool,
    per_source: bool,
    progress: bool,
    distributed: bool,
    list_length: int = 0,
) -> _Found:
    """Rank each user's target, and find the best `list_length` items of each user."""
    refuse_parallel(model)
    batch_size = whole_number("batch_size", batch_size)
    number = number_of_rows(dataset)
    if not number:
        raise ValueError("the dataset is empty: there is no user to rank items for")
    sources = model.sources
    check_same_rows(dataset, getattr(model, "vocabulary", None))
    if FUSED in sources:
        raise ValueError(f"a source is named {FUSED!r}, which is reserved for the mean: rename it")
    weights = weights_of(model)
    length = min(list_length, model.num_items)
    distributed = distributed and is_distributed()
    if distributed:
        dataset = Subset(dataset, own_share(number))
    loader = DataLoader(dataset, batch_size=batch_size, collate_fn=SequenceCollator())
    none = torch.zeros(0, dtype=torch.long)  # for processes without any query
    found = {name: [none] for name in (FUSED, *(sources if per_source else ()))}
    lists, targets = [torch.zeros(0, length, dtype=torch.long)], [none]
    with evaluating(model), torch.no_grad():
        catalogue = model.encode_catalogue()  # source -> (N + 1, D)
        items = {FUSED: fused_vectors(catalogue, sources), **catalogue}
        items = {name: vectors.to(score_type(vectors)) for name, vectors in items.items()}
        for batch in _with_progress(loader, progress):
            target, seen = _targets_and_seen(batch, model.num_items, exclude_seen)
            encoded = model.encode_sequences(
                batch["item_ids"].to(model.device),
                batch["attention_mask"].to(model.device),
                item_embeddings=catalogue,
            )  # source -> (B, D)
            fused = weighted_query_vectors(encoded, sources, weights)
            queries = {FUSED: fused, **encoded}
            added = added_scores(model, batch.get("seen_ids", batch["item_ids"]))
            for name, ranks in found.items():
                ranks.append(
                    target_ranks(
                        queries[name],
                        items[name],
                        target,
                        excluded=seen,
                        added=added if name == FUSED else None,
                    ).cpu()
                )
            targets.append(target.cpu())
            if length:
                # computed as in `recommend`, so that all digits agree
                best = top_k_rows(fused, items[FUSED], length, excluded=seen, added=added)
                lists.append(best[1].cpu())
    ranked = {name: torch.cat(ranks) for name, ranks in found.items()}
    beside = {"targets": torch.cat(targets)}
    if length:
        beside["lists"] = torch.cat(lists)
    if distributed:
        ranked, beside = gather_shares(ranked, number), gather_shares(beside, number)
    return _Found(ranked, beside.get("lists", lists[0]), beside["targets"])


def _with_progress(loader: DataLoader[Any], progress: bool) -> Iterator[dict[str, torch.Tensor]]:
    from transformers.utils import logging

    yield from logging.tqdm(
        loader,
        desc="Evaluating",
        disable=not (progress and shows_bars()),
        delay=PROGRESS_DELAY_SECONDS,
        leave=False,
    )


def refuse_parallel(model: object) -> None:
    """Raise `TypeError` for a `DataParallel` or DDP wrapper, which passes on only `forward`."""
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise TypeError(
            f"the model is wrapped in {type(model).__name__}: pass its .module. To train on "
            "several devices start the script with torchrun or accelerate launch"
        )


def _targets_and_seen(
    batch: Mapping[str, torch.Tensor], num_items: int, exclude_seen: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Check a batch and return its targets (B,) and the rows to exclude (B, M)."""
    needed = ["target_ids", *(["seen_ids"] if exclude_seen else [])]
    missing = [name for name in needed if name not in batch]
    if missing:
        raise ValueError(
            f"the dataset has no {' and no '.join(missing)}: evaluate on a RankingDataset, such as "
            "the validation or test part of leave_one_out(...)"
        )
    highest = int(torch.cat([batch["item_ids"].flatten(), batch["target_ids"]]).max())
    if highest > num_items:
        raise ValueError(
            f"the dataset has item row {highest}, but the model has {num_items} items: split the "
            "data with the model's vocabulary, leave_one_out(..., vocabulary=model.vocabulary)"
        )
    return batch["target_ids"], batch["seen_ids"] if exclude_seen else None
