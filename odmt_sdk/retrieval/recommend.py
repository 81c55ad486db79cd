"""Recommendations in the user's own item ids.

Letters: B histories, L positions, N items, S sources, D hidden size.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Literal, Protocol

import torch
from torch.nn.utils.rnn import pad_sequence

from odmt_sdk.outputs import Recommendations
from odmt_sdk.retrieval.top_k import top_k_rows
from odmt_sdk.scoring import fused_vectors
from odmt_sdk.vocabulary import ItemVocabulary


class Recommender(Protocol):
    """What recommending asks of a model."""

    training: bool
    max_seq_length: int

    @property
    def device(self) -> torch.device:
        """Where the weights are."""

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources."""

    def eval(self) -> object:
        """Leave training mode."""

    def train(self, mode: bool = True) -> object:
        """Set training mode."""

    def encode_catalogue(self) -> dict[str, torch.Tensor]:
        """Source -> (N + 1, D)."""

    def encode_sequences(
        self,
        item_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        item_embeddings: Mapping[str, torch.Tensor] | None = None,
    ) -> dict[str, torch.Tensor]:
        """Rows (B, L) to source -> (B, D)."""


@torch.no_grad()
def recommend(
    model: Recommender,
    vocabulary: ItemVocabulary,
    histories: Sequence[Sequence[Hashable]],
    *,
    k: int,
    exclude_seen: bool,
    unknown: Literal["error", "skip"],
    batch_size: int,
) -> Recommendations:
    """Recommend the next items of some histories; see `ODMTWrapper.recommend`.

    Args:
        model: scores items.
        vocabulary: its item ids.
        histories: item ids, oldest first.
        k: how many items to recommend, 1..N.
        exclude_seen: leave out the items of the history.
        unknown: "skip" or "error" for ids not in the vocabulary.
        batch_size: histories scored at once.

    Returns:
        Item ids and scores, best first.

    Raises:
        ValueError: if k or batch_size is out of range, a history is empty or an id unknown.
    """
    if not 1 <= k <= len(vocabulary):
        raise ValueError(f"k={k} must lie in 1..{len(vocabulary)}, the number of items")
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} must be at least 1")
    rows = _history_rows(vocabulary, histories, unknown)
    result = Recommendations([], [])
    training = model.training
    model.eval()
    try:
        catalogue = model.encode_catalogue()
        items = fused_vectors(catalogue, model.sources)  # (N + 1, S * D)
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]
            latest = [history[-model.max_seq_length :] for history in batch]
            item_ids = pad_sequence(latest, batch_first=True, padding_side="left")  # (B, L)
            encoded = model.encode_sequences(item_ids.to(model.device), item_embeddings=catalogue)
            queries = fused_vectors(encoded, model.sources) / len(model.sources)  # (B, S * D)
            seen = pad_sequence(batch, batch_first=True).to(model.device) if exclude_seen else None
            scores, found = top_k_rows(queries, items, k, excluded=seen)
            for user_rows, user_scores in zip(found.tolist(), scores.tolist(), strict=True):
                kept = [row for row in user_rows if row]  # row 0: nothing left to recommend
                result.item_ids.append(list(vocabulary.ids(kept)))
                result.scores.append(user_scores[: len(kept)])
    finally:
        model.train(training)
    return result


def _history_rows(
    vocabulary: ItemVocabulary,
    histories: Sequence[Sequence[Hashable]],
    unknown: Literal["error", "skip"],
) -> list[torch.Tensor]:
    found = []
    for index, history in enumerate(histories):
        if isinstance(history, str | bytes) or not hasattr(history, "__iter__"):
            raise ValueError(
                f"history {index} is {history!r}; histories is a list of lists of item ids, "
                "for one user [[...]]"
            )
        try:
            rows = vocabulary.rows(history, unknown=unknown)
        except ValueError as error:
            raise ValueError(f"history {index}: {error}") from None
        if not rows:
            raise ValueError(
                f"history {index} is empty"
                + (" after leaving out unknown items" if len(history) else "")
                + ": a recommendation needs at least one known item"
            )
        found.append(torch.tensor(rows))
    return found
