"""GRU4Rec: a recurrent backbone of GRU layers.

Letters: B users, L positions, D hidden size, U units of the GRU.
"""

import torch
from torch import nn

from odmt_sdk.backbones.bridges.right_padding import run_right_padded
from odmt_sdk.backbones.models.remembered_arguments import remembers_arguments


@remembers_arguments
class GRU4Rec(nn.Module):
    """Recurrent recommender: GRU layers followed by one feed-forward layer.

    The reset gate is applied after the recurrent matrix product, as in cuDNN, not before it as in
    the paper. The class contains no loss, so session-parallel batches and TOP1 are not part of it.

    Args:
        hidden_size: D.
        num_layers: number of GRU layers.
        num_units: width U of the GRU layers; None = D.
        dropout: probability on the input and between GRU layers.

    Source: Hidasi et al. 2016, https://arxiv.org/abs/1511.06939, section 3, figure 1.

    Examples:
        >>> GRU4Rec(hidden_size=8)(torch.randn(2, 5, 8), torch.ones(2, 5)).shape
        torch.Size([2, 5, 8])
    """

    def __init__(
        self,
        hidden_size: int = 64,
        *,
        num_layers: int = 1,
        num_units: int | None = None,
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        num_units = num_units or hidden_size
        self.dropout = nn.Dropout(dropout)
        self.gru = nn.GRU(
            hidden_size,
            num_units,
            num_layers,
            dropout=dropout if num_layers > 1 else 0.0,  # torch warns if there is only one layer
            batch_first=True,
        )
        self.feed_forward = nn.Linear(num_units, hidden_size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize the weights: Xavier-uniform for matrices (section 4.2), zeros for biases."""
        for parameter in self.parameters():
            if parameter.dim() == 1:
                nn.init.zeros_(parameter)
        nn.init.xavier_uniform_(self.feed_forward.weight)
        for name, parameter in self.gru.named_parameters():
            if name.startswith("weight"):
                for gate in parameter.detach().chunk(3):  # (3 U, D) -> three of (U, D)
                    nn.init.xavier_uniform_(gate)

    def forward(self, inputs_embeds: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Compute the hidden states of a batch of sequences.

        Args:
            inputs_embeds: (B, L, D).
            attention_mask: (B, L), 1 = real, 0 = padding.

        Returns:
            (B, L, D), zeros at padding.
        """
        # padding goes to the end, so that the first real item starts from the zero state
        return run_right_padded(self._run, self.dropout(inputs_embeds), attention_mask)

    def _run(self, hidden: torch.Tensor) -> torch.Tensor:
        states, _ = self.gru(hidden)  # equations (2) to (5): (B, L, D) -> (B, L, U)
        hidden = self.feed_forward(states)  # (B, L, U) -> (B, L, D)
        return hidden
