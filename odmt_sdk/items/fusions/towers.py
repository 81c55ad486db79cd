"""Late fusion: every source by itself, from the item to the score.

Letters: U items, D hidden size.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from odmt_sdk.items.fusions.content import unit_head
from odmt_sdk.items.fusions.vectors import ItemVectors
from odmt_sdk.transformer import init_weights


class Towers(ItemVectors):
    """Every source has a projection and a head of its own, and no source sees another.

    With `distillation_weight=0` the backbones of the sources are independent predictors, whose
    scores meet when recommending.

    Args:
        id_head: whether the ID passes a projection and a head like the modalities, as in ODMT, or
            is a bare table.
        dropout: probability on projected vectors.
        layer_norm_eps: epsilon of the layer norms.
        **settings: the others of `ItemVectors`.

    Examples:
        >>> encoder = Towers(num_items=9, hidden_size=8, modality_widths={"text": 5})
        >>> encoder.sources
        ('id', 'text')
    """

    def __init__(
        self,
        *,
        id_head: bool = True,
        dropout: float = 0.1,
        layer_norm_eps: float = 1e-6,
        **settings: Any,
    ) -> None:
        super().__init__(dropout=dropout, layer_norm_eps=layer_norm_eps, **settings)
        self.sources = ("id", *self.modalities)
        self.id_head: nn.Module = nn.Identity()
        if id_head:
            size = self.hidden_size
            project = nn.Linear(size, size)
            init_weights(project)
            norm = nn.LayerNorm(size, eps=layer_norm_eps)
            self.id_head = nn.Sequential(project, norm, nn.Dropout(dropout), unit_head(size))

    def combine(self, vectors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Leave the sources apart."""
        return {**vectors, "id": self.id_head(vectors["id"])}
