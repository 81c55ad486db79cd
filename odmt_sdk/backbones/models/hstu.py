"""HSTU: a backbone with pointwise attention (no softmax) and gating.

Letters: B users, L positions, D hidden size, H heads, K = D / H.
"""

import torch
from torch import nn
from torch.nn import functional as F

from odmt_sdk.backbones.models.remembered_arguments import remembers_arguments
from odmt_sdk.backbones.models.sequence_length import check_length
from odmt_sdk.config import check_heads


class TransductionUnit(nn.Module):
    """One HSTU layer: pointwise projection, pointwise attention, pointwise transformation.

    Args:
        hidden_size: D.
        num_heads: H, a divisor of D.
        max_seq_length: number of distances with a position bias of their own.
        dropout: probability before the last linear layer.
        layer_norm_eps: epsilon of the layer norms, which have no weights.

    Source: section 3 of the paper, equations (1) to (3).
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        *,
        max_seq_length: int,
        dropout: float,
        layer_norm_eps: float,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(hidden_size, eps=layer_norm_eps, elementwise_affine=False)
        self.projection = nn.Linear(hidden_size, 4 * hidden_size, bias=False)
        self.position_bias = nn.Parameter(torch.empty(max_seq_length))  # by distance, 0 = itself
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden_size, hidden_size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize the weights: normal with std 0.02, Xavier-uniform for the last layer."""
        nn.init.normal_(self.projection.weight, std=0.02)
        nn.init.normal_(self.position_bias, std=0.02)
        nn.init.xavier_uniform_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(
        self, hidden: torch.Tensor, visible: torch.Tensor, distances: torch.Tensor
    ) -> torch.Tensor:
        """Update every position.

        Args:
            hidden: (B, L, D).
            visible: boolean (B, L, L), True where a position may attend to another.
            distances: (L, L) int64, the number of positions by which the other one is earlier.

        Returns:
            (B, L, D).
        """

        def heads(x: torch.Tensor) -> torch.Tensor:
            x = x.unflatten(-1, (self.num_heads, -1))  # (B, L, D) -> (B, L, H, K)
            return x.transpose(1, 2)  # (B, L, H, K) -> (B, H, L, K)

        # Equation (1): U, V, Q, K = Split(SiLU(f1(X)))
        gate, value, query, key = F.silu(self.projection(self.norm(hidden))).chunk(4, dim=-1)
        # Equation (2): A = SiLU(Q K^T + rab), divided by the number of positions as in the program
        scores = heads(query) @ heads(key).transpose(2, 3) + self.position_bias[distances]
        attention = F.silu(scores) / len(self.position_bias)  # (B, H, L, L)
        attention = attention.masked_fill(~visible.unsqueeze(1), 0)
        attended = (attention.to(value.dtype) @ heads(value)).transpose(1, 2).flatten(2)
        # Equation (3): Y = f2(Norm(A V) * U), plus the residual connection
        update: torch.Tensor = self.output(self.dropout(self.norm(attended) * gate))
        return hidden + update


@remembers_arguments
class HSTU(nn.Module):
    """Hierarchical sequential transduction units (HSTU).

    The relative attention bias depends on positions only. The paper's temporal bias is left out,
    because the backbone protocol has no timestamps. There is no position table, because the bias
    already encodes positions.

    Args:
        hidden_size: D.
        num_layers: number of HSTU layers.
        num_heads: H, a divisor of D.
        max_seq_length: longest sequence that the model can read.
        dropout: probability on the input and before the last linear layer of every unit.
        layer_norm_eps: epsilon of the layer norms.

    Raises:
        ValueError: if `num_heads` does not divide `hidden_size`.

    Source: Zhai et al. 2024, https://arxiv.org/abs/2402.17152, section 3, with the settings and
    the initialization of the authors' program.

    Examples:
        >>> HSTU(hidden_size=8)(torch.randn(2, 5, 8), torch.ones(2, 5)).shape
        torch.Size([2, 5, 8])
    """

    def __init__(
        self,
        hidden_size: int = 64,
        *,
        num_layers: int = 2,
        num_heads: int = 1,
        max_seq_length: int = 50,
        dropout: float = 0.2,
        layer_norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        check_heads(hidden_size, num_heads)
        self.hidden_size = hidden_size
        self.max_seq_length = max_seq_length
        self.dropout = nn.Dropout(dropout)
        self.units = nn.ModuleList(
            TransductionUnit(
                hidden_size,
                num_heads,
                max_seq_length=max_seq_length,
                dropout=dropout,
                layer_norm_eps=layer_norm_eps,
            )
            for _ in range(num_layers)
        )

    def reset_parameters(self) -> None:
        """Initialize the weights of every unit."""
        for unit in self.units:
            unit.reset_parameters()  # type: ignore[operator]  # a `TransductionUnit`

    def forward(self, inputs_embeds: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Compute the hidden states of a batch of sequences.

        Args:
            inputs_embeds: (B, L, D), L <= max_seq_length.
            attention_mask: (B, L), 1 = real, 0 = padding.

        Returns:
            (B, L, D), zeros at padding.

        Raises:
            ValueError: if L exceeds `max_seq_length`.
        """
        length = inputs_embeds.shape[1]
        check_length(length, self.max_seq_length, "HSTU")
        real = attention_mask.bool()
        positions = torch.arange(length, device=real.device)
        distances = positions.unsqueeze(1) - positions  # (L, L)
        visible = (distances >= 0) & real.unsqueeze(1)  # (B, L, L)
        padding = ~real.unsqueeze(-1)  # (B, L, 1)
        hidden: torch.Tensor = self.dropout(inputs_embeds.masked_fill(padding, 0))
        for unit in self.units:
            hidden = unit(hidden, visible, distances.clamp(min=0))
        return hidden.masked_fill(padding, 0)
