"""The ID-aware multi-modal item encoder.

Letters: U items, S sources, T tokens of one item with the ID token last, d feature width, D hidden
size.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from odmt_sdk.config import IdVisibility, check_heads
from odmt_sdk.features.modality import ModalityTokens
from odmt_sdk.items.embedder import ItemEmbedder
from odmt_sdk.items.growth import append_rows
from odmt_sdk.items.id_mask import id_aware_mask
from odmt_sdk.items.random_hiding import hide
from odmt_sdk.modes import evaluating
from odmt_sdk.transformer import PostNormBlock, init_weights, post_norm_blocks


class ItemEncoder(ItemEmbedder):
    """Turns an item's ID and its content tokens into one embedding per source.

    Every source is projected to D. The tokens `[content tokens | ID token]` pass through post-norm
    transformer blocks under the ID-aware mask. The first token of each modality and the ID token
    then pass through one head per source. A learned token replaces a modality that an item lacks.
    That token attends to the item's other tokens; they do not attend to it.

    In eval mode the IDs of items marked by `set_unseen` count as unknown: one learned vector
    replaces them. `id_dropout` trains this vector. Without `id_dropout` it stays zero, the mean of
    the initial IDs, so that the ID of an unseen item carries no information.

    Args:
        num_items: N; the ID table has N + 1 rows, row 0 is padding.
        hidden_size: D.
        modality_widths: modality -> feature width d, in the order of the tokens; may be empty.
        num_layers: transformer blocks.
        num_heads: attention heads, a divisor of D.
        id_visibility: "one_way" hides the ID token from content tokens, "mutual" does not.
        dropout: probability on the input, on attention weights and in the blocks.
        layer_norm_eps: epsilon of the layer norms.
        modality_dropout: probability that a modality of an item is hidden in a training batch.
        id_dropout: probability that the ID of an item with content is hidden in a training batch.
            Content and ID of an item are never all hidden.
        token_norm: whether a layer norm follows the projection of content tokens, so that the scale
            of the features does not matter. Not in the paper.
        shortcut: whether a linear layer also adds the first token of each source, as it is before
            dropout and blocks, to the output of the head. The blocks make the sources similar; the
            shortcut keeps them distinct. Not in the paper.
        initial_length: approximate length of the embeddings before training.

    Raises:
        ValueError: if `num_heads` does not divide `hidden_size`.

    Source: section 3.2 of the paper, https://arxiv.org/abs/2308.04067.

    Examples:
        >>> encoder = ItemEncoder(num_items=9, hidden_size=8, modality_widths={"text": 5})
        >>> tokens = ModalityTokens(torch.randn(2, 3, 5), lengths=torch.tensor([3, 1]))
        >>> encoder(torch.tensor([4, 7]), {"text": tokens})["text"].shape
        torch.Size([2, 8])
    """

    unseen: torch.Tensor

    def __init__(
        self,
        *,
        num_items: int,
        hidden_size: int,
        modality_widths: Mapping[str, int],
        num_layers: int = 2,
        num_heads: int = 2,
        id_visibility: IdVisibility = "one_way",
        dropout: float = 0.1,
        layer_norm_eps: float = 1e-6,
        modality_dropout: float = 0.0,
        id_dropout: float = 0.0,
        token_norm: bool = True,
        shortcut: bool = True,
        initial_length: float = 0.16,
    ) -> None:
        super().__init__()
        check_heads(hidden_size, num_heads)
        self.modalities = tuple(modality_widths)
        self.sources = ("id", *self.modalities)
        self.id_visibility = id_visibility
        self.modality_dropout, self.id_dropout = modality_dropout, id_dropout
        self.id_embedding = nn.Embedding(num_items + 1, hidden_size, padding_idx=0)
        self.projections = nn.ModuleDict(
            {
                source: nn.Linear(width, hidden_size)
                for source, width in {"id": hidden_size, **modality_widths}.items()
            }
        )
        self.missing_tokens = nn.ParameterDict(
            {name: nn.Parameter(torch.empty(hidden_size)) for name in self.modalities}
        )
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            PostNormBlock(hidden_size, num_heads, dropout=dropout, layer_norm_eps=layer_norm_eps)
            for _ in range(num_layers)
        )
        heads = {
            source: nn.Sequential(
                nn.Linear(hidden_size, hidden_size),
                nn.LeakyReLU(),
                nn.Linear(hidden_size, hidden_size),
            )
            for source in self.sources
        }
        self.heads = nn.ModuleDict(heads)
        self.token_norms = nn.ModuleDict(
            {
                name: nn.LayerNorm(hidden_size, eps=layer_norm_eps)
                for name in (self.modalities if token_norm else ())
            }
        )
        shortcuts = {
            source: nn.Linear(hidden_size, hidden_size, bias=False)
            for source in (self.sources if shortcut else ())
        }
        self.shortcuts = nn.ModuleDict(shortcuts)
        self.apply(init_weights)
        # of the same length, whatever the size of the catalogue
        nn.init.normal_(self.id_embedding.weight, std=initial_length * hidden_size**-0.5)
        content_scale = 1.0 if token_norm else hidden_size**-0.5  # of one number of a token
        for token in self.missing_tokens.values():
            nn.init.normal_(token, std=content_scale)
        for name in self.modalities if shortcut else ():
            scale = content_scale / initial_length
            nn.init.normal_(shortcuts[name].weight, std=1 / (hidden_size * scale))
        if shortcut:  # IDs pass through unchanged but for a rotation
            projection: Any = self.projections["id"]
            for linear in (projection, shortcuts["id"]):
                nn.init.orthogonal_(linear.weight)
        with torch.no_grad():
            self.id_embedding.weight[0] = 0
            # Short item embeddings keep the first scores small. Large random scores make training
            # plateau at the popularity baseline.
            for head in heads.values():
                last: Any = head[-1]
                last.weight.mul_(initial_length * (2 / hidden_size) ** 0.5)

        # the vector of unknown IDs, used instead of a row of the table
        self.missing_tokens["id"] = nn.Parameter(torch.zeros(hidden_size))
        self.register_buffer("unseen", torch.zeros(num_items + 1, dtype=torch.bool))

    def set_unseen(self, unseen: torch.Tensor) -> None:
        """Mark items without training interactions; in eval mode their IDs count as unknown.

        Args:
            unseen: (N + 1,) bool.
        """
        self.unseen.copy_(unseen)

    def start_ids(self) -> None:
        """Set every ID to the unknown-ID vector, if training has changed that vector."""
        unknown = self.missing_tokens["id"].detach()
        if bool(unknown.any()):
            with torch.no_grad():
                self.id_embedding.weight[1:] = unknown

    def add_items(self, count: int) -> None:
        """Add items and mark them as unseen; their IDs start at the unknown-ID vector.

        The table becomes a new parameter, which existing optimizers do not update.

        Args:
            count: number of new items.
        """
        append_rows(self.id_embedding, self.missing_tokens["id"], count)
        self.unseen = torch.cat([self.unseen, self.unseen.new_ones(count)])

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
        hidden, mask, first, own = self._before_last_block(item_ids, features or {})
        # only the first token of each modality and the ID token leave the last block
        hidden = self._last_block.read(hidden[:, first], hidden, mask[:, first])  # (U, S, D)
        embeddings = {}
        for i, source in enumerate((*self.modalities, "id")):
            embeddings[source] = self.heads[source](hidden[:, i])
            if source in self.shortcuts:
                embeddings[source] = embeddings[source] + self.shortcuts[source](own[:, i])
        return embeddings

    def attention(
        self, item_ids: torch.Tensor, features: Mapping[str, ModalityTokens] | None = None
    ) -> dict[str, dict[str, torch.Tensor]]:
        """Attention weights of each source in the last block, computed in eval mode.

        Args:
            item_ids: (U,) rows in 0..N.
            features: as for `forward`.

        Returns:
            Reading source -> source of the tokens -> attention weights (U, H, T_m) of the H heads;
            one token for "id". They add up to 1 over all tokens. An absent modality counts as the
            learned token that replaces it; no other token attends to that token.

        Raises:
            ValueError: if modalities are missing or unknown.
        """
        with evaluating(self):
            hidden, mask, first, _ = self._before_last_block(item_ids, features or {})
        weights = self._last_block.attention.weights(hidden[:, first], hidden, mask[:, first])
        sources = (*self.modalities, "id")
        ends = [*first[1:], hidden.shape[1]]
        return {
            reader: {
                source: weights[:, :, i, start:end]
                for source, start, end in zip(sources, first, ends, strict=True)
            }
            for i, reader in enumerate(sources)
        }

    @property
    def _last_block(self) -> PostNormBlock:
        return post_norm_blocks(self.blocks)[-1]

    def _before_last_block(
        self, item_ids: torch.Tensor, features: Mapping[str, ModalityTokens]
    ) -> tuple[torch.Tensor, torch.Tensor, list[int], torch.Tensor]:
        """Tokens (U, T, D) that the last block reads, and its mask (U, T, T).

        Also the position of each source's first token, and that token before the blocks (U, S, D).
        """
        if set(features) != set(self.modalities):
            raise ValueError(
                f"got features of {sorted(features)}, this item encoder reads "
                f"{sorted(self.modalities)}"
            )
        features, unknown = self._hide(item_ids, features)
        hidden, valid, first = self._tokens(item_ids, unknown, features)
        own = hidden[:, first]  # without dropout, which would slow down the learning of IDs
        hidden = self.dropout(hidden)
        mask = id_aware_mask(valid, self.id_visibility)
        for block in post_norm_blocks(self.blocks)[:-1]:
            hidden = block(hidden, mask.unsqueeze(1))
        return hidden, mask, first, own

    def _hide(
        self, item_ids: torch.Tensor, features: Mapping[str, ModalityTokens]
    ) -> tuple[Mapping[str, ModalityTokens], torch.Tensor]:
        """The features without hidden modalities, and a mask (U,) of the unknown IDs."""
        if not self.training:
            return features, self.unseen[item_ids]
        if not self.modalities or self.modality_dropout == self.id_dropout == 0:
            return features, torch.zeros_like(item_ids, dtype=torch.bool)
        features = {name: features[name] for name in self.modalities}
        return hide(features, modality_dropout=self.modality_dropout, id_dropout=self.id_dropout)

    def _tokens(
        self,
        item_ids: torch.Tensor,
        unknown: torch.Tensor,
        features: Mapping[str, ModalityTokens],
    ) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
        """Tokens (U, T, D), a mask (U, T) of those that exist, and the start of each source."""
        parts, valid, first, position = [], [], [], 0
        for name in self.modalities:
            tokens, lengths = features[name]
            exists = torch.arange(tokens.shape[1], device=lengths.device) < lengths[:, None]
            # asking whether all exist is free on the CPU; elsewhere it synchronizes the device or
            # breaks the compiled graph
            asked = tokens.device.type == "cpu" and not torch.compiler.is_compiling()
            if not (asked and bool(exists.all())):
                tokens = tokens.masked_fill(~exists[..., None], 0)
            projected = self.projections[name](tokens.to(self.id_embedding.weight.dtype))
            if name in self.token_norms:
                projected = self.token_norms[name](projected)
            absent = (lengths == 0)[:, None]
            replaced = torch.where(absent, self.missing_tokens[name].to(projected), projected[:, 0])
            parts.append(torch.cat([replaced[:, None], projected[:, 1:]], dim=1))  # (U, T_m, D)
            valid.append(exists)
            first.append(position)
            position += tokens.shape[1]
        ids = self.id_embedding(item_ids)
        ids = torch.where(unknown[:, None], self.missing_tokens["id"].to(ids), ids)
        parts.append(self.projections["id"](ids)[:, None])  # (U, 1, D)
        valid.append(torch.ones_like(item_ids, dtype=torch.bool)[:, None])
        first.append(position)
        return torch.cat(parts, dim=1), torch.cat(valid, dim=1), first
