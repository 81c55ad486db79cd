"""Bridge for the recurrent layers of torch: `nn.GRU`, `nn.LSTM` and `nn.RNN`.

Letters: B users, L positions, D hidden size.
"""

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from odmt_sdk.backbones.adapt import register_bridge
from odmt_sdk.backbones.bridge import BackboneBridge
from odmt_sdk.backbones.bridges.right_padding import real_counts, restore, right_pad


class TorchRNNBackbone(BackboneBridge):
    """A recurrent layer that starts at the first real item of every sequence.

    Rows are right-padded, so padding follows the last item and does not affect the states at real
    positions. A bidirectional layer receives packed rows, so that its backward pass starts at the
    last item.

    Args:
        module: the recurrent layer, with any number of layers, batch first or not.

    Examples:
        >>> gru = TorchRNNBackbone(nn.GRU(8, 8, num_layers=2))
        >>> gru(torch.randn(2, 5, 8), torch.ones(2, 5, dtype=torch.long)).shape
        torch.Size([2, 5, 8])
    """

    way_out_of_the_future = "build it with bidirectional=False"

    def __init__(self, module: nn.RNNBase) -> None:
        width = getattr(module, "proj_size", 0) or module.hidden_size
        super().__init__(
            module,
            hidden_size=module.input_size,
            output_size=width * (2 if module.bidirectional else 1),
        )
        self.batch_first = module.batch_first
        self.bidirectional = module.bidirectional

    def forward(self, inputs_embeds: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Run the layer on a batch of sequences.

        Args:
            inputs_embeds: (B, L, D).
            attention_mask: (B, L), 1 = real.

        Returns:
            (B, L, output size).
        """
        inputs, slots = right_pad(inputs_embeds, attention_mask)
        if self.bidirectional:
            return restore(self._read_both_ways(inputs, attention_mask), slots)
        if not self.batch_first:
            inputs = inputs.transpose(0, 1)  # (B, L, D) -> (L, B, D)
        hidden: torch.Tensor = self.module(inputs)[0]
        return restore(hidden if self.batch_first else hidden.transpose(0, 1), slots)

    def _read_both_ways(self, inputs: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        packed = pack_padded_sequence(
            inputs, real_counts(attention_mask).cpu(), batch_first=True, enforce_sorted=False
        )
        hidden, _ = pad_packed_sequence(
            self.module(packed)[0], batch_first=True, total_length=inputs.shape[1]
        )
        return hidden


def _is_torch_rnn(backbone: object) -> bool:
    """Whether `forward` is torch's own; a subclass with another `forward` needs another bridge."""
    forwards = {nn.GRU.forward, nn.LSTM.forward, nn.RNN.forward}
    return isinstance(backbone, nn.RNNBase) and type(backbone).forward in forwards


@register_bridge("torch-rnn", matches=_is_torch_rnn, priority=-10)
def _build(backbone: nn.RNNBase, hidden_size: int | None) -> nn.Module:
    return TorchRNNBackbone(backbone)
