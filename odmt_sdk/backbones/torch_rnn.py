"""Adapter for torch's recurrent layers: `nn.GRU`, `nn.LSTM`, `nn.RNN`.

Letters: B users, L positions, D hidden size.
"""

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from odmt_sdk.backbones.adapter import BackboneAdapter
from odmt_sdk.backbones.alignment import real_counts, restore, right_pad
from odmt_sdk.backbones.registry import register_adapter


class TorchRNNBackbone(BackboneAdapter):
    """A recurrent layer that starts at the first real item of every sequence.

    Rows are right-padded for it: padding comes after the last item, where it changes no state that
    is read. One that also reads backwards gets packed rows, so that it starts at the last item.

    Args:
        module: the layer, of any depth, batch first or not.

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
        """Read sequences.

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
    """Whether it is called like torch's own, which a sub-class with its own `forward` is not."""
    forwards = {nn.GRU.forward, nn.LSTM.forward, nn.RNN.forward}
    return isinstance(backbone, nn.RNNBase) and type(backbone).forward in forwards


@register_adapter("torch-rnn", matches=_is_torch_rnn, priority=-10)
def _build(backbone: nn.RNNBase, hidden_size: int | None) -> nn.Module:
    return TorchRNNBackbone(backbone)
