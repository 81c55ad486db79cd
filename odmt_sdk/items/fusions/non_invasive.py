"""Non-invasive fusion: content says how the ID is read, and adds nothing to it.

Letters: U items, M modalities, D hidden size.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from odmt_sdk.items.fusions.vectors import ItemVectors
from odmt_sdk.transformer import init_weights


class NonInvasiveFusion(ItemVectors):
    """An item is its ID, each dimension of which its content makes weaker or stronger.

    NOVA and DIF-SR let content steer the attention between the items of a sequence and keep it out
    of what is attended to. A backbone of any kind has no such attention to steer. What is left of
    the idea at the level of an item: content is only ever a weight, twice a sigmoid of a linear
    layer, and the embedding stays a re-weighted ID. An item with an unknown ID has nothing that
    could be weighed, unless `id_dropout` trains the vector of unknown IDs.

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
