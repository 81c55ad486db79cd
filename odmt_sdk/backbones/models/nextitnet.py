"""NextItNet: a convolutional backbone of dilated causal convolutions in residual blocks.

Letters: B users, L positions, D hidden size.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from odmt_sdk.backbones.bridges.right_padding import run_right_padded
from odmt_sdk.backbones.models.remembered_arguments import remembers_arguments


class DilatedResidualBlock(nn.Module):
    """Residual block of two causal convolutions; the second has twice the dilation of the first.

    Args:
        hidden_size: D.
        kernel_size: number of positions per convolution kernel.
        dilation: dilation of the first convolution.
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
        """Add the convolutions of each position and earlier ones to that position.

        Args:
            hidden: (B, L, D).

        Returns:
            (B, L, D).
        """
        update = F.relu(self.near_norm(convolve_causally(self.near, hidden)))
        update = F.relu(self.far_norm(convolve_causally(self.far, update)))
        return hidden + update


def convolve_causally(convolution: nn.Conv1d, hidden: torch.Tensor) -> torch.Tensor:
    """Apply a causal convolution: an output depends on its own and earlier positions only.

    Args:
        convolution: a convolution without padding; zeros are added before the first position.
        hidden: (B, L, D).

    Returns:
        (B, L, D).

    Source: section 3.3.2 of the paper, "dropout-mask".
    """
    reach = (convolution.kernel_size[0] - 1) * convolution.dilation[0]
    channels = F.pad(hidden.transpose(1, 2), (reach, 0))  # (B, L, D) -> (B, D, reach + L)
    convolved: torch.Tensor = convolution(channels)
    return convolved.transpose(1, 2)


@remembers_arguments
class NextItNet(nn.Module):
    """Convolutional recommender.

    The receptive field covers 3 * (kernel_size - 1) * sum(dilations) earlier positions, 30 by
    default. For longer sequences use more dilations, such as (1, 4, 1, 4) or (1, 2, 4, 8).

    Args:
        hidden_size: D.
        kernel_size: number of positions per convolution kernel.
        dilations: one residual block per entry d, with convolutions of dilation d and 2 d.
        dropout: probability on the input. The paper uses none, but small datasets then overfit.
        layer_norm_eps: epsilon of the layer norms.

    Raises:
        ValueError: if `kernel_size` or a dilation is less than 1.

    Source: Yuan et al. 2019, https://arxiv.org/abs/1808.05163, with the settings and the
    initialization of the authors' program.

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
                f"kernel_size={kernel_size} and each of dilations={tuple(dilations)} must be at "
                "least 1; a dilation of 1 reads neighbouring positions"
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
        """Initialize the weights: truncated normal with std 0.02, zeros for biases."""
        for module in self.modules():
            if isinstance(module, nn.Conv1d):
                nn.init.trunc_normal_(module.weight, std=0.02, a=-0.04, b=0.04)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.LayerNorm):
                module.reset_parameters()

    def forward(self, inputs_embeds: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Compute the hidden states of a batch of sequences.

        Args:
            inputs_embeds: (B, L, D).
            attention_mask: (B, L), 1 = real, 0 = padding.

        Returns:
            (B, L, D), zeros at padding.
        """
        # padding goes to the end, so that no convolution mixes it into the states of real items
        return run_right_padded(self.blocks, self.dropout(inputs_embeds), attention_mask)
