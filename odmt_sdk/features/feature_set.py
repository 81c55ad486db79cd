"""The interface through which a model reads item features."""

from collections.abc import Hashable, Iterable
from os import PathLike
from typing import Any, Protocol

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


def check_feature_set(features: Any) -> None:
    """Raise `TypeError` unless a value can be used as item features; None is accepted.

    Args:
        features: what was passed as `item_features`.

    Raises:
        TypeError: if it is something else, such as a table, a dictionary or a path.
    """
    if features is None:
        return
    if hasattr(features, "gather") and not isinstance(features, torch.Tensor):
        return
    made = "ItemFeatures.from_items(table, text_encoder=..., image_encoder=...)"
    if isinstance(features, ItemVocabulary):
        made = "vocabulary= for a model that uses only IDs"
    elif isinstance(features, torch.Tensor) or (
        isinstance(features, dict)
        and all(isinstance(values, torch.Tensor) for values in features.values())
    ):
        made = "ItemFeatures.from_tensors(text=..., image=..., item_ids=...)"
    elif isinstance(features, str | PathLike):
        made = "ItemFeatures.open(path)"
    raise TypeError(f"item_features is a {type(features).__name__}, not ItemFeatures: pass {made}")
