"""Late fusion: every source is separate, from the item to the score.

Letters: U items, D hidden size.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from odmt_sdk.config import ODMTConfig
from odmt_sdk.items.embedder import register_fusion
from odmt_sdk.items.fusions.content import content_head
from odmt_sdk.items.fusions.vectors import ItemVectors, vector_settings
from odmt_sdk.transformer import init_weights


class Towers(ItemVectors):
    """Every source has its own projection and head, and no source reads another.

    With `distillation_weight=0`, the backbones of the sources are independent predictors. Their
    scores are averaged when recommending.

    Args:
        id_head: whether the ID has a projection and a head like the modalities, as in ODMT. False =
            the ID is a bare table.
        dropout: probability on projected vectors.
        layer_norm_eps: epsilon of the layer norms.
        initial_length: approximate length of the vectors before training.
        **settings: the other settings of `ItemVectors`.

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
        initial_length: float = 0.16,
        **settings: Any,
    ) -> None:
        super().__init__(
            dropout=dropout,
            layer_norm_eps=layer_norm_eps,
            initial_length=initial_length,
            **settings,
        )
        self.sources = ("id", *self.modalities)
        self.id_head: nn.Module = nn.Identity()
        if id_head:
            size = self.hidden_size
            project = nn.Linear(size, size)
            init_weights(project)
            norm = nn.LayerNorm(size, eps=layer_norm_eps)
            head = content_head(size, initial_length)
            self.id_head = nn.Sequential(project, norm, nn.Dropout(dropout), head)

    def combine(self, vectors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Keep the sources separate."""
        return {**vectors, "id": self.id_head(vectors["id"])}


@register_fusion("towers")
def build_towers(
    config: ODMTConfig, num_items: int, hidden_size: int, modality_widths: Mapping[str, int]
) -> Towers:
    """Build towers whose ID has a projection and a head."""
    return Towers(**vector_settings(config, num_items, hidden_size, modality_widths))


@register_fusion("late")
def build_late(
    config: ODMTConfig, num_items: int, hidden_size: int, modality_widths: Mapping[str, int]
) -> Towers:
    """Build towers whose ID is a bare table."""
    settings = vector_settings(config, num_items, hidden_size, modality_widths)
    return Towers(id_head=False, **settings)


@register_fusion("late_deep")
def build_late_deep(
    config: ODMTConfig, num_items: int, hidden_size: int, modality_widths: Mapping[str, int]
) -> Towers:
    """Build towers with transformer blocks over the tokens of each modality."""
    settings = vector_settings(config, num_items, hidden_size, modality_widths)
    return Towers(
        id_head=False, num_layers=config.num_layers, num_heads=config.num_heads, **settings
    )
