"""One vector per source of an item; the fusions for comparison combine these vectors.

Letters: U items, N items of the catalogue, T tokens of one item, d feature width, D hidden size.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from odmt_sdk.config import ODMTConfig
from odmt_sdk.features.modality import ModalityTokens
from odmt_sdk.items.embedder import ItemEmbedder
from odmt_sdk.items.fusions.content import ContentHead
from odmt_sdk.items.fusions.ids import IdTable
from odmt_sdk.items.random_hiding import hide


class ItemVectors(ItemEmbedder):
    """Looks up an item's ID and turns each of its modalities into one vector.

    All vectors have about the same length before training. A learned vector replaces a modality
    that an item lacks, and the ID of an item without training interactions.

    A fusion is a subclass: it sets `sources`, and its `combine` turns `vectors` into embeddings.

    Args:
        num_items: N; the ID table has N + 1 rows, row 0 is padding.
        hidden_size: D.
        modality_widths: modality -> feature width d; may be empty.
        dropout: probability on projected content.
        layer_norm_eps: epsilon of the layer norms.
        modality_dropout: probability that a modality of an item is hidden in a training batch.
        id_dropout: probability that the ID of an item with content is hidden in a training batch.
            Content and ID of an item are never all hidden.
        num_layers: transformer blocks over the tokens of each modality; 0 reads the first token.
        num_heads: attention heads of a block, a divisor of D.
        initial_length: approximate length of the vectors before training.

    Raises:
        ValueError: if there are blocks and `num_heads` does not divide `hidden_size`.
    """

    sources: tuple[str, ...] = ("item",)

    def __init__(
        self,
        *,
        num_items: int,
        hidden_size: int,
        modality_widths: Mapping[str, int],
        dropout: float = 0.1,
        layer_norm_eps: float = 1e-6,
        modality_dropout: float = 0.0,
        id_dropout: float = 0.0,
        num_layers: int = 0,
        num_heads: int = 2,
        initial_length: float = 0.16,
    ) -> None:
        super().__init__()
        self.modalities = tuple(modality_widths)
        self.hidden_size = hidden_size
        self.modality_dropout, self.id_dropout = modality_dropout, id_dropout
        self.ids = IdTable(
            num_items=num_items, hidden_size=hidden_size, initial_length=initial_length
        )
        self.contents = nn.ModuleDict(
            {
                name: ContentHead(
                    width,
                    hidden_size,
                    dropout=dropout,
                    layer_norm_eps=layer_norm_eps,
                    num_layers=num_layers,
                    num_heads=num_heads,
                    initial_length=initial_length,
                )
                for name, width in modality_widths.items()
            }
        )

    @property
    def unseen(self) -> torch.Tensor:
        """The items (N + 1,) without training interactions."""
        return self.ids.unseen

    def set_unseen(self, unseen: torch.Tensor) -> None:
        """Mark items without training interactions; in eval mode their IDs count as unknown.

        Args:
            unseen: (N + 1,) bool.
        """
        self.ids.unseen.copy_(unseen)

    def add_items(self, count: int) -> None:
        """Add items and mark them as unseen; their IDs start at the unknown-ID vector.

        Args:
            count: number of new items.
        """
        self.ids.add_items(count)

    def forward(
        self, item_ids: torch.Tensor, features: Mapping[str, ModalityTokens] | None = None
    ) -> dict[str, torch.Tensor]:
        """Encode items.

        Args:
            item_ids: (U,) rows in 0..N.
            features: modality -> tokens (U, T_m, d_m) and lengths (U,); tokens past an item's
                length are never read.

        Returns:
            Source -> (U, D).

        Raises:
            ValueError: if modalities are missing or unknown.
        """
        features = features or {}
        if set(features) != set(self.modalities):
            raise ValueError(
                f"got features of {sorted(features)}, this fusion reads {sorted(self.modalities)}: "
                "give items that lack a modality length 0"
            )
        return self.combine(self.vectors(item_ids, features))

    def combine(self, vectors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Combine one vector per input into one embedding per source; defined by each fusion.

        Args:
            vectors: "id" and each modality -> (U, D).

        Returns:
            Source -> (U, D).
        """
        raise NotImplementedError(f"{type(self).__name__} must define combine")

    def vectors(
        self, item_ids: torch.Tensor, features: Mapping[str, ModalityTokens]
    ) -> dict[str, torch.Tensor]:
        """Compute one vector per input.

        Args:
            item_ids: (U,) rows in 0..N.
            features: modality -> tokens (U, T_m, d_m) and lengths (U,).

        Returns:
            "id" and each modality -> (U, D).
        """
        hidden = None
        if self.training and features and self.modality_dropout + self.id_dropout > 0:
            features, hidden = hide(
                features, modality_dropout=self.modality_dropout, id_dropout=self.id_dropout
            )
        contents = {name: self.contents[name](features[name]) for name in self.modalities}
        return {"id": self.ids(item_ids, hidden), **contents}


def vector_settings(
    config: ODMTConfig, num_items: int, hidden_size: int, modality_widths: Mapping[str, int]
) -> dict[str, Any]:
    """The arguments of `ItemVectors` that follow from the settings of a model.

    Args:
        config: the settings.
        num_items: N.
        hidden_size: D.
        modality_widths: modality -> feature width d.

    Returns:
        Keyword arguments.
    """
    return {
        "num_items": num_items,
        "hidden_size": hidden_size,
        "modality_widths": modality_widths,
        "dropout": config.dropout,
        "layer_norm_eps": config.layer_norm_eps,
        "modality_dropout": config.modality_dropout,
        "id_dropout": config.id_dropout,
        "initial_length": config.initial_length,
    }
