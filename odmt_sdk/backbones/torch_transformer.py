"""Adapter for torch's own transformer: `nn.TransformerEncoder` and `nn.TransformerEncoderLayer`.

Letters: B users, L positions, D hidden size.
"""

import torch
from torch import nn

from odmt_sdk.backbones.adapter import BackboneAdapter
from odmt_sdk.backbones.alignment import restore, right_pad
from odmt_sdk.backbones.registry import register_adapter


class TorchTransformerBackbone(BackboneAdapter):
    """An encoder with a causal mask.

    Rows are right-padded for it, so that the causal mask hides the padding as well: no position
    ever attends to nothing, which would be nan. The encoder knows no positions; add position
    embeddings in a module of your own if you want them.

    Args:
        module: the encoder, or one layer of it; batch first or not.

    Examples:
        >>> layer = nn.TransformerEncoderLayer(8, nhead=2, batch_first=True)
        >>> encoder = TorchTransformerBackbone(nn.TransformerEncoder(layer, num_layers=2))
        >>> encoder(torch.randn(2, 5, 8), torch.ones(2, 5, dtype=torch.long)).shape
        torch.Size([2, 5, 8])
    """

    def __init__(self, module: nn.TransformerEncoder | nn.TransformerEncoderLayer) -> None:
        attention = _attention(module)
        super().__init__(module, hidden_size=attention.embed_dim)
        self.batch_first = attention.batch_first

    def forward(self, inputs_embeds: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Read sequences.

        Args:
            inputs_embeds: (B, L, D).
            attention_mask: (B, L), 1 = real.

        Returns:
            (B, L, D).
        """
        inputs, slots = right_pad(inputs_embeds, attention_mask)
        length = inputs.shape[1]
        future = torch.ones(length, length, dtype=torch.bool, device=inputs.device).triu(1)
        if not self.batch_first:
            inputs = inputs.transpose(0, 1)  # (B, L, D) -> (L, B, D)
        # By position: the argument is `mask` in the encoder, `src_mask` in its layer.
        states: torch.Tensor = self.module(inputs, future, is_causal=True)
        return restore(states if self.batch_first else states.transpose(0, 1), slots)


def _attention(module: nn.Module) -> nn.MultiheadAttention:
    layer = module.layers[0] if isinstance(module, nn.TransformerEncoder) else module
    return layer.self_attn  # type: ignore[return-value]


def _is_torch_transformer(backbone: object) -> bool:
    """Whether it is called like torch's own, which a sub-class with its own `forward` is not."""
    if isinstance(backbone, nn.TransformerEncoder):
        own = type(backbone).forward is nn.TransformerEncoder.forward
        return own and len(backbone.layers) > 0 and _is_torch_transformer(backbone.layers[0])
    if isinstance(backbone, nn.TransformerEncoderLayer):
        own = type(backbone).forward is nn.TransformerEncoderLayer.forward
        return own and isinstance(backbone.self_attn, nn.MultiheadAttention)
    return False


@register_adapter("torch-transformer", matches=_is_torch_transformer, priority=-10)
def _build(
    backbone: nn.TransformerEncoder | nn.TransformerEncoderLayer, hidden_size: int | None
) -> nn.Module:
    return TorchTransformerBackbone(backbone)
