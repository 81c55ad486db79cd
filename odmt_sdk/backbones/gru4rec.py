"""GRU4Rec: a gated recurrent unit reads one item after another.

Letters: B users, L positions, D hidden size, U units of the GRU.
"""

import torch
from torch import nn

from odmt_sdk.backbones.alignment import restore, right_pad
from odmt_sdk.backbones.arguments import remembers_arguments


@remembers_arguments
class GRU4Rec(nn.Module):
    """Recurrent recommender: GRU layers, then one feed-forward layer.

    The reset gate is applied as in cuDNN, after the recurrent product in place of before it. Which
    loss trains it is the caller's choice, so session-parallel batches and TOP1 are not part of it.

    Args:
        hidden_size: D.
        num_layers: GRU layers on top of one another.
        num_units: U, width of the GRU layers; None = D.
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
            dropout=dropout if num_layers > 1 else 0.0,  # torch warns where nothing is between
            batch_first=True,
        )
        self.feed_forward = nn.Linear(num_units, hidden_size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights: Xavier-uniform for every matrix (section 4.2), zeros for biases."""
        for parameter in self.parameters():
            if parameter.dim() == 1:
                nn.init.zeros_(parameter)
        nn.init.xavier_uniform_(self.feed_forward.weight)
        for name, parameter in self.gru.named_parameters():
            if name.startswith("weight"):
                for gate in parameter.detach().chunk(3):  # (3 U, D) -> three of (U, D)
                    nn.init.xavier_uniform_(gate)

    def forward(self, inputs_embeds: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Read sequences.

        Args:
            inputs_embeds: (B, L, D).
            attention_mask: (B, L), 1 = real, 0 = padding.

        Returns:
            (B, L, D), zeros at padding.
        """
        padding = ~attention_mask.bool().unsqueeze(-1)  # (B, L, 1)
        hidden = inputs_embeds.masked_fill(padding, 0)
        # padding goes to the end, so that the first real item meets the zero state
        hidden, slots = right_pad(self.dropout(hidden), attention_mask)
        states, _ = self.gru(hidden)  # equations (2) to (5): (B, L, D) -> (B, L, U)
        hidden = self.feed_forward(states)  # (B, L, U) -> (B, L, D)
        return restore(hidden, slots).masked_fill(padding, 0)
