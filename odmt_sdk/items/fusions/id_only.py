"""A recommender without content.

Letters: U items, N items of the catalogue, D hidden size.
"""

from collections.abc import Mapping

import torch
from torch import nn

from odmt_sdk.config import ODMTConfig
from odmt_sdk.features.modality import ModalityTokens
from odmt_sdk.items.embedder import ItemEmbedder, register_fusion
from odmt_sdk.transformer import init_weights


class IDEncoder(ItemEmbedder):
    """A bare table of item IDs: the single source of a recommender without content.

    Args:
        num_items: N; the table has N + 1 rows, row 0 is padding.
        hidden_size: D.

    Examples:
        >>> IDEncoder(num_items=9, hidden_size=8)(torch.tensor([4, 7]))["id"].shape
        torch.Size([2, 8])
    """

    sources = ("id",)
    modalities = ()

    def __init__(self, *, num_items: int, hidden_size: int) -> None:
        super().__init__()
        self.id_embedding = nn.Embedding(num_items + 1, hidden_size, padding_idx=0)
        self.apply(init_weights)

    def forward(
        self, item_ids: torch.Tensor, features: Mapping[str, ModalityTokens] | None = None
    ) -> dict[str, torch.Tensor]:
        """Look items up.

        Args:
            item_ids: (U,) rows in 0..N.
            features: not read.

        Returns:
            {"id": (U, D)}.
        """
        return {"id": self.id_embedding(item_ids)}


@register_fusion("id")
def build(
    config: ODMTConfig, num_items: int, hidden_size: int, modality_widths: Mapping[str, int]
) -> IDEncoder:
    """Build the table; features are not read."""
    return IDEncoder(num_items=num_items, hidden_size=hidden_size)
