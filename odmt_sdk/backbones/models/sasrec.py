"""SASRec as in the ODMT paper: a causal post-norm transformer over item embeddings.

Letters: B users, L positions, D hidden size.
"""

import torch
from torch import nn

from odmt_sdk.backbones.models.one_state import reads_one_state
from odmt_sdk.backbones.models.remembered_arguments import remembers_arguments
from odmt_sdk.backbones.models.sequence_length import check_length
from odmt_sdk.config import check_heads
from odmt_sdk.transformer import PostNormBlock, init_weights, post_norm_blocks


@remembers_arguments
class SASRec(nn.Module):
    """Self-attentive sequential recommender.

    Positions are counted from the end of the sequence, so left padding does not change the results.

    Args:
        hidden_size: D.
        num_layers: number of transformer blocks.
        num_heads: number of attention heads, a divisor of D.
        max_seq_length: longest sequence that the model can read.
        dropout: probability on the input, on attention weights and in the blocks.
        layer_norm_eps: epsilon of the layer norms.

    Raises:
        ValueError: if `num_heads` does not divide `hidden_size`.

    Source: Kang and McAuley 2018, https://arxiv.org/abs/1808.09781, with the post-norm blocks and
    the initialization of the ODMT authors' user encoder.

    Examples:
        >>> SASRec(hidden_size=8)(torch.randn(2, 5, 8), torch.ones(2, 5)).shape
        torch.Size([2, 5, 8])
    """

    def __init__(
        self,
        hidden_size: int = 64,
        *,
        num_layers: int = 2,
        num_heads: int = 2,
        max_seq_length: int = 50,
        dropout: float = 0.1,
        layer_norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        check_heads(hidden_size, num_heads)
        self.hidden_size = hidden_size
        self.max_seq_length = max_seq_length
        self.position_embedding = nn.Embedding(max_seq_length, hidden_size)
        self.layer_norm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            PostNormBlock(hidden_size, num_heads, dropout=dropout, layer_norm_eps=layer_norm_eps)
            for _ in range(num_layers)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize the weights: Xavier-normal, zeros for biases."""
        self.apply(init_weights)

    @reads_one_state
    def forward(
        self,
        inputs_embeds: torch.Tensor,
        attention_mask: torch.Tensor,
        *,
        only_at: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Compute the hidden states of a batch of sequences.

        Args:
            inputs_embeds: (B, L, D), L <= max_seq_length.
            attention_mask: (B, L), 1 = real, 0 = padding.
            only_at: (B,) one position per sequence; only its state is computed, which saves most
                of the last block. None = all positions.

        Returns:
            (B, L, D), or (B, D) if `only_at` is given.

        Raises:
            ValueError: if L exceeds `max_seq_length`.
        """
        length = inputs_embeds.shape[1]
        check_length(length, self.max_seq_length, "SASRec")
        positions = self.position_embedding.weight[self.max_seq_length - length :]  # (L, D)
        hidden: torch.Tensor = self.dropout(self.layer_norm(inputs_embeds + positions))
        # every position also attends to itself, so that padding has something to attend to
        causal = torch.ones(length, length, dtype=torch.bool, device=hidden.device).tril()
        itself = torch.eye(length, dtype=torch.bool, device=hidden.device)
        mask = (causal & attention_mask.bool()[:, None, :]) | itself  # (B, L, L)
        whole = self.blocks if only_at is None else self.blocks[:-1]
        for block in whole:
            hidden = block(hidden, mask.unsqueeze(1))
        if only_at is None:
            return hidden
        users = torch.arange(hidden.shape[0], device=hidden.device)
        queries, seen = hidden[users, only_at, None], mask[users, only_at, None]  # (B, 1, D or L)
        last = post_norm_blocks(self.blocks)[-1]
        return last.read(queries, hidden, seen).squeeze(1)
