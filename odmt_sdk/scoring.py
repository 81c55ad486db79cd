"""Scoring by inner products, shared by training, ranking and retrieval.

Letters: Q queries (users), N items, W width of a vector, M excluded items of a query, S sources,
D hidden size.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, SupportsFloat

import torch
from torch.nn.utils.rnn import pad_sequence

ExcludedRows = torch.Tensor | Sequence[torch.Tensor] | Sequence[Sequence[int]]

# Larger blocks barely speed up the product, and their scores no longer fit into the CPU cache.
MAX_QUERIES_PER_BLOCK = 256


def fused_vectors(embeddings: Mapping[str, torch.Tensor], sources: Sequence[str]) -> torch.Tensor:
    """Concatenate the embeddings of all sources, so that one inner product sums their scores.

    ODMT scores an item by the mean over sources of <user_s, item_s>. This equals the inner product
    of the fused user and item vectors divided by S, so one matrix scores the whole catalogue.

    Args:
        embeddings: source -> (..., D), of users or of items.
        sources: the sources to use, in the same order for users and items.

    Returns:
        (..., S * D). If the sources are adjacent columns of one matrix, in this order, that matrix
        is returned without a copy.

    Raises:
        ValueError: if no source is given, or a source has no embeddings.

    Source: https://arxiv.org/abs/2308.04067.

    Examples:
        >>> users = {"id": torch.tensor([[1.0, 2.0]]), "text": torch.tensor([[3.0, 0.0]])}
        >>> fused_vectors(users, ("id", "text"))
        tensor([[1., 2., 3., 0.]])
    """
    missing = [source for source in sources if source not in embeddings]
    if missing or not sources:
        raise ValueError(
            f"sources={tuple(sources)} do not fit the embeddings of {tuple(embeddings)}: name at "
            "least one source, and only sources that have embeddings"
        )
    parts = [embeddings[source] for source in sources]
    if _side_by_side(parts):
        return parts[0].as_strided((len(parts[0]), parts[0].stride(0)), (parts[0].stride(0), 1))
    return torch.cat(parts, dim=-1)


def check_source_weights(
    sources: Sequence[str], source_weights: Mapping[str, float] | None
) -> dict[str, float]:
    """Check the weights of sources in a fused score, and complete them.

    Args:
        sources: all sources of a model.
        source_weights: source -> weight, at least 0; a source that is not named has weight 1.
            None = weight 1 for all.

    Returns:
        Source -> weight, in the order of `sources`.

    Raises:
        ValueError: if a source is unknown, a weight is negative or not finite, or all are 0.
        TypeError: if `source_weights` is not a mapping, or a weight is not a number.

    Examples:
        >>> check_source_weights(("id", "text", "image"), {"id": 0, "text": 2.5})
        {'id': 0.0, 'text': 2.5, 'image': 1.0}
    """
    if source_weights is not None and not isinstance(source_weights, Mapping):
        raise TypeError(
            f"source_weights is a {type(source_weights).__name__}, but it must map sources to "
            f"weights, for example {{{sources[0]!r}: 0.5}}"
        )
    weights = dict.fromkeys(sources, 1.0)
    for source, weight in (source_weights or {}).items():
        if source not in weights:
            raise ValueError(
                f"source_weights names {source!r}, but the sources are {list(sources)}"
            )
        if isinstance(weight, bool) or not isinstance(weight, SupportsFloat):
            raise TypeError(f"source_weights[{source!r}]={weight!r} must be a number, at least 0")
        weights[source] = float(weight)
        if not 0 <= weights[source] < math.inf:
            raise ValueError(f"source_weights[{source!r}]={weight!r} must be finite and at least 0")
    if not any(weights.values()):
        raise ValueError(
            f"source_weights={dict(source_weights or {})} leaves no source: give at least one of "
            f"{list(sources)} a weight above 0"
        )
    return weights


def weights_of(model: Any, source_weights: Mapping[str, float] | None = None) -> dict[str, float]:
    """The weights of a model's sources in a fused score.

    Args:
        model: has `sources`, and perhaps `source_weights`.
        source_weights: source -> weight, instead of the model's own; None = the model's own.

    Returns:
        Source -> weight, in the order of the sources.

    Raises:
        ValueError: as `check_source_weights`.
        TypeError: as `check_source_weights`.
    """
    check_source_weights(model.sources, source_weights)
    own: Mapping[str, float] = getattr(model, "source_weights", None) or {}
    return check_source_weights(model.sources, {**own, **(source_weights or {})})


def weighted_query_vectors(
    embeddings: Mapping[str, torch.Tensor],
    sources: Sequence[str],
    source_weights: Mapping[str, float] | None = None,
) -> torch.Tensor:
    """Fuse the states of histories, so that inner products with items are weighted mean scores.

    Args:
        embeddings: source -> (B, D), the states of B histories.
        sources: the sources, in the same order as for the items.
        source_weights: source -> weight, as for `check_source_weights`; None = the plain mean.

    Returns:
        (B, S * D). Its inner product with `fused_vectors` of items is the mean over sources of
        <user_s, item_s>, weighted.

    Raises:
        ValueError: as `check_source_weights` and `fused_vectors`.

    Examples:
        >>> users = {"id": torch.tensor([[4.0, 8.0]]), "text": torch.tensor([[2.0, 0.0]])}
        >>> weighted_query_vectors(users, ("id", "text"), {"id": 3.0})
        tensor([[3.0000, 6.0000, 0.5000, 0.0000]])
    """
    weights = check_source_weights(sources, source_weights)
    if len(set(weights.values())) == 1:
        return fused_vectors(embeddings, sources) / len(sources)
    scaled = {source: embeddings[source] * weight for source, weight in weights.items()}
    return fused_vectors(scaled, sources) / sum(weights.values())


def _side_by_side(parts: Sequence[torch.Tensor]) -> bool:
    """Whether the matrices are adjacent columns that together make up one matrix, in order."""
    first = parts[0]
    width = sum(part.shape[-1] for part in parts)
    offset = 0
    for part in parts:
        if (
            part.ndim != 2
            or part.requires_grad
            or part.dtype != first.dtype
            or part.device != first.device
            or part.shape[0] != first.shape[0]
            or part.stride() != (width, 1)
            or part.storage_offset() != offset
            or part.untyped_storage().data_ptr() != first.untyped_storage().data_ptr()
        ):
            return False
        offset += part.shape[1]
    return True


def check_vectors(query_vectors: torch.Tensor, item_vectors: torch.Tensor) -> None:
    """Check that queries and items can be multiplied.

    Args:
        query_vectors: (Q, W).
        item_vectors: (N + 1, W), row 0 = padding.

    Raises:
        ValueError: if the shapes do not match, or there are no items.
        TypeError: if a tensor is not of a floating-point type.
    """
    for name, vectors in (("query_vectors", query_vectors), ("item_vectors", item_vectors)):
        if vectors.ndim != 2:
            raise ValueError(f"{name} has shape {tuple(vectors.shape)}; it needs (rows, width)")
        if not vectors.is_floating_point():
            raise TypeError(f"{name} holds {vectors.dtype}; it needs floating-point numbers")
    if query_vectors.shape[1] != item_vectors.shape[1]:
        raise ValueError(
            f"query_vectors are {query_vectors.shape[1]} wide and item_vectors "
            f"{item_vectors.shape[1]}; both must come from the same model and the same sources"
        )
    if len(item_vectors) < 2:
        raise ValueError(
            f"item_vectors has {len(item_vectors)} rows; it needs at least 2: row 0 is padding, "
            "the items follow"
        )


def check_block_size(block_size: int) -> None:
    """Check the number of scores to hold in memory at once.

    Raises:
        ValueError: if it is less than 1.
    """
    if block_size < 1:
        raise ValueError(f"block_size={block_size} must be at least 1: scores held at once")


def score_type(*vectors: torch.Tensor) -> torch.dtype:
    """The dtype for scores: at least float32, because half precision would create many ties."""
    dtype = torch.float32
    for tensor in vectors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def inner_products(query_vectors: torch.Tensor, item_vectors: torch.Tensor) -> torch.Tensor:
    """Score every item for every query, in the dtype of the vectors even under autocast.

    Args:
        query_vectors: (Q, W).
        item_vectors: (N, W), of the same dtype.

    Returns:
        (Q, N).
    """
    with torch.autocast(query_vectors.device.type, enabled=False):
        return query_vectors @ item_vectors.T


def padded_rows(
    rows: ExcludedRows,
    num_queries: int,
    num_items: int,
    device: torch.device,
    name: str = "excluded",
) -> torch.Tensor:
    """Combine the rows to exclude or to allow for each query into one tensor.

    Args:
        rows: (Q, M) padded with 0, or Q sequences of any length.
        num_queries: Q.
        num_items: N.
        device: device of the result.
        name: name of the argument in error messages.

    Returns:
        (Q, M) int64, padded with 0.

    Raises:
        ValueError: if the number of queries differs from Q, or a row is outside 0..N.
        TypeError: if the rows are not integers.
    """
    if not isinstance(rows, torch.Tensor):
        ragged = [torch.as_tensor(row, dtype=torch.long, device=device) for row in rows]
        rows = pad_sequence(ragged, batch_first=True) if ragged else torch.zeros(0, 0).long()
    if rows.is_floating_point() or rows.dtype is torch.bool:
        raise TypeError(f"{name} holds {rows.dtype}; it needs integers: rows of items, 0 = none")
    if rows.ndim != 2 or len(rows) != num_queries:
        raise ValueError(
            f"{name} has shape {tuple(rows.shape)}, {num_queries} queries need "
            f"({num_queries}, M): rows for each of them, padded with 0"
        )
    rows = rows.to(device, torch.long)
    if rows.numel():
        low, high = (int(value) for value in rows.aminmax())
        if low < 0 or high > num_items:
            raise ValueError(f"{name} holds row {low if low < 0 else high}, outside 0..{num_items}")
    return rows


def mask_rows_(scores: torch.Tensor, rows: torch.Tensor, first_row: int = 0) -> None:
    """Set the scores of some items to minus infinity, in place.

    Args:
        scores: (Q, N') scores of the items from `first_row` on.
        rows: (Q, M) items to mask for each query; items outside `scores` are ignored.
        first_row: row of the item in column 0 of `scores`.
    """
    query, column = _places(rows, first_row, scores.shape[1])
    scores[query, column] = -torch.inf


def mask_other_rows_(scores: torch.Tensor, rows: torch.Tensor, first_row: int = 0) -> None:
    """Set the scores of all items except the given ones to minus infinity, in place.

    Args:
        scores: (Q, N') scores of the items from `first_row` on.
        rows: (Q, M) items to keep for each query; items outside `scores` are ignored.
        first_row: row of the item in column 0 of `scores`.
    """
    closed = torch.ones_like(scores, dtype=torch.bool)
    closed[_places(rows, first_row, scores.shape[1])] = False
    scores.masked_fill_(closed, -torch.inf)


def _places(
    rows: torch.Tensor, first_row: int, num_columns: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Query and column indices of the rows (Q, M) that lie within a block of items."""
    columns = rows - first_row
    query, slot = ((columns >= 0) & (columns < num_columns)).nonzero(as_tuple=True)
    return query, columns[query, slot]


def score_deviation(queries: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """Compute the standard deviation of each user's scores over the catalogue.

    It follows from the covariance of the item vectors, without computing the scores.

    Args:
        queries: query vectors (B, W).
        vectors: item vectors (N + 1, W).

    Returns:
        (B,) float64, at least 1e-12.
    """
    centred = (vectors[1:] - vectors[1:].mean(0)).double()  # (N, W)
    covariance = centred.T @ centred / len(centred)  # (W, W)
    wide = queries.double()
    return ((wide @ covariance) * wide).sum(1).clamp(min=0).sqrt().clamp(min=1e-12)
