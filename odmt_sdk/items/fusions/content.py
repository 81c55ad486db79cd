"""One modality of an item as one vector.

Letters: U items, T tokens of one item, d feature width, D hidden size.
"""

import torch
from torch import nn

from odmt_sdk.config import check_heads
from odmt_sdk.features.modality import ModalityTokens
from odmt_sdk.transformer import PostNormBlock, init_weights, post_norm_blocks


class ContentHead(nn.Module):
    """Maps a modality to a vector whose length does not depend on the scale of its features.

    Without blocks, the first token passes through a linear layer, a layer norm and a head. With
    blocks, all tokens pass through a transformer between the norm and the head.
    A learned vector replaces a modality that an item lacks.

    Args:
        width: d.
        hidden_size: D.
        dropout: probability after the norm, and in the blocks.
        layer_norm_eps: epsilon of the layer norms.
        num_layers: post-norm transformer blocks.
        num_heads: attention heads of a block, a divisor of D.
        initial_length: approximate length of the vectors before training.

    Raises:
        ValueError: if there are blocks and `num_heads` does not divide `hidden_size`.

    Examples:
        >>> head = ContentHead(5, 8)
        >>> head(ModalityTokens(torch.randn(2, 3, 5), lengths=torch.tensor([3, 0]))).shape
        torch.Size([2, 8])
    """

    def __init__(
        self,
        width: int,
        hidden_size: int,
        *,
        dropout: float = 0.1,
        layer_norm_eps: float = 1e-6,
        num_layers: int = 0,
        num_heads: int = 2,
        initial_length: float = 0.16,
    ) -> None:
        super().__init__()
        if num_layers:
            check_heads(hidden_size, num_heads)
        self.project = nn.Linear(width, hidden_size)
        self.norm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            PostNormBlock(hidden_size, num_heads, dropout=dropout, layer_norm_eps=layer_norm_eps)
            for _ in range(num_layers)
        )
        self.apply(init_weights)
        self.head = content_head(hidden_size, initial_length)
        self.missing = nn.Parameter(torch.randn(hidden_size) * initial_length * hidden_size**-0.5)

    def forward(self, content: ModalityTokens) -> torch.Tensor:
        """Encode.

        Args:
            content: tokens (U, T, d) and lengths (U,); tokens past an item's length are never read.

        Returns:
            (U, D).
        """
        tokens, lengths = content
        if not self.blocks:
            tokens = tokens[:, :1]
        exists = torch.arange(tokens.shape[1], device=lengths.device) < lengths[:, None]  # (U, T)
        tokens = tokens.masked_fill(~exists[..., None], 0).to(self.project.weight.dtype)
        hidden = self.dropout(self.norm(self.project(tokens)))  # (U, T, d) -> (U, T, D)
        if self.blocks:
            own = torch.eye(tokens.shape[1], dtype=torch.bool, device=tokens.device)
            mask = exists[:, None, :] | own  # (U, T, T); a missing token attends to itself
            *blocks, last = post_norm_blocks(self.blocks)
            for block in blocks:
                hidden = block(hidden, mask.unsqueeze(1))
            hidden = last.read(hidden[:, :1], hidden, mask[:, :1])
        vectors: torch.Tensor = self.head(hidden[:, 0])  # (U, 1 or T, D) -> (U, D)
        return torch.where(exists[:, :1], vectors, self.missing.to(vectors))


def content_head(hidden_size: int, initial_length: float) -> nn.Sequential:
    """A head of two layers on the output of a layer norm.

    Args:
        hidden_size: D.
        initial_length: approximate length of its vectors before training.

    Returns:
        A module (U, D) -> (U, D).
    """
    last = nn.Linear(hidden_size, hidden_size)
    head = nn.Sequential(nn.Linear(hidden_size, hidden_size), nn.LeakyReLU(), last)
    head.apply(init_weights)
    with torch.no_grad():
        last.weight.mul_(initial_length * (2 / hidden_size) ** 0.5)
    return head
