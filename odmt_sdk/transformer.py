"""Post-norm transformer blocks, shared by the item encoder and the SASRec backbone.

Letters: B rows, T tokens, Q queries, D hidden size, H heads, K = D / H.
"""

import math
from typing import cast

import torch
from torch import nn
from torch.nn import functional as F


class SelfAttention(nn.Module):
    """Multi-head self-attention without biases.

    Args:
        hidden_size: D.
        num_heads: H, a divisor of D.
        dropout: probability on the attention weights.
    """

    def __init__(self, hidden_size: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.query = nn.Linear(hidden_size, hidden_size, bias=False)
        self.key = nn.Linear(hidden_size, hidden_size, bias=False)
        self.value = nn.Linear(hidden_size, hidden_size, bias=False)
        self.output = nn.Linear(hidden_size, hidden_size, bias=False)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Compute attention for every token.

        Args:
            hidden: (B, T, D).
            mask: boolean, broadcastable to (B, H, T, T); True where a query may see a key.

        Returns:
            (B, T, D).
        """

        def heads(x: torch.Tensor) -> torch.Tensor:
            x = x.unflatten(-1, (self.num_heads, -1))  # (B, T, D) -> (B, T, H, K)
            return x.transpose(1, 2)  # (B, T, H, K) -> (B, H, T, K)

        attended = F.scaled_dot_product_attention(
            heads(self.query(hidden)),
            heads(self.key(hidden)),
            heads(self.value(hidden)),
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
        )
        joined: torch.Tensor = self.output(attended.transpose(1, 2).flatten(2))
        return joined

    def read(self, queries: torch.Tensor, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Compute attention for a few queries without projecting all tokens.

        With few queries it is cheaper to fold the key and value projections into the queries:
        `scores = (q W_K) x^T` and `out = (softmax(scores) x) W_V`. This is the computation of
        `forward` in another order.

        Args:
            queries: (B, Q, D).
            hidden: (B, T, D).
            mask: boolean (B or 1, Q, T); True where a query may see a token.

        Returns:
            (B, Q, D).
        """
        value = self.value.weight.unflatten(0, (self.num_heads, -1))  # (D, D) -> (H, K, D)
        folded = self._fold(queries).flatten(1, 2)  # (B, H * Q, D)
        seen = mask.repeat(1, self.num_heads, 1)  # (B, H * Q, T)
        tokens = hidden
        traced = torch.compiler.is_compiling()
        if traced:  # ONNX has attention over four dimensions only
            folded, tokens, seen = folded[:, None], hidden[:, None], seen[:, None]
        attended = F.scaled_dot_product_attention(
            folded,
            tokens,
            tokens,
            attn_mask=seen,
            dropout_p=self.dropout if self.training else 0.0,
            scale=self._scale,
        )
        if traced:
            attended = attended.squeeze(1)
        attended = attended.unflatten(1, (self.num_heads, -1))  # (B, H, Q, D)
        attended = torch.einsum("bhqd,hkd->bqhk", attended, value).flatten(2)  # (B, Q, D)
        joined: torch.Tensor = self.output(attended)
        return joined

    def weights(
        self, queries: torch.Tensor, hidden: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        """The attention weights of `read`, without dropout.

        Args:
            queries: (B, Q, D).
            hidden: (B, T, D).
            mask: boolean (B or 1, Q, T); True where a query may see a token.

        Returns:
            (B, H, Q, T); they sum to 1 over T.
        """
        scores = torch.einsum("bhqd,btd->bhqt", self._fold(queries), hidden) * self._scale
        return scores.masked_fill(~mask[:, None], -torch.inf).softmax(-1)

    def _fold(self, queries: torch.Tensor) -> torch.Tensor:
        """Queries (B, Q, D) with the key projection of each head folded in, (B, H, Q, D)."""
        key = self.key.weight.unflatten(0, (self.num_heads, -1))  # (D, D) -> (H, K, D)
        query = self.query(queries).unflatten(-1, (self.num_heads, -1))  # (B, Q, H, K)
        return torch.einsum("bqhk,hkd->bhqd", query, key)

    @property
    def _scale(self) -> float:
        return 1 / math.sqrt(self.key.out_features // self.num_heads)


class PostNormBlock(nn.Module):
    """Post-norm transformer block: self-attention and a ReLU feed-forward layer of width 4 D.

    Each half is followed by dropout, a residual connection and a layer norm.

    Args:
        hidden_size: D.
        num_heads: H, a divisor of D.
        dropout: probability on the attention weights and on the output of both halves.
        layer_norm_eps: epsilon of both layer norms.

    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762.
    """

    def __init__(
        self, hidden_size: int, num_heads: int, *, dropout: float, layer_norm_eps: float
    ) -> None:
        super().__init__()
        self.attention = SelfAttention(hidden_size, num_heads, dropout)
        self.attention_norm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.feed_forward = nn.Sequential(
            nn.Linear(hidden_size, 4 * hidden_size),
            nn.ReLU(),
            nn.Linear(4 * hidden_size, hidden_size),
        )
        self.feed_forward_norm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Update every token.

        Args:
            hidden: (B, T, D).
            mask: boolean, broadcastable to (B, H, T, T); True where a query may see a key.

        Returns:
            (B, T, D).
        """
        return self._finish(hidden, self.attention(hidden, mask))

    def read(self, queries: torch.Tensor, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Update only a few tokens; equal to `forward` at those tokens.

        Args:
            queries: (B, Q, D), tokens of `hidden`.
            hidden: (B, T, D).
            mask: boolean (B or 1, Q, T); True where a query may see a token.

        Returns:
            (B, Q, D).
        """
        return self._finish(queries, self.attention.read(queries, hidden, mask))

    def _finish(self, hidden: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        hidden = self.attention_norm(hidden + self.dropout(attended))
        hidden = self.feed_forward_norm(hidden + self.dropout(self.feed_forward(hidden)))
        return hidden


def post_norm_blocks(blocks: nn.ModuleList) -> list[PostNormBlock]:
    """The post-norm blocks of a module list, typed as such.

    Args:
        blocks: a list of `PostNormBlock`s; torch types its elements as modules.

    Returns:
        The same blocks.
    """
    return cast("list[PostNormBlock]", list(blocks))  # torch 2.6 cannot trace the type itself


def init_weights(module: nn.Module) -> None:
    """Initialize one module: Xavier-normal weights, zero biases and zero padding rows.

    Args:
        module: a linear layer or an embedding table; others are left unchanged. Meant for
            `nn.Module.apply`.
    """
    if isinstance(module, nn.Linear):
        nn.init.xavier_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.xavier_normal_(module.weight)
        if module.padding_idx is not None:
            with torch.no_grad():
                module.weight[module.padding_idx] = 0
