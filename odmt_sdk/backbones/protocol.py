"""`SequenceBackbone`: the protocol that every sequence model follows inside the wrapper."""

from typing import NewType, Protocol

import torch
from torch import nn


class SequenceBackbone(Protocol):
    """A causal sequence model over embeddings; B users, L positions, D hidden size."""

    def __call__(self, inputs_embeds: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Compute the hidden states of a batch of sequences.

        Args:
            inputs_embeds: (B, L, D) item embeddings, left-padded with zeros.
            attention_mask: (B, L) int64, 1 = real, 0 = padding.

        Returns:
            (B, L, D) hidden states; position t depends on positions 0..t only.
        """


AdaptedBackbone = NewType("AdaptedBackbone", nn.Module)
"""A module that follows `SequenceBackbone`, as `adapt_backbone` returns it.

Python has no type for an object that is a module and also follows a protocol. This type has no
effect at run time; with it, mypy refuses a user's own module where an adapted one is needed.
"""
