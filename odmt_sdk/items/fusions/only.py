"""A fusion that uses a single modality.

Letters: U items, N items of the catalogue, T tokens of one item, d feature width, D hidden size.
"""

from collections.abc import Mapping
from typing import Any

import torch

from odmt_sdk.config import ODMTConfig
from odmt_sdk.features.modality import ModalityTokens
from odmt_sdk.items.embedder import ItemEmbedder, register_fusion
from odmt_sdk.items.fusions.content import ContentHead
from odmt_sdk.items.fusions.id_ensemble import IdEnsemble


class OnlyContent(ItemEmbedder):
    """An item is its projected content in one modality; the ID is not used.

    Args:
        modality: name of the modality to read.
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
                f"fusion='only:{modality}' reads {modality!r}, but the features have "
                f"{sorted(modality_widths)}: choose one of them, or 'only:id'"
            )
        self.modality = modality
        self.modalities = tuple(modality_widths)
        self.sources = (modality,)
        self.content = ContentHead(modality_widths[modality], hidden_size, **settings)
        self.register_buffer("unseen", torch.zeros(num_items + 1, dtype=torch.bool))

    def set_unseen(self, unseen: torch.Tensor) -> None:
        """Store which items have no training interactions; the embeddings do not depend on it.

        Args:
            unseen: (N + 1,) bool.
        """
        self.unseen.copy_(unseen)

    def add_items(self, count: int) -> None:
        """Add items.

        Args:
            count: number of new items.
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
        features = features or {}
        if self.modality not in features:
            raise ValueError(
                f"got features of {sorted(features)}, this fusion reads {self.modality!r}: "
                "give items that lack it length 0"
            )
        return {self.modality: self.content(features[self.modality])}


@register_fusion("only:")
def build(
    config: ODMTConfig, num_items: int, hidden_size: int, modality_widths: Mapping[str, int]
) -> ItemEmbedder:
    """Build the encoder of the source after the colon of `config.fusion`."""
    source = config.fusion.partition(":")[2]
    if source == "id":
        return IdEnsemble(
            num_items=num_items,
            hidden_size=hidden_size,
            copies=1,
            initial_length=config.initial_length,
        )
    return OnlyContent(
        source,
        num_items=num_items,
        hidden_size=hidden_size,
        modality_widths=modality_widths,
        dropout=config.dropout,
        layer_norm_eps=config.layer_norm_eps,
        initial_length=config.initial_length,
    )
