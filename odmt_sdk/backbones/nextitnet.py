"""NextItNet: dilated causal convolutions in residual blocks.

Letters: B users, L positions, D hidden size.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from odmt_sdk.backbones.alignment import restore, right_pad
from odmt_sdk.backbones.arguments import remembers_arguments


class DilatedResidualBlock(nn.Module):
    """Two causal convolutions, the second twice as dilated, and the identity beside them.

    Args:
        hidden_size: D.
        kernel_size: positions that a convolution reads.
        dilation: distance between the positions that the first convolution reads.
        layer_norm_eps: epsilon of the layer norms.

    Source: section 3.3.1 and figure 3 (b) of the paper.
    """

    def __init__(
        self, hidden_size: int, *, kernel_size: int, dilation: int, layer_norm_eps: float
    ) -> None:
        super().__init__()
        self.near = nn.Conv1d(hidden_size, hidden_size, kernel_size, dilation=dilation)
        self.near_norm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.far = nn.Conv1d(hidden_size, hidden_size, kernel_size, dilation=2 * dilation)
        self.far_norm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Add to every position what the block reads at and before it.

        Args:
            hidden: (B, L, D).

        Returns:
            (B, L, D).
        """
        update = F.relu(self.near_norm(convolve_causally(self.near, hidden)))
        update = F.relu(self.far_norm(convolve_causally(self.far, update)))
        return hidden + update


def convolve_causally(convolution: nn.Conv1d, hidden: torch.Tensor) -> torch.Tensor:
    """Convolve over the positions at and before each position; before the first stand zeros.

    Args:
        convolution: without padding of its own.
        hidden: (B, L, D).

    Returns:
        (B, L, D).

    Source: section 3.3.2 of the paper, "dropout-mask".
    """
    reach = (convolution.kernel_size[0] - 1) * convolution.dilation[0]
    channels = F.pad(hidden.transpose(1, 2), (reach, 0))  # (B, L, D) -> (B, D, reach + L)
    return convolution(channels).transpose(1, 2)  # type: ignore[no-any-return]


@remembers_arguments
class NextItNet(nn.Module):
    """Convolutional recommender.

    A position reads 3 * (kernel_size - 1) * sum(dilations) positions before itself, 30 by default:
    longer sequences want more dilations, such as (1, 4, 1, 4) or (1, 2, 4, 8).

    Args:
        hidden_size: D.
        kernel_size: positions that a convolution reads.
        dilations: one residual block for each, with convolutions of dilation d and 2 d.
        dropout: probability on the input; the paper has none, and small data overfit without it.
        layer_norm_eps: epsilon of the layer norms.

    Raises:
        ValueError: if `kernel_size` or a dilation is below 1.

    Source: Yuan et al. 2019, https://arxiv.org/abs/1808.05163, with the settings and the
    initialisation of the authors' program.

    Examples:
        >>> NextItNet(hidden_size=8)(torch.randn(2, 5, 8), torch.ones(2, 5)).shape
        torch.Size([2, 5, 8])
    """

    def __init__(
        self,
        hidden_size: int = 64,
        *,
        kernel_size: int = 3,
        dilations: Sequence[int] = (1, 4),
        dropout: float = 0.2,
        layer_norm_eps: float = 1e-8,
    ) -> None:
        super().__init__()
        if kernel_size < 1 or any(dilation < 1 for dilation in dilations):
            raise ValueError(
                f"kernel_size={kernel_size} and every one of dilations={tuple(dilations)} must be "
                "at least 1; a dilation of 1 reads neighbouring positions"
            )
        self.hidden_size = hidden_size
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(
            *(
                DilatedResidualBlock(
                    hidden_size,
                    kernel_size=kernel_size,
                    dilation=dilation,
                    layer_norm_eps=layer_norm_eps,
                )
                for dilation in dilations
            )
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights: truncated normal of deviation 0.02, zeros for biases."""
        for module in self.modules():
            if isinstance(module, nn.Conv1d):
                nn.init.trunc_normal_(module.weight, std=0.02, a=-0.04, b=0.04)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.LayerNorm):
                module.reset_parameters()

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
        # padding goes to the end, so that no convolution reads what an earlier one made of it
        hidden, slots = right_pad(self.dropout(hidden), attention_mask)
        return restore(self.blocks(hidden), slots).masked_fill(padding, 0)
