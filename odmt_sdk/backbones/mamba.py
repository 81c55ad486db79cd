"""Mamba-2: a linear recurrence whose decay depends on the item, from the transformers library.

Letters: B users, L positions, D hidden size.
"""

import torch
from torch import nn

from odmt_sdk.backbones.alignment import restore, right_pad
from odmt_sdk.backbones.arguments import remembers_arguments
from odmt_sdk.config import check_heads

CHUNK_SIZE = 16
"""Positions that are computed at once; the library fills sequences up to a multiple of it."""


@remembers_arguments
class Mamba2(nn.Module):
    """Selective state space model.

    Its blocks are those of `transformers.Mamba2Model`, which compute the recurrence by matrix
    products over chunks of positions; the first Mamba walks from position to position there, which
    takes several times as long without its own kernels.

    Args:
        hidden_size: D.
        num_layers: Mamba-2 blocks on top of one another.
        num_heads: heads of a block, each with a decay of its own; a divisor of D.
        state_size: values that a block remembers for each of its channels.
        conv_kernel: positions that the convolution before the recurrence reads.
        expand: channels of a block, as a multiple of D.
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
        """Draw new weights, as the library does."""
        fresh = type(self.model)(self.model.config)
        fresh.set_input_embeddings(None)
        self.model.load_state_dict(fresh.state_dict())

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
        hidden = self.model(inputs_embeds=hidden).last_hidden_state
        hidden = hidden.to(inputs_embeds.dtype)  # the library adds in float32
        return restore(hidden, slots).masked_fill(padding, 0)
