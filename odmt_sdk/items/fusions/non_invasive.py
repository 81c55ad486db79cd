"""Non-invasive fusion: content re-weights the ID and adds nothing to it.

Letters: U items, M modalities, D hidden size.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from odmt_sdk.config import ODMTConfig
from odmt_sdk.items.embedder import register_fusion
from odmt_sdk.items.fusions.vectors import ItemVectors, vector_settings
from odmt_sdk.transformer import init_weights


class NonInvasiveFusion(ItemVectors):
    """An item is its ID; its content makes each dimension weaker or stronger.

    NOVA and DIF-SR let content steer the attention between the items of a sequence and keep it out
    of the values. Not every backbone has such attention. This fusion applies the idea to a single
    item: content only gives weights, twice the sigmoid of a linear layer, and the embedding is the
    re-weighted ID. For an item with an unknown ID there is nothing to weight, unless `id_dropout`
    trains the vector of unknown IDs.

    Args:
        **settings: those of `ItemVectors`.

    Source: after Liu et al. 2021, https://arxiv.org/abs/2103.03578, and Xie et al. 2022,
    https://arxiv.org/abs/2204.11046.

    Examples:
        >>> encoder = NonInvasiveFusion(num_items=9, hidden_size=8, modality_widths={"text": 5})
        >>> encoder.sources
        ('item',)
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.weigh = None
        if self.modalities:
            self.weigh = nn.Linear(len(self.modalities) * self.hidden_size, self.hidden_size)
            self.weigh.apply(init_weights)

    def combine(self, vectors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Weigh the ID by the content."""
        if self.weigh is None:
            return {"item": vectors["id"]}
        content = torch.cat([vectors[name] for name in self.modalities], dim=-1)  # (U, M D)
        return {"item": vectors["id"] * 2 * self.weigh(content).sigmoid()}


@register_fusion("non_invasive")
def build(
    config: ODMTConfig, num_items: int, hidden_size: int, modality_widths: Mapping[str, int]
) -> NonInvasiveFusion:
    """Build the fusion from the settings."""
    return NonInvasiveFusion(**vector_settings(config, num_items, hidden_size, modality_widths))
