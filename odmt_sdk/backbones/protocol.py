"""The one protocol through which the wrapper talks to sequence models."""

from typing import Protocol

import torch


class SequenceBackbone(Protocol):
    """A causal sequence model on embeddings; B users, L positions, D hidden size."""

    def __call__(self, inputs_embeds: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Read sequences.

        Args:
            inputs_embeds: (B, L, D) item embeddings, left-padded with zeros.
            attention_mask: (B, L) int64, 1 = real, 0 = padding.

        Returns:
            (B, L, D) hidden states; position t depends on positions 0..t only.
        """
