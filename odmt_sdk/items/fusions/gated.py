"""Early fusion by gates.

Letters: U items, S sources, D hidden size.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from odmt_sdk.config import ODMTConfig
from odmt_sdk.items.embedder import register_fusion
from odmt_sdk.items.fusions.vectors import ItemVectors, vector_settings
from odmt_sdk.transformer import init_weights


class GatedFusion(ItemVectors):
    """An item is a mixture of its ID and its projected content, with separate shares per dimension.

    The shares of the sources come from a linear layer on all of them and a softmax.

    Args:
        **settings: those of `ItemVectors`.

    Source: after Arevalo et al. 2017, https://arxiv.org/abs/1702.01992.

    Examples:
        >>> encoder = GatedFusion(num_items=9, hidden_size=8, modality_widths={"text": 5})
        >>> encoder.sources
        ('item',)
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        width = (1 + len(self.modalities)) * self.hidden_size
        self.gates = nn.Linear(width, width)
        self.gates.apply(init_weights)

    def combine(self, vectors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Weigh and add."""
        stacked = torch.stack(list(vectors.values()), dim=1)  # (U, S, D)
        shares = self.gates(stacked.flatten(1)).view_as(stacked).softmax(1)
        # equal shares make the mean of S vectors, which is shorter by S^-0.5
        return {"item": (shares * stacked).sum(1) * len(vectors) ** 0.5}


@register_fusion("gated")
def build(
    config: ODMTConfig, num_items: int, hidden_size: int, modality_widths: Mapping[str, int]
) -> GatedFusion:
    """Build the fusion from the settings."""
    return GatedFusion(**vector_settings(config, num_items, hidden_size, modality_widths))
