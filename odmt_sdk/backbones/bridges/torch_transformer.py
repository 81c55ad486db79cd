"""Bridge for `nn.TransformerEncoder` and `nn.TransformerEncoderLayer` of torch.

Letters: B users, L positions, D hidden size.
"""

from typing import Any

import torch
from torch import nn

from odmt_sdk.backbones.adapt import register_bridge
from odmt_sdk.backbones.bridge import BackboneBridge
from odmt_sdk.backbones.bridges.right_padding import restore, right_pad


class TorchTransformerBackbone(BackboneBridge):
    """A torch transformer encoder with a causal mask.

    Rows are right-padded, so the causal mask also hides the padding and every position has
    something to attend to (otherwise the output would be nan). The encoder has no position
    information; wrap it in a module that adds position embeddings if you need them.

    Args:
        module: the encoder or a single encoder layer, batch first or not.

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
        """Run the encoder on a batch of sequences.

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
        # Positional: the argument is called `mask` in the encoder and `src_mask` in a layer.
        states: torch.Tensor = self.module(inputs, future, is_causal=True)
        return restore(states if self.batch_first else states.transpose(0, 1), slots)


def _attention(module: nn.Module) -> nn.MultiheadAttention:
    layer: Any = module.layers[0] if isinstance(module, nn.TransformerEncoder) else module
    attention: nn.MultiheadAttention = layer.self_attn
    return attention


def _is_torch_transformer(backbone: object) -> bool:
    """Whether `forward` is torch's own; a subclass with another `forward` needs another bridge."""
    if isinstance(backbone, nn.TransformerEncoder):
        own = type(backbone).forward is nn.TransformerEncoder.forward
        return own and len(backbone.layers) > 0 and _is_torch_transformer(backbone.layers[0])
    if isinstance(backbone, nn.TransformerEncoderLayer):
        own = type(backbone).forward is nn.TransformerEncoderLayer.forward
        return own and isinstance(backbone.self_attn, nn.MultiheadAttention)
    return False


@register_bridge("torch-transformer", matches=_is_torch_transformer, priority=-10)
def _build(
    backbone: nn.TransformerEncoder | nn.TransformerEncoderLayer, hidden_size: int | None
) -> nn.Module:
    return TorchTransformerBackbone(backbone)
