"""What the model reads of item features, whatever they are kept in."""

from collections.abc import Hashable, Iterable
from typing import Protocol

import torch

from odmt_sdk.items.modality import ModalityTokens
from odmt_sdk.vocabulary import ItemVocabulary


class FeatureSet(Protocol):
    """Content tokens of N items; `ItemFeatures` and `JoinedFeatures` are such."""

    @property
    def vocabulary(self) -> ItemVocabulary:
        """The N item ids in row order."""

    @property
    def widths(self) -> dict[str, int]:
        """Modality -> feature width d."""

    def select(self, item_ids: Iterable[Hashable]) -> "FeatureSet":
        """Features whose rows follow `item_ids`."""

    def gather(self, rows: torch.Tensor) -> dict[str, ModalityTokens]:
        """Rows (U,) to modality -> tokens (U, T, d) and lengths (U,) on the device of `rows`."""
