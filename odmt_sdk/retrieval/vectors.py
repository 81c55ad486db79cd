"""Histories and items as vectors on the CPU, whose inner products are scores.

Letters: B histories, M chosen items, N items, S sources, D hidden size.
"""

from collections.abc import Hashable, Iterable, Mapping
from typing import Literal

import torch

from odmt_sdk.config import whole_number
from odmt_sdk.item_neighbours import added_scores
from odmt_sdk.modes import evaluating
from odmt_sdk.retrieval.recommend import Histories, history_rows, query_vectors
from odmt_sdk.scoring import fused_vectors, inner_products, weights_of
from odmt_sdk.scoring_model import ScoringModel
from odmt_sdk.vocabulary import ItemVocabulary, plain_ids


def item_vectors(model: ScoringModel) -> torch.Tensor:
    """Concatenate the item embeddings of a model's sources.

    Args:
        model: the model that encodes items.

    Returns:
        (N + 1, S * D) float32 on the CPU, row 0 = padding.
    """
    return fused_vectors(model.encode_catalogue(), model.sources).detach().float().cpu()


def history_vectors(
    model: ScoringModel,
    vocabulary: ItemVocabulary,
    histories: Histories,
    *,
    unknown: Literal["error", "skip"],
    source_weights: Mapping[str, float] | None,
    batch_size: int,
) -> torch.Tensor:
    """Encode histories as query vectors; see `ODMTWrapper.encode_histories`.

    Args:
        model: the model that encodes sequences.
        vocabulary: its item ids.
        histories: item ids of each user, oldest first.
        unknown: what to do with ids not in the vocabulary: "error" raises, "skip" ignores them.
        source_weights: source -> weight in the mean over sources; None = those of the model.
        batch_size: histories encoded at once.

    Returns:
        (B, S * D) float32 on the CPU.

    Raises:
        ValueError: if a history is empty, an id is unknown, `batch_size` is below 1, or
            `source_weights` does not fit.
    """
    weights_of(model, source_weights)
    batch_size = whole_number("batch_size", batch_size)
    rows = history_rows(vocabulary, histories, unknown)
    return _vectors_of_rows(model, rows, source_weights, batch_size)


def score_items(
    model: ScoringModel,
    vocabulary: ItemVocabulary,
    histories: Histories,
    items: Iterable[Hashable],
    *,
    unknown: Literal["error", "skip"],
    source_weights: Mapping[str, float] | None,
    batch_size: int,
) -> torch.Tensor:
    """Score chosen items for histories; see `ODMTWrapper.score`.

    Args:
        model: the model that scores items.
        vocabulary: its item ids.
        histories: item ids of each user, oldest first.
        items: M item ids, the same for all users.
        unknown: what to do with unknown ids of the histories; those of `items` always raise.
        source_weights: source -> weight in the mean over sources; None = those of the model.
        batch_size: histories scored at once.

    Returns:
        (B, M) scores on the CPU, with those of item-to-item counts, if the model has them.

    Raises:
        ValueError: if a history is empty, an id is unknown, `batch_size` is below 1, or
            `source_weights` does not fit.
    """
    batch_size = whole_number("batch_size", batch_size)
    columns = torch.tensor(vocabulary.rows(plain_ids(items)), dtype=torch.long)
    weights_of(model, source_weights)
    rows = history_rows(vocabulary, histories, unknown)
    vectors = item_vectors(model)[columns]
    queries = _vectors_of_rows(model, rows, source_weights, batch_size)
    scores = inner_products(queries, vectors)
    for start in range(0, len(rows), batch_size):
        block = slice(start, start + batch_size)
        added = added_scores(model, rows[block])
        if added is not None:
            scores[block] += added.of_rows(columns.to(added.rows.device)).to(scores)
    return scores


@torch.no_grad()
def _vectors_of_rows(
    model: ScoringModel,
    rows: list[torch.Tensor],
    source_weights: Mapping[str, float] | None,
    batch_size: int,
) -> torch.Tensor:
    with evaluating(model):
        catalogue = model.encode_catalogue()
        found = [
            query_vectors(model, rows[start : start + batch_size], catalogue, source_weights)
            .float()
            .cpu()
            for start in range(0, len(rows), batch_size)
        ]
    width = sum(catalogue[source].shape[1] for source in model.sources)
    return torch.cat([torch.zeros(0, width, dtype=torch.float32), *found])
