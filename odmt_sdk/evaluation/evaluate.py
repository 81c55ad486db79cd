"""Full-catalogue evaluation of a model, for the mean of its sources and for each of them.

Letters: Q queries (users), B queries of a batch, L positions, N items, M seen items of a user,
S sources, D hidden size.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset

from odmt_sdk.data.collator import SequenceCollator
from odmt_sdk.evaluation.metrics import ranking_metrics
from odmt_sdk.evaluation.ranks import target_ranks
from odmt_sdk.processes import gather_shares, is_distributed, own_share
from odmt_sdk.scoring import fused_vectors, score_type

FUSED = "fused"
PROGRESS_DELAY_SECONDS = 3.0


class RankingModel(Protocol):
    """What evaluation asks of a model; `ODMTWrapper` is one."""

    training: bool

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources."""

    @property
    def num_items(self) -> int:
        """N, the size of the catalogue."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""

    def modules(self) -> Iterator[nn.Module]:
        """The model and everything in it."""

    def train(self, mode: bool = True) -> Any:
        """Set training or eval mode."""

    def encode_catalogue(self) -> Mapping[str, torch.Tensor]:
        """Source -> (N + 1, D), row 0 = padding."""

    def encode_sequences(
        self,
        item_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        item_embeddings: Mapping[str, torch.Tensor] | None = None,
    ) -> Mapping[str, torch.Tensor]:
        """Rows (B, L) and their mask (B, L) to source -> (B, D)."""


def evaluate(
    model: RankingModel,
    dataset: Dataset[Any],
    *,
    k: Sequence[int] = (5, 10, 20),
    batch_size: int = 256,
    exclude_seen: bool = True,
    per_source: bool = True,
    progress: bool = True,
    distributed: bool = False,
) -> dict[str, float]:
    """Measure how well a model ranks each user's next item among all items.

    Ties count against the model. For more than means, such as confidence intervals or groups of
    users, take the ranks of `rank_targets`.

    Args:
        model: the model; its training mode is left as it was.
        dataset: users with a history and a target, such as `leave_one_out(...).test`.
        k: lengths of the list, each 1..N.
        batch_size: users encoded at once.
        exclude_seen: leave out the items each user has seen, the target excepted.
        per_source: also measure each source by itself.
        progress: show a bar when it takes more than a few seconds.
        distributed: share the users among the processes of a `torch.distributed` run, all of which
            must call this; every one gets the result for all users.

    Returns:
        "hit_rate@10", "recall@10", "ndcg@10", "mrr@10", ... of the mean of the sources' scores,
        and "id/hit_rate@10", ... of each source; values in 0..1.

    Raises:
        ValueError: if a k is out of range, the dataset is empty or of another kind, a row is not in
            the model's catalogue, or a score is NaN or infinite.

    Examples:
        >>> metrics = evaluate(model, split.test, k=(10,))          # doctest: +SKIP
        >>> metrics["ndcg@10"], metrics["text/ndcg@10"]             # doctest: +SKIP
        (0.143, 0.128)
    """
    if not k or not all(1 <= cut <= model.num_items for cut in k):
        raise ValueError(
            f"k={tuple(k)} must name lengths in 1..{model.num_items}, the number of items"
        )
    ranks = rank_targets(
        model,
        dataset,
        batch_size=batch_size,
        exclude_seen=exclude_seen,
        per_source=per_source,
        progress=progress,
        distributed=distributed,
    )
    metrics = ranking_metrics(ranks.pop(FUSED), k)
    for source, source_ranks in ranks.items():
        values = ranking_metrics(source_ranks, k)
        metrics |= {f"{source}/{name}": value for name, value in values.items()}
    return metrics


def rank_targets(
    model: RankingModel,
    dataset: Dataset[Any],
    *,
    batch_size: int = 256,
    exclude_seen: bool = True,
    per_source: bool = True,
    progress: bool = True,
    distributed: bool = False,
) -> dict[str, torch.Tensor]:
    """Rank each user's target among all items.

    Args:
        model: the model; its training mode is left as it was.
        dataset: users with a history and a target, such as `leave_one_out(...).test`.
        batch_size: users encoded at once.
        exclude_seen: leave out the items each user has seen, the target excepted.
        per_source: also rank by each source alone.
        progress: show a bar when it takes more than a few seconds.
        distributed: share the users among the processes of a `torch.distributed` run, all of which
            must call this; every one gets the result for all users.

    Returns:
        "fused" (the mean of the sources' scores) and, if asked for, each source to (Q,) int64
        ranks in 1..N, in the order of the dataset, on the CPU.

    Raises:
        ValueError: if the dataset is empty or of another kind, a row is not in the model's
            catalogue, or a score is NaN or infinite.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} must be at least 1")
    if not len(dataset):  # type: ignore[arg-type]  # map-style datasets have a length
        raise ValueError("the dataset is empty: there is no user to rank items for")
    sources = model.sources
    if FUSED in sources:
        raise ValueError(f"a source is named {FUSED!r}, the name of the mean of all: rename it")
    number = len(dataset)  # type: ignore[arg-type]
    distributed = distributed and is_distributed()
    if distributed:
        dataset = Subset(dataset, own_share(number))
    loader = DataLoader(dataset, batch_size=batch_size, collate_fn=SequenceCollator())
    none = torch.zeros(0, dtype=torch.long)  # all that a process has where users are few
    found = {name: [none] for name in (FUSED, *(sources if per_source else ()))}
    with evaluation_mode(model), torch.no_grad():
        catalogue = model.encode_catalogue()  # source -> (N + 1, D)
        items = {FUSED: fused_vectors(catalogue, sources), **catalogue}
        items = {name: vectors.to(score_type(vectors)) for name, vectors in items.items()}
        for batch in _with_progress(loader, progress):
            targets, seen = _targets_and_seen(batch, model.num_items, exclude_seen)
            encoded = model.encode_sequences(
                batch["item_ids"].to(model.device),
                batch["attention_mask"].to(model.device),
                item_embeddings=catalogue,
            )  # source -> (B, D)
            # ranks do not ask for the mean: the sum puts the items in the same order
            queries = {FUSED: fused_vectors(encoded, sources), **encoded}
            for name, ranks in found.items():
                ranks.append(target_ranks(queries[name], items[name], targets, excluded=seen).cpu())
    ranked = {name: torch.cat(ranks) for name, ranks in found.items()}
    return gather_shares(ranked, number) if distributed else ranked


