"""How a user meets an item: inner products, as ranking and retrieval need them.

Letters: Q queries (users), N items, W width of a vector, M excluded items of a query, S sources,
D hidden size.
"""

from collections.abc import Mapping, Sequence

import torch
from torch.nn.utils.rnn import pad_sequence

ExcludedRows = torch.Tensor | Sequence[torch.Tensor] | Sequence[Sequence[int]]


def fused_vectors(embeddings: Mapping[str, torch.Tensor], sources: Sequence[str]) -> torch.Tensor:
    """Concatenate the sources, so that one inner product adds up their scores.

    ODMT scores an item by the mean over sources of <user_s, item_s>. That is the inner product of
    the fused vectors of user and item, divided by S; one matrix serves the whole catalogue.

    Args:
        embeddings: source -> (..., D), of users or of items.
        sources: the sources to use, in the order that users and items share.

    Returns:
        (..., S * D); the matrix itself, not a copy, where the sources are its parts in that order.

    Raises:
        ValueError: if there is no source, or one has no embeddings.

    Source: https://arxiv.org/abs/2308.04067.

    Examples:
        >>> users = {"id": torch.tensor([[1.0, 2.0]]), "text": torch.tensor([[3.0, 0.0]])}
        >>> fused_vectors(users, ("id", "text"))
        tensor([[1., 2., 3., 0.]])
    """
    missing = [source for source in sources if source not in embeddings]
    if missing or not sources:
        raise ValueError(
            f"sources={tuple(sources)} with embeddings of {tuple(embeddings)}: name at least one "
            "source, and only such as have embeddings"
        )
    parts = [embeddings[source] for source in sources]
    if _side_by_side(parts):
        return parts[0].as_strided((len(parts[0]), parts[0].stride(0)), (parts[0].stride(0), 1))
    return torch.cat(parts, dim=-1)


def _side_by_side(parts: Sequence[torch.Tensor]) -> bool:
    """Whether matrices are all the columns of one, in order."""
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
        ValueError: if the shapes do not fit, or there is no item.
        TypeError: if one holds no floating-point numbers.
    """
    for name, vectors in (("query_vectors", query_vectors), ("item_vectors", item_vectors)):
        if vectors.ndim != 2:
            raise ValueError(f"{name} has shape {tuple(vectors.shape)}, it needs (rows, width)")
        if not vectors.is_floating_point():
            raise TypeError(f"{name} holds {vectors.dtype}, it needs floating-point numbers")
    if query_vectors.shape[1] != item_vectors.shape[1]:
        raise ValueError(
            f"query_vectors are {query_vectors.shape[1]} wide and item_vectors "
            f"{item_vectors.shape[1]}; both must come from the same model and the same sources"
        )
    if len(item_vectors) < 2:
        raise ValueError(
            f"item_vectors has {len(item_vectors)} rows, it needs at least 2: row 0 is padding, "
            "the items follow"
        )


def check_block_size(block_size: int) -> None:
    """Check the number of scores to hold at once.

    Raises:
        ValueError: if it is below 1.
    """
    if block_size < 1:
        raise ValueError(f"block_size={block_size} must be at least 1: scores held at once")


def score_type(*vectors: torch.Tensor) -> torch.dtype:
    """The type to score in: at least float32, as many items would tie in half precision."""
    dtype = torch.float32
    for tensor in vectors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def inner_products(query_vectors: torch.Tensor, item_vectors: torch.Tensor) -> torch.Tensor:
    """Score every item for every query, in the type of the vectors even under autocast.

    Args:
        query_vectors: (Q, W).
        item_vectors: (N, W), same type.

    Returns:
        (Q, N).
    """
    with torch.autocast(query_vectors.device.type, enabled=False):
        return query_vectors @ item_vectors.T


def padded_rows(
    rows: ExcludedRows, num_queries: int, num_items: int, device: torch.device
) -> torch.Tensor:
    """Bring the rows to exclude for each query into one tensor.

    Args:
        rows: (Q, M) padded with 0, or Q sequences of any length.
        num_queries: Q.
        num_items: N.
        device: where to put them.

    Returns:
        (Q, M) int64, padded with 0.

    Raises:
        ValueError: if there are not Q of them, or a row is outside 0..N.
        TypeError: if they are no integers.
    """
    if not isinstance(rows, torch.Tensor):
        ragged = [torch.as_tensor(row, dtype=torch.long, device=device) for row in rows]
        rows = pad_sequence(ragged, batch_first=True) if ragged else torch.zeros(0, 0).long()
    if rows.is_floating_point() or rows.dtype is torch.bool:
        raise TypeError(f"excluded holds {rows.dtype}, it needs integers: rows of items, 0 = none")
    if rows.ndim != 2 or len(rows) != num_queries:
        raise ValueError(
            f"excluded has shape {tuple(rows.shape)}, {num_queries} queries need "
            f"({num_queries}, M): the rows to leave out of each, padded with 0"
        )
    rows = rows.to(device, torch.long)
    if rows.numel():
        low, high = (int(value) for value in rows.aminmax())
        if low < 0 or high > num_items:
            raise ValueError(
                f"excluded holds row {low if low < 0 else high}, outside 0..{num_items}"
            )
    return rows


def mask_rows_(scores: torch.Tensor, rows: torch.Tensor, first_row: int = 0) -> None:
    """Set the scores of some items to minus infinity, in place.

    Args:
        scores: (Q, N'), of the items from `first_row` on.
        rows: (Q, M), the items to mask for each query; those outside `scores` are passed over.
        first_row: the item that column 0 of `scores` stands for.
    """
    columns = rows - first_row
    query, slot = ((columns >= 0) & (columns < scores.shape[1])).nonzero(as_tuple=True)
    scores[query, columns[query, slot]] = -torch.inf
