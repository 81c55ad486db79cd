"""The interface through which a model reads item features."""

from collections.abc import Hashable, Iterable
from typing import Protocol

import torch

from odmt_sdk.features.modality import ModalityTokens
from odmt_sdk.vocabulary import ItemVocabulary


class FeatureSet(Protocol):
    """Content tokens of N items, as provided by `ItemFeatures` and `JoinedFeatures`."""

    @property
    def vocabulary(self) -> ItemVocabulary:
        """The N item ids in row order."""

    @property
    def widths(self) -> dict[str, int]:
        """Modality -> feature width d."""

    def select(self, item_ids: Iterable[Hashable]) -> "FeatureSet":
        """Return features whose rows are in the order of `item_ids`."""

    def gather(self, rows: torch.Tensor) -> dict[str, ModalityTokens]:
        """Return modality -> tokens (U, T, d) and lengths (U,), on the device of `rows` (U,)."""