@contextmanager
def evaluation_mode(model: RankingModel) -> Iterator[None]:
    """Put a model into eval mode, and leave it and each of its parts in the mode they had."""
    training = model.training
    modes = [(module, module.training) for module in model.modules()]
    model.train(False)
    try:
        yield
    finally:
        model.train(training)
        for module, mode in modes:
            module.training = mode


def _with_progress(loader: DataLoader[Any], progress: bool) -> Iterator[dict[str, torch.Tensor]]:
    from transformers.utils import logging

    bar = logging.tqdm(
        loader, desc="Evaluating", disable=not progress, delay=PROGRESS_DELAY_SECONDS, leave=False
    )
    yield from bar


def _targets_and_seen(
    batch: Mapping[str, torch.Tensor], num_items: int, exclude_seen: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Targets (B,) and rows to leave out (B, M) of a batch, checked."""
    needed = ["target_ids", *(["seen_ids"] if exclude_seen else [])]
    missing = [name for name in needed if name not in batch]
    if missing:
        raise ValueError(
            f"the dataset gives no {' and no '.join(missing)}: evaluate on the validation or test "
            "part of leave_one_out(...), a RankingDataset"
        )
    highest = int(torch.cat([batch["item_ids"].flatten(), batch["target_ids"]]).max())
    if highest > num_items:
        raise ValueError(
            f"the dataset holds item row {highest}, the model has {num_items} items: split the "
            "data with the model's vocabulary, leave_one_out(..., vocabulary=model.vocabulary)"
        )
    return batch["target_ids"], batch["seen_ids"] if exclude_seen else None
