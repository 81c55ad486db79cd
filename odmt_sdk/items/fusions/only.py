"""Recommending by one modality alone.

Letters: U items, N items of the catalogue, T tokens of one item, d feature width, D hidden size.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from odmt_sdk.items.fusions.content import ContentHead
from odmt_sdk.items.modality import ModalityTokens


class OnlyContent(nn.Module):
    """An item is its projected content in one modality; it has no ID, and so none can be unseen.

    Args:
        modality: the one to read.
        num_items: N.
        hidden_size: D.
        modality_widths: modality -> feature width d.
        **settings: those of `ContentHead`.

    Raises:
        ValueError: if the features lack the modality.

    Examples:
        >>> encoder = OnlyContent(
        ...     "text", num_items=9, hidden_size=8, modality_widths={"text": 5, "image": 4})
        >>> encoder.sources
        ('text',)
    """

    unseen: torch.Tensor

    def __init__(
        self,
        modality: str,
        *,
        num_items: int,
        hidden_size: int,
        modality_widths: Mapping[str, int],
        **settings: Any,
    ) -> None:
        super().__init__()
        if modality not in modality_widths:
            raise ValueError(
                f"fusion='only:{modality}' reads {modality!r}, the features have "
                f"{sorted(modality_widths)}: name one of them, or 'only:id'"
            )
        self.modality = modality
        self.modalities = tuple(modality_widths)
        self.sources = (modality,)
        self.content = ContentHead(modality_widths[modality], hidden_size, **settings)
        self.register_buffer("unseen", torch.zeros(num_items + 1, dtype=torch.bool))

    def set_unseen(self, unseen: torch.Tensor) -> None:
        """Remember which items training has never seen; nothing depends on it.

        Args:
            unseen: (N + 1,) bool.
        """
        self.unseen.copy_(unseen)

    def add_items(self, count: int) -> None:
        """Make room for more items.

        Args:
            count: how many.
        """
        self.unseen = torch.cat([self.unseen, self.unseen.new_ones(count)])

    def forward(
        self, item_ids: torch.Tensor, features: Mapping[str, ModalityTokens] | None = None
    ) -> dict[str, torch.Tensor]:
        """Encode items.

        Args:
            item_ids: (U,) rows in 0..N; not read.
            features: modality -> tokens (U, T_m, d_m) and lengths (U,).

        Returns:
            {modality: (U, D)}.

        Raises:
            ValueError: if the modality is missing.
        """
        if self.modality not in (features or {}):
            raise ValueError(
                f"got features of {sorted(features or {})}, this fusion reads {self.modality!r}: "
                "give items that lack it length 0"
            )
        return {self.modality: self.content(features[self.modality])}  # type: ignore[index]
