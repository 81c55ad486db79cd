"""Early fusion by concatenation.

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


class ConcatFusion(ItemVectors):
    """An item is a linear layer on its ID and its projected content side by side.

    Args:
        **settings: those of `ItemVectors`.

    Examples:
        >>> encoder = ConcatFusion(num_items=9, hidden_size=8, modality_widths={})
        >>> encoder(torch.tensor([4, 7]))["item"].shape
        torch.Size([2, 8])
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        sources = 1 + len(self.modalities)
        self.mix = nn.Linear(sources * self.hidden_size, self.hidden_size)
        self.mix.apply(init_weights)
        with (
            torch.no_grad()
        ):  # Xavier's variance is 2 / ((S + 1) D); an equal length needs 1 / (S D)
            self.mix.weight.mul_(((sources + 1) / (2 * sources)) ** 0.5)

    def combine(self, vectors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Concatenate and mix."""
        return {"item": self.mix(torch.cat(list(vectors.values()), dim=-1))}  # (U, S D) -> (U, D)


@register_fusion("concat")
def build(
    config: ODMTConfig, num_items: int, hidden_size: int, modality_widths: Mapping[str, int]
) -> ConcatFusion:
    """Build the fusion from the settings."""
    return ConcatFusion(**vector_settings(config, num_items, hidden_size, modality_widths))
