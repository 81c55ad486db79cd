"""Several recommenders that use only IDs: a fair baseline for models with several sources.

Letters: U items, N items of the catalogue, D hidden size.
"""

from collections.abc import Mapping

import torch
from torch import nn

from odmt_sdk.config import ODMTConfig
from odmt_sdk.features.modality import ModalityTokens
from odmt_sdk.items.embedder import ItemEmbedder, register_fusion
from odmt_sdk.items.fusions.ids import id_table


class IdEnsemble(ItemEmbedder):
    """Several tables of item IDs with different initial values; each table is a source.

    Args:
        num_items: N.
        hidden_size: D.
        copies: number of tables.
        initial_length: approximate length of the vectors before training.

    Examples:
        >>> IdEnsemble(num_items=9, hidden_size=8, copies=3).sources
        ('id', 'id_2', 'id_3')
    """

    modalities = ()

    def __init__(
        self, *, num_items: int, hidden_size: int, copies: int, initial_length: float = 0.16
    ) -> None:
        super().__init__()
        self.sources = ("id", *(f"id_{copy}" for copy in range(2, copies + 1)))
        self.tables = nn.ModuleDict(
            {source: id_table(num_items, hidden_size, initial_length) for source in self.sources}
        )

    def forward(
        self, item_ids: torch.Tensor, features: Mapping[str, ModalityTokens] | None = None
    ) -> dict[str, torch.Tensor]:
        """Look items up.

        Args:
            item_ids: (U,) rows in 0..N.
            features: not read.

        Returns:
            Source -> (U, D).
        """
        return {source: table(item_ids) for source, table in self.tables.items()}


@register_fusion("id_ensemble")
def build(
    config: ODMTConfig, num_items: int, hidden_size: int, modality_widths: Mapping[str, int]
) -> IdEnsemble:
    """Build one table per source that the features would give, or three without features."""
    copies = 1 + len(modality_widths) if modality_widths else 3
    return IdEnsemble(
        num_items=num_items,
        hidden_size=hidden_size,
        copies=copies,
        initial_length=config.initial_length,
    )
