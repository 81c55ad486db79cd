"""One backbone per source."""

import copy
from collections.abc import Sequence

import torch
from torch import nn


class SourceBackbones(nn.Module):
    """The user's backbone once for every source, or once for all.

    The user's own module is never used: every source gets a copy of it, with its weights.

    Args:
        backbone: follows `SequenceBackbone`.
        sources: names of the sources.
        share: one copy for all sources.

    Raises:
        TypeError: if `backbone` is not an `nn.Module`.
    """

    def __init__(self, backbone: nn.Module, sources: Sequence[str], *, share: bool) -> None:
        super().__init__()
        names = ("shared",) if share else tuple(sources)
        self.share = share
        self.by_source = nn.ModuleDict({name: copy.deepcopy(backbone) for name in names})

    def forward(
        self, inputs_embeds: torch.Tensor, attention_mask: torch.Tensor, source: str
    ) -> torch.Tensor:
        """Read one source's sequences.

        Args:
            inputs_embeds: (B, L, D), zeros at padding.
            attention_mask: (B, L) int64, 1 = real.
            source: which backbone to use.

        Returns:
            (B, L, D).

        Raises:
            ValueError: if the backbone returns another shape or no tensor.
        """
        backbone = self.by_source["shared" if self.share else source]
        hidden = backbone(inputs_embeds, attention_mask)
        if not isinstance(hidden, torch.Tensor) or hidden.shape != inputs_embeds.shape:
            got = tuple(hidden.shape) if isinstance(hidden, torch.Tensor) else type(hidden).__name__
            raise ValueError(
                f"{type(backbone).__name__} returned {got} for inputs_embeds of shape "
                f"{tuple(inputs_embeds.shape)}; a backbone must return one tensor of that shape"
            )
        return hidden
