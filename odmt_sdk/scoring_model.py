"""The interface of a model for evaluation, recommending and figures.

Letters: B histories, L positions, N items, D hidden size.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Protocol

import torch

from odmt_sdk.modes import HasModes
from odmt_sdk.outputs import Recommendations
from odmt_sdk.vocabulary import ItemVocabulary


class ScoringModel(HasModes, Protocol):
    """A model that encodes items and histories; their inner product is the score of an item.

    `ODMTWrapper` implements it. Your own model needs only the members that the called function
    uses: `evaluate` uses `sources`, `num_items`, `device` and the two `encode` methods.
    """

    max_seq_length: int
    vocabulary: ItemVocabulary | None

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources."""

    @property
    def num_items(self) -> int:
        """N, the size of the catalogue."""

    @property
    def device(self) -> torch.device:
        """Device of the weights."""

    def encode_catalogue(self) -> Mapping[str, torch.Tensor]:
        """Source -> (N + 1, D), row 0 = padding."""

    def encode_sequences(
        self,
        item_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        item_embeddings: Mapping[str, torch.Tensor] | None = None,
    ) -> Mapping[str, torch.Tensor]:
        """Encode rows (B, L) with mask (B, L) as source -> (B, D)."""

    def recommend(self, histories: Sequence[Sequence[Hashable]], k: int = 10) -> Recommendations:
        """Recommend the k best items for each history."""
