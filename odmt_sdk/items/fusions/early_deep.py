"""Deep early fusion: a transformer mixes all tokens of an item into one embedding.

Letters: U items, N items of the catalogue, S sources, D hidden size.
"""

import dataclasses
from collections.abc import Mapping

import torch

from odmt_sdk.config import ODMTConfig
from odmt_sdk.features.modality import ModalityTokens
from odmt_sdk.items.embedder import ItemEmbedder, register_fusion
from odmt_sdk.items.fusions.odmt import build as build_odmt
from odmt_sdk.items.item_encoder import ItemEncoder


class EarlyDeepFusion(ItemEmbedder):
    """An item is the sum of its sources' embeddings from the multi-modal transformer.

    The sum is divided by the square root of S to keep its length.

    Args:
        encoder: encodes the sources.

    Examples:
        >>> from odmt_sdk import ItemEncoder
        >>> inner = ItemEncoder(num_items=9, hidden_size=8, modality_widths={})
        >>> EarlyDeepFusion(inner)(torch.tensor([4, 7]))["item"].shape
        torch.Size([2, 8])
    """

    sources = ("item",)

    def __init__(self, encoder: ItemEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.modalities = encoder.modalities

    @property
    def unseen(self) -> torch.Tensor:
        """The items (N + 1,) without training interactions."""
        return self.encoder.unseen

    def set_unseen(self, unseen: torch.Tensor) -> None:
        """Mark items without training interactions.

        Args:
            unseen: (N + 1,) bool.
        """
        self.encoder.set_unseen(unseen)

    def add_items(self, count: int) -> None:
        """Add items and mark them as unseen.

        Args:
            count: number of new items.
        """
        self.encoder.add_items(count)

    def forward(
        self, item_ids: torch.Tensor, features: Mapping[str, ModalityTokens] | None = None
    ) -> dict[str, torch.Tensor]:
        """Encode items.

        Args:
            item_ids: (U,) rows in 0..N.
            features: modality -> tokens (U, T_m, d_m) and lengths (U,).

        Returns:
            {"item": (U, D)}.
        """
        encoded = list(self.encoder(item_ids, features).values())
        return {"item": torch.stack(encoded).sum(0) * len(encoded) ** -0.5}


@register_fusion("early_deep")
def build(
    config: ODMTConfig, num_items: int, hidden_size: int, modality_widths: Mapping[str, int]
) -> EarlyDeepFusion:
    """Build the fusion around the paper's item encoder, without its shortcut."""
    config = dataclasses.replace(config, shortcut=False)
    return EarlyDeepFusion(build_odmt(config, num_items, hidden_size, modality_widths))
