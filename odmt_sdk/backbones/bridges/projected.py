"""Linear projections around a backbone with another width than the item embeddings."""

import torch
from torch import nn

from odmt_sdk.backbones.bridge import BackboneBridge
from odmt_sdk.backbones.protocol import AdaptedBackbone


class ProjectedBackbone(BackboneBridge):
    """A backbone between two trainable linear projections.

    The input projection has no bias, so padding (zeros) remains zero. If the input or output width
    already matches, that projection is omitted.

    Args:
        backbone: a module that follows `SequenceBackbone` at its own widths.
        hidden_size: width D of the item embeddings.
        reads: input width of the backbone.
        returns: output width of the backbone.

    Examples:
        >>> from odmt_sdk.backbones.models.sasrec import SASRec
        >>> wide = ProjectedBackbone(SASRec(16), hidden_size=8, reads=16, returns=16)
        >>> wide(torch.randn(2, 5, 8), torch.ones(2, 5)).shape
        torch.Size([2, 5, 8])
    """

    def __init__(
        self, backbone: AdaptedBackbone, *, hidden_size: int, reads: int, returns: int
    ) -> None:
        super().__init__(
            backbone,
            hidden_size=hidden_size,
            max_seq_length=getattr(backbone, "max_seq_length", None),
        )
        self.reads_item_ids = bool(getattr(backbone, "reads_item_ids", False))
        self.holds_copy = bool(getattr(backbone, "holds_copy", False))
        self.last_only = bool(getattr(backbone, "last_only", False))
        hint = getattr(backbone, "way_out_of_the_future", None)
        self.way_out_of_the_future = hint or self.way_out_of_the_future
        like = next(backbone.parameters(), torch.empty(0))
        like = like if like.is_floating_point() else torch.empty(0, device=like.device)
        self.project_in = _linear(hidden_size, reads, bias=False, like=like)
        self.project_out = _linear(returns, hidden_size, bias=True, like=like)

    def forward(
        self,
        inputs_embeds: torch.Tensor,
        attention_mask: torch.Tensor,
        item_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Run the backbone on projected embeddings.

        Args:
            inputs_embeds: (B, L, D).
            attention_mask: (B, L), 1 = real.
            item_ids: (B, L), only for a backbone with `reads_item_ids`.

        Returns:
            (B, L, D), or (B, D) if the backbone is `last_only`.
        """
        inputs = self.project_in(inputs_embeds)  # (B, L, D) -> (B, L, reads)
        ids = {"item_ids": item_ids} if self.reads_item_ids else {}
        hidden: torch.Tensor = self.module(inputs, attention_mask, **ids)
        hidden = self.project_out(hidden)  # (B, L, returns) -> (B, L, D)
        return hidden


def _linear(size_in: int, size_out: int, *, bias: bool, like: torch.Tensor) -> nn.Module:
    if size_in == size_out:
        return nn.Identity()
    return nn.Linear(size_in, size_out, bias=bias, device=like.device, dtype=like.dtype)
