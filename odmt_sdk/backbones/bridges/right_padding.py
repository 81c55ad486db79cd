"""Conversion of a batch to right padding and back.

With right padding, the real positions of a causal model never see padding, and its position
embeddings count from the first item. Padding therefore does not change the results, whatever the
model does with it.

Letters: B users, L positions, D hidden size.
"""

from collections.abc import Callable

import torch


def run_right_padded(
    run: Callable[[torch.Tensor], torch.Tensor],
    inputs_embeds: torch.Tensor,
    attention_mask: torch.Tensor,
) -> torch.Tensor:
    """Run a causal function on a batch whose padding is zero and stands at the end.

    Args:
        run: maps right-padded embeddings (B, L, D) to states (B, L, D).
        inputs_embeds: (B, L, D).
        attention_mask: (B, L), 1 = real; padding may be anywhere.

    Returns:
        The states (B, L, D) at the original positions, zeros at padding.
    """
    padding = ~attention_mask.bool().unsqueeze(-1)  # (B, L, 1)
    inputs, slots = right_pad(inputs_embeds.masked_fill(padding, 0), attention_mask)
    return restore(run(inputs), slots).masked_fill(padding, 0)


def right_pad(
    inputs_embeds: torch.Tensor, attention_mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Move the real positions of every row to the front and keep their order.

    Args:
        inputs_embeds: (B, L, D).
        attention_mask: (B, L), 1 = real; padding may be anywhere.

    Returns:
        The right-padded embeddings (B, L, D), and the new index of every position: (B, L) int64.
    """
    real = attention_mask.bool()
    after_the_real = real.sum(1, keepdim=True) - 1 + (~real).cumsum(1)  # (B, L)
    slots = torch.where(real, real.cumsum(1) - 1, after_the_real)
    positions = torch.arange(real.shape[1], device=real.device).expand_as(slots)
    sources = torch.empty_like(slots).scatter_(1, slots, positions)  # the inverse permutation
    return _take(inputs_embeds, sources), slots


def restore(hidden: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    """Undo `right_pad`.

    Args:
        hidden: (B, L, D) at right-padded positions.
        slots: (B, L) from `right_pad`.

    Returns:
        (B, L, D) at the original positions.
    """
    return _take(hidden, slots)


def real_counts(attention_mask: torch.Tensor) -> torch.Tensor:
    """Count the real positions of every row, at least 1.

    An empty row counts as one position of zeros, because attention over no position would be nan
    and packing does not accept empty sequences.

    Args:
        attention_mask: (B, L), 1 = real.

    Returns:
        (B,) int64.
    """
    return attention_mask.bool().sum(1).clamp(min=1)


def _take(values: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Values (B, L, D) at positions (B, L); copies whole rows, which is faster than `gather`."""
    batch, length = positions.shape
    starts = torch.arange(batch, device=positions.device).unsqueeze(1) * length
    rows = values.flatten(0, 1).index_select(0, (positions + starts).flatten())  # (B * L, D)
    return rows.view(values.shape)
