"""One backbone per source."""

from collections.abc import Mapping

import torch
from torch import nn

from odmt_sdk.backbones.one_state import can_read_one_state
from odmt_sdk.backbones.template import SHARED


class SourceBackbones(nn.Module):
    """The user's backbone once for every source, or once for all.

    Args:
        backbones: source -> adapted backbone, or "shared" -> the one for all sources.
    """

    def __init__(self, backbones: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.share = SHARED in backbones
        self.by_source = nn.ModuleDict(dict(backbones))

    def of(self, source: str) -> nn.Module:
        """The backbone that reads a source."""
        return self.by_source[SHARED if self.share else source]

    @property
    def last_only(self) -> bool:
        """Whether a backbone returns its state at the last item only."""
        return any(getattr(backbone, "last_only", False) for backbone in self.by_source.values())

    def forward(
        self,
        inputs_embeds: torch.Tensor,
        attention_mask: torch.Tensor,
        source: str,
        *,
        item_ids: torch.Tensor,
        positions: torch.Tensor,
        one_each: bool = False,
    ) -> torch.Tensor:
        """Read one source's sequences.

        Args:
            inputs_embeds: (B, L, D), zeros at padding.
            attention_mask: (B, L) int64, 1 = real.
            source: which backbone to use.
            item_ids: (B, L) rows, 0 = padding.
            positions: (P,) places in (B * L,) whose states are wanted, rising.
            one_each: whether each sequence has exactly one of them.

        Returns:
            (P, D), user by user. A backbone that returns only its last state reads a sequence of
            its own for each of them, which ends there.

        Raises:
            ValueError: if the backbone returns another shape or no tensor.
        """
        backbone = self.of(source)
        last_only = getattr(backbone, "last_only", False)
        if last_only:
            inputs_embeds, attention_mask, item_ids = _prefixes(
                inputs_embeds, attention_mask, item_ids, positions
            )
        if last_only and not len(item_ids):
            return inputs_embeds.sum(1)  # (0, L, D) -> (0, D)
        ids = {"item_ids": item_ids} if getattr(backbone, "reads_item_ids", False) else {}
        if one_each and can_read_one_state(backbone):
            only_at = positions % inputs_embeds.shape[1]  # (B,)
            state: torch.Tensor = backbone(inputs_embeds, attention_mask, only_at=only_at)
            return state
        hidden = backbone(inputs_embeds, attention_mask, **ids)
        expected = inputs_embeds[:, 0].shape if last_only else inputs_embeds.shape
        if not isinstance(hidden, torch.Tensor) or hidden.shape != expected:
            got = tuple(hidden.shape) if isinstance(hidden, torch.Tensor) else type(hidden).__name__
            raise ValueError(
                f"{type(backbone).__name__} returned {got} for inputs_embeds of shape "
                f"{tuple(inputs_embeds.shape)}; it must return one tensor {tuple(expected)}"
            )
        return hidden if last_only else hidden.flatten(0, 1)[positions]  # (P, D)


def _prefixes(
    inputs_embeds: torch.Tensor,
    attention_mask: torch.Tensor,
    item_ids: torch.Tensor,
    positions: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """For each position read the sequence that ends there, left-padded: (B, L) -> (P, L)."""
    length = item_ids.shape[1]
    users, ends = positions // max(length, 1), positions % max(length, 1)  # (P,)
    slots = torch.arange(length, device=item_ids.device)
    columns = slots + (ends - length + 1).unsqueeze(1)  # (P, L)
    inside, columns, users = columns >= 0, columns.clamp(min=0), users.unsqueeze(1)
    mask = attention_mask[users, columns] * inside
    return inputs_embeds[users, columns] * mask.unsqueeze(-1), mask, item_ids[users, columns] * mask
