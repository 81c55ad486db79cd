"""Several recommenders of IDs alone, as a fair measure for several sources.

Letters: U items, N items of the catalogue, D hidden size.
"""

from collections.abc import Mapping

import torch
from torch import nn

from odmt_sdk.items.fusions.ids import unit_table
from odmt_sdk.items.modality import ModalityTokens


class IdEnsemble(nn.Module):
    """Some tables of item IDs that start apart, each a source with a backbone of its own.

    Args:
        num_items: N.
        hidden_size: D.
        copies: how many tables.

    Examples:
        >>> IdEnsemble(num_items=9, hidden_size=8, copies=3).sources
        ('id', 'id_2', 'id_3')
    """

    modalities: tuple[str, ...] = ()

    def __init__(self, *, num_items: int, hidden_size: int, copies: int) -> None:
        super().__init__()
        self.sources = ("id", *(f"id_{copy}" for copy in range(2, copies + 1)))
        self.tables = nn.ModuleDict(
            {source: unit_table(num_items, hidden_size) for source in self.sources}
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
