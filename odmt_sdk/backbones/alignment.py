"""Moving the real positions of a batch to the front of their rows, and back.

A causal model that reads right-padded rows never sees padding from a real position and counts its
positions from the first item on, so that padding changes nothing, whatever the model does.

Letters: B users, L positions, D hidden size.
"""

import torch


def right_pad(
    inputs_embeds: torch.Tensor, attention_mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Move the real positions of every row to its front, in their order.

    Args:
        inputs_embeds: (B, L, D).
        attention_mask: (B, L), 1 = real; the padding may stand anywhere.

    Returns:
        The right-padded embeddings (B, L, D), and for every position where it went: (B, L) int64.
    """
    real = attention_mask.bool()
    after_the_real = real.sum(1, keepdim=True) - 1 + (~real).cumsum(1)  # (B, L)
    slots = torch.where(real, real.cumsum(1) - 1, after_the_real)
    positions = torch.arange(real.shape[1], device=real.device).expand_as(slots)
    sources = torch.empty_like(slots).scatter_(1, slots, positions)  # the permutation, inverted
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
    """How many positions of every row are real, at least 1.

    An empty row counts as one position of zeros: attention over no position at all would be nan,
    and packing refuses it.

    Args:
        attention_mask: (B, L), 1 = real.

    Returns:
        (B,) int64.
    """
    return attention_mask.bool().sum(1).clamp(min=1)


def _take(values: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Values (B, L, D) at positions (B, L), copied by whole rows: faster than `gather`."""
    batch, length = positions.shape
    starts = torch.arange(batch, device=positions.device).unsqueeze(1) * length
    rows = values.flatten(0, 1).index_select(0, (positions + starts).flatten())  # (B * L, D)
    return rows.view(values.shape)
