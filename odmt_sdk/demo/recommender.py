"""What the page shows, without widgets: recommendations with the contribution of each source."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from odmt_sdk.figures.score_contributions import contributions
from odmt_sdk.items.embedder import GrowingItemEmbedder
from odmt_sdk.retrieval.rerank import MaximalMarginalRelevance
from odmt_sdk.scoring import fused_vectors

if TYPE_CHECKING:
    from odmt_sdk.demo.item_table import ItemTable
    from odmt_sdk.wrapper import ODMTWrapper

MAX_K = 24
MAX_HISTORY = 30
EXAMPLES = 4
EXAMPLE_LENGTH = 3
_POPULAR = 100


@dataclass(frozen=True)
class Card:
    """A recommended item.

    Args:
        row: its row in the vocabulary.
        score: its score, above the average of the catalogue.
        shares: source -> its contribution to the score.
        places: source -> place of the item if only this source is used, 1 = best.
        cold: whether training has never seen the item.
    """

    row: int
    score: float
    shares: dict[str, float]
    places: dict[str, int]
    cold: bool


class Recommender:
    """Recommends for the page; several visitors may call it at the same time.

    Args:
        model: the model.
        table: its items.

    Raises:
        ValueError: if the model has no items.
    """

    def __init__(self, model: ODMTWrapper, table: ItemTable) -> None:
        self.model, self.table = model, table
        self.sources = tuple(model.sources)
        self._lock = threading.Lock()
        catalogue = model.encode_catalogue()
        content = [source for source in self.sources if source != "id"] or list(self.sources)
        self._content = fused_vectors(catalogue, content).detach().float().cpu()
        encoder = model.item_encoder
        unseen: list[bool] = []
        if isinstance(encoder, GrowingItemEmbedder):
            unseen = encoder.unseen.tolist()
        self.cold = frozenset(row for row, cold in enumerate(unseen) if cold and row)
        log_q = model.item_log_probability[1:]
        order = log_q.argsort(descending=True, stable=True)  # all alike: as in the catalogue
        self.popular = [int(row) + 1 for row in order[:_POPULAR]]

    def recommend(
        self,
        history: Sequence[int],
        *,
        k: int = 8,
        weights: Mapping[str, float] | None = None,
        use_id: bool = True,
        diversity: float = 0.0,
    ) -> list[Card]:
        """Recommend items as `ODMTWrapper.recommend` does, and decompose their scores.

        Args:
            history: rows of items, oldest first.
            k: number of items, 1 to 24.
            weights: source -> weight, at least 0; None = the weights of the model.
            use_id: whether the source "id" takes part.
            diversity: weight of the similarity to items above it, 0 to 1, see
                `MaximalMarginalRelevance`.

        Returns:
            The items, best first.

        Raises:
            ValueError: if the history is empty, a row is unknown, a number is out of range, or no
                source is left. The messages are for visitors of the page.
        """
        history = self.checked(history)
        if not history:
            raise ValueError("The history is empty. Pick at least one item.")
        if isinstance(k, bool) or int(k) != k or not 1 <= k <= MAX_K:
            raise ValueError(f"The number of recommendations must lie in 1 to {MAX_K}, not {k}.")
        if not 0 <= diversity <= 1:
            raise ValueError(f"Diversity must lie in 0 to 1, not {diversity}.")
        weights = {**self.model.source_weights, **(weights or {})}
        if not use_id and "id" in weights:
            weights["id"] = 0.0
        for source, weight in weights.items():
            if not 0 <= weight < float("inf"):
                raise ValueError(f"The weight of {source} must be at least 0, not {weight}.")
        if not any(weights.values()):
            raise ValueError("Every source is off. Give at least one source a weight.")
        vocabulary = self.table.vocabulary
        rerank = MaximalMarginalRelevance(self._content, diversity=diversity) if diversity else None
        item_ids = vocabulary.ids(history)
        with self._lock:
            (found,), _ = self.model.recommend(
                [item_ids], k=int(k), source_weights=weights, rerank=rerank
            )
            if not found:
                return []
            split = contributions(
                self.model, item_ids, found, above_average=True, source_weights=weights
            )
        rows = vocabulary.rows(found)
        return [
            Card(
                row=row,
                score=float(split.scores[place]),
                shares={source: float(part[place]) for source, part in split.parts.items()},
                places={source: int(split.ranks[source][place]) for source in split.parts},
                cold=row in self.cold,
            )
            for place, row in enumerate(rows)
        ]

    def checked(self, history: Sequence[int]) -> list[int]:
        """Check the rows of a history and keep the latest ones.

        Raises:
            ValueError: if a row is unknown.
        """
        for row in history:
            if isinstance(row, bool) or not isinstance(row, int) or not 0 < row <= self.num_items:
                raise ValueError(f"There is no item {row!r}.")
        return list(history)[-MAX_HISTORY:]

    @property
    def num_items(self) -> int:
        """Number of items of the catalogue."""
        return len(self.table.vocabulary)

    def examples(self) -> dict[str, list[int]]:
        """Make example histories: dissimilar popular items, each with the items most like it.

        Returns:
            Name -> rows.
        """
        vectors = torch.nn.functional.normalize(self._content, dim=1)
        starts = self.popular[:1]
        while len(starts) < min(EXAMPLES, len(self.popular)):
            likeness = (vectors[self.popular] @ vectors[starts].T).amax(1)  # (popular,)
            starts.append(self.popular[int(likeness.argmin())])
        length = min(EXAMPLE_LENGTH, self.num_items) - 1
        histories = {}
        for start in dict.fromkeys(starts):
            likeness = vectors @ vectors[start]
            likeness[[0, start]] = -torch.inf
            alike = likeness.topk(length).indices.tolist() if length else []
            histories[self.table.titles[start]] = [*reversed(alike), start]
        return histories
