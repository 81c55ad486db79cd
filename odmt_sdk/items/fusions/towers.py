"""Late fusion: every source by itself, from the item to the score.

Letters: U items, D hidden size.
"""

from collections.abc import Mapping
from typing import Any

import torch

from odmt_sdk.items.fusions.vectors import ContentHead, ItemVectors


class Towers(ItemVectors):
    """Every source has a projection and a head of its own, and no source sees another.

    It is ODMT without its multi-modal transformer. With `distillation_weight=0` the backbones of
    the sources are independent predictors, whose scores meet when recommending.

    Args:
        id_head: whether the ID passes a projection and a head like the modalities, as in ODMT, or
            is a bare table.
        **settings: those of `ItemVectors`.

    Examples:
        >>> encoder = Towers(num_items=9, hidden_size=8, modality_widths={"text": 5})
        >>> encoder.sources
        ('id', 'text')
    """

    def __init__(self, *, id_head: bool = True, **settings: Any) -> None:
        super().__init__(**settings)
        self.sources = ("id", *self.modalities)
        self.id_head = (
            ContentHead(
                self.hidden_size,
                self.hidden_size,
                settings.get("dropout", 0.1),
                settings.get("layer_norm_eps", 1e-6),
            )
            if id_head
            else torch.nn.Identity()
        )

    def combine(self, vectors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Leave the sources apart."""
        return {**vectors, "id": self.id_head(vectors["id"])}
