"""Mamba-2: a state space backbone with input-dependent decay, from the transformers library.

Letters: B users, L positions, D hidden size.
"""

import torch
from torch import nn

from odmt_sdk.backbones.bridges.right_padding import run_right_padded
from odmt_sdk.backbones.models.remembered_arguments import remembers_arguments
from odmt_sdk.config import check_heads

CHUNK_SIZE = 16
"""Positions per matrix product; the library pads sequences to a multiple of it."""


@remembers_arguments
class Mamba2(nn.Module):
    """Selective state space model.

    Its blocks are those of `transformers.Mamba2Model`, which compute the recurrence with matrix
    products over chunks of positions. The library's first Mamba loops over positions unless special
    kernels are installed, and is then several times slower.

    Args:
        hidden_size: D.
        num_layers: number of Mamba-2 blocks.
        num_heads: heads per block, each with its own decay; a divisor of D.
        state_size: size of the recurrent state per channel.
        conv_kernel: kernel size of the convolution before the recurrence, in positions.
        expand: number of channels of a block, as a multiple of D.
        dropout: probability on the input.
        layer_norm_eps: epsilon of the RMS norms.

    Raises:
        ValueError: if `num_heads` does not divide `hidden_size`.

    Source: Dao and Gu 2024, https://arxiv.org/abs/2405.21060, sections 6 and 7; dropout, sizes of
    state and convolution as in Mamba4Rec, https://arxiv.org/abs/2403.03900.

    Examples:
        >>> Mamba2(hidden_size=8)(torch.randn(2, 5, 8), torch.ones(2, 5)).shape
        torch.Size([2, 5, 8])
    """

    def __init__(
        self,
        hidden_size: int = 64,
        *,
        num_layers: int = 2,
        num_heads: int = 2,
        state_size: int = 32,
        conv_kernel: int = 4,
        expand: int = 2,
        dropout: float = 0.2,
        layer_norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        from transformers import Mamba2Config, Mamba2Model

        check_heads(hidden_size, num_heads)
        self.hidden_size = hidden_size
        self.dropout = nn.Dropout(dropout)
        self.model = Mamba2Model(
            Mamba2Config(
                hidden_size=hidden_size,
                num_hidden_layers=num_layers,
                num_heads=num_heads,
                head_dim=expand * hidden_size // num_heads,
                n_groups=1,
                state_size=state_size,
                conv_kernel=conv_kernel,
                expand=expand,
                layer_norm_epsilon=layer_norm_eps,
                chunk_size=CHUNK_SIZE,
                use_cache=False,
                vocab_size=1,
                pad_token_id=None,
                bos_token_id=None,
                eos_token_id=None,
            )
        )
        self.model.set_input_embeddings(None)

    def reset_parameters(self) -> None:
        """Initialize the weights as the library does."""
        fresh = type(self.model)(self.model.config)
        fresh.set_input_embeddings(None)
        self.model.load_state_dict(fresh.state_dict())

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
        states: torch.Tensor = self.model(inputs_embeds=hidden).last_hidden_state
        return states.to(hidden.dtype)  # the library adds residuals in float32
