"""Early fusion by a sum.

Letters: U items, S sources, D hidden size.
"""

from collections.abc import Mapping

import torch

from odmt_sdk.config import ODMTConfig
from odmt_sdk.items.embedder import register_fusion
from odmt_sdk.items.fusions.vectors import ItemVectors, vector_settings


class SumFusion(ItemVectors):
    """An item is the sum of its ID and its projected content, read by one backbone.

    The sum is divided by the square root of S to keep its length.

    Examples:
        >>> encoder = SumFusion(num_items=9, hidden_size=8, modality_widths={})
        >>> encoder(torch.tensor([4, 7]))["item"].shape
        torch.Size([2, 8])
    """

    def combine(self, vectors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Add."""
        stacked = torch.stack(list(vectors.values()))  # (S, U, D)
        return {"item": stacked.sum(0) * len(vectors) ** -0.5}


@register_fusion("sum")
def build(
    config: ODMTConfig, num_items: int, hidden_size: int, modality_widths: Mapping[str, int]
) -> SumFusion:
    """Build the fusion from the settings."""
    return SumFusion(**vector_settings(config, num_items, hidden_size, modality_widths))
