"""One vector per source of an item: what the fusions beside the paper's combine.

Letters: U items, S sources, N items of the catalogue, T tokens of one item, d feature width, D
hidden size.
"""

from collections.abc import Mapping

import torch
from torch import nn

from odmt_sdk.items.hiding import hide
from odmt_sdk.items.modality import ModalityTokens
from odmt_sdk.transformer import init_weights


class ItemVectors(nn.Module):
    """Looks an item's ID up and brings the first token of each modality to the hidden size.

    All vectors start at about unit length, whatever the size of the catalogue and the scale of the
    features. Where an item lacks a modality a learned vector takes its place; in eval mode the same
    holds for the IDs of items marked by `set_unseen`, whose vector learns from the IDs that
    `id_dropout` hides.

    A fusion derives from it, sets `sources` and turns `vectors` into embeddings in its `combine`.

    Args:
        num_items: N; the ID table has N + 1 rows, row 0 is padding.
        hidden_size: D.
        modality_widths: modality -> feature width d; may be empty.
        dropout: probability on projected content.
        layer_norm_eps: epsilon of the layer norm of projected content.
        modality_dropout: probability that a modality of an item is hidden in a training batch.
        id_dropout: probability that the ID of an item with content is. Content and ID of an item
            are never all hidden.
    """

    unseen: torch.Tensor
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
    ) -> None:
        super().__init__()
        self.modalities = tuple(modality_widths)
        self.hidden_size = hidden_size
        self.modality_dropout, self.id_dropout = modality_dropout, id_dropout
        self.id_embedding = nn.Embedding(num_items + 1, hidden_size, padding_idx=0)
        self.contents = nn.ModuleDict(
            {
                name: ContentHead(width, hidden_size, dropout, layer_norm_eps)
                for name, width in modality_widths.items()
            }
        )
        self.missing = nn.ParameterDict(
            {name: nn.Parameter(torch.empty(hidden_size)) for name in self.modalities}
        )
        for vectors in (self.id_embedding.weight, *self.missing.values()):
            nn.init.normal_(vectors, std=hidden_size**-0.5)
        with torch.no_grad():
            self.id_embedding.weight[0] = 0
        # in place of a row of the table; the centre from which all IDs start
        self.missing["id"] = nn.Parameter(torch.zeros(hidden_size))
        self.register_buffer("unseen", torch.zeros(num_items + 1, dtype=torch.bool))

    def set_unseen(self, unseen: torch.Tensor) -> None:
        """Say which items training has never seen; in eval mode their IDs count as unknown.

        Args:
            unseen: (N + 1,) bool.
        """
        self.unseen.copy_(unseen)

    def add_items(self, count: int) -> None:
        """Make room for more items, marked as unseen; their IDs start at the unknown one.

        Args:
            count: how many.
        """
        table = self.id_embedding.weight
        new = self.missing["id"].detach().to(table).expand(count, -1)
        self.id_embedding = nn.Embedding.from_pretrained(
            torch.cat([table.detach(), new]), freeze=not table.requires_grad, padding_idx=0
        )
        self.unseen = torch.cat([self.unseen, self.unseen.new_ones(count)])

    def forward(
        self, item_ids: torch.Tensor, features: Mapping[str, ModalityTokens] | None = None
    ) -> dict[str, torch.Tensor]:
        """Encode items.

        Args:
            item_ids: (U,) rows in 0..N.
            features: modality -> tokens (U, T_m, d_m) and lengths (U,); only first tokens are
                read, and nothing of an item whose length is 0.

        Returns:
            Source -> (U, D).

        Raises:
            ValueError: if a modality is missing.
        """
        features = features or {}
        absent = sorted(set(self.modalities) - set(features))
        if absent:
            raise ValueError(
                f"got features of {sorted(features)}, this fusion also reads {absent}: give items "
                "that lack a modality length 0"
            )
        return self.combine(
            self.vectors(item_ids, {name: features[name] for name in self.modalities})
        )

    def combine(self, vectors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Turn one vector per input into one embedding per source; every fusion has its own.

        Args:
            vectors: "id" and each modality -> (U, D).

        Returns:
            Source -> (U, D).
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how it combines vectors")

    def vectors(
        self, item_ids: torch.Tensor, features: Mapping[str, ModalityTokens]
    ) -> dict[str, torch.Tensor]:
        """One vector per input.

        Args:
            item_ids: (U,) rows in 0..N.
            features: modality -> tokens (U, T_m, d_m) and lengths (U,).

        Returns:
            "id" and each modality -> (U, D).
        """
        unknown = torch.zeros_like(item_ids, dtype=torch.bool)
        if not self.training:
            unknown = self.unseen[item_ids]
        elif features and self.modality_dropout + self.id_dropout > 0:
            features, unknown = hide(
                features, modality_dropout=self.modality_dropout, id_dropout=self.id_dropout
            )
        found = {"id": _instead(self.id_embedding(item_ids), unknown, self.missing["id"])}
        for name, (tokens, lengths) in features.items():
            absent = lengths == 0
            first = tokens[:, 0].masked_fill(absent[:, None], 0)  # (U, T, d) -> (U, d)
            content = self.contents[name](first.to(self.id_embedding.weight.dtype))
            found[name] = _instead(content, absent, self.missing[name])
        return found


class ContentHead(nn.Sequential):
    """From a feature vector to a vector of about unit length: a linear layer, a norm and a head.

    Args:
        width: d.
        hidden_size: D.
        dropout: probability after the norm.
        layer_norm_eps: epsilon of the norm.
    """

    def __init__(self, width: int, hidden_size: int, dropout: float, layer_norm_eps: float) -> None:
        last = nn.Linear(hidden_size, hidden_size)
        super().__init__(
            nn.Linear(width, hidden_size),
            nn.LayerNorm(hidden_size, eps=layer_norm_eps),
            nn.Dropout(dropout),
            nn.Linear(hidden_size, hidden_size),
            nn.LeakyReLU(),
            last,
        )
        self.apply(init_weights)
        with torch.no_grad():
            last.weight.mul_((2 / hidden_size) ** 0.5)


def _instead(vectors: torch.Tensor, where: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Vectors (U, D), and another one (D,) where (U,) says so."""
    return torch.where(where[:, None], other.to(vectors), vectors)
