"""Deep early fusion: all tokens of an item mixed, and one embedding taken out.

Letters: U items, N items of the catalogue, S sources, D hidden size.
"""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import nn

from odmt_sdk.items.modality import ModalityTokens


class EarlyDeepFusion(nn.Module):
    """An item is the sum of what the multi-modal transformer makes of its sources.

    The sum is divided by the square root of S, which keeps it at about unit length.

    Args:
        encoder: an item encoder of several sources, such as `ItemEncoder`; it may grow.

    Examples:
        >>> from odmt_sdk import ItemEncoder
        >>> inner = ItemEncoder(num_items=9, hidden_size=8, modality_widths={})
        >>> EarlyDeepFusion(inner)(torch.tensor([4, 7]))["item"].shape
        torch.Size([2, 8])
    """

    sources: tuple[str, ...] = ("item",)

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.modalities = cast(tuple[str, ...], encoder.modalities)

    @property
    def unseen(self) -> torch.Tensor:
        """Which items (N + 1,) training has never seen."""
        return cast(torch.Tensor, self.encoder.unseen)

    def set_unseen(self, unseen: torch.Tensor) -> None:
        """Say which items training has never seen.

        Args:
            unseen: (N + 1,) bool.
        """
        cast(Any, self.encoder).set_unseen(unseen)

    def add_items(self, count: int) -> None:
        """Make room for more items, marked as unseen.

        Args:
            count: how many.
        """
        cast(Any, self.encoder).add_items(count)

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
