"""Checks the rows and sequences of items that a model gets, and moves padding to the left.

Values are checked on the CPU only: on other devices the check would wait for them, and in a trace
there are none.

Letters: B users, L slots of a sequence, L' slots that are kept, N items.
"""

import torch


def check_rows(item_ids: torch.Tensor, num_items: int) -> None:
    """Raise unless rows lie in 0..N.

    Args:
        item_ids: rows, of any shape.
        num_items: N.

    Raises:
        ValueError: if one does not.
    """
    if not _at_hand(item_ids):
        return
    low, high = (int(value) for value in item_ids.aminmax())
    if low < 0 or high > num_items:
        raise ValueError(
            f"item_ids hold row {low if low < 0 else high}, outside 0..{num_items}; "
            "rows come from model.vocabulary.rows(item ids), 0 is padding"
        )


def left_padded(
    item_ids: torch.Tensor, attention_mask: torch.Tensor | None, *, num_items: int, longest: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Check sequences, and move their items to the right.

    Args:
        item_ids: (B, L) rows, whole numbers of any type, padded with 0 anywhere.
        attention_mask: (B, L), 1 = real; None = where `item_ids` is not 0. Row 0 is padding
            whatever the mask says.
        num_items: N.
        longest: how many of the latest items are kept.

    Returns:
        The latest items (B, L'), in their order and padded on the left with 0, and a boolean mask
        (B, L').

    Raises:
        TypeError: if `item_ids` or the mask is no tensor.
        ValueError: if they are no rows in 0..N, or the mask has another shape or holds other values
            than 0 and 1.
    """
    if not isinstance(item_ids, torch.Tensor):
        raise TypeError(
            f"item_ids must be a tensor of shape (B, L), got {type(item_ids).__name__}: "
            "convert it with torch.as_tensor, or pass your own item ids to recommend"
        )
    if item_ids.ndim != 2 or not _holds_integers(item_ids):
        raise ValueError(
            f"item_ids must be integers of shape (B, L), got {tuple(item_ids.shape)} "
            f"{item_ids.dtype}"
        )
    item_ids = item_ids.long()
    mask = item_ids != 0
    if attention_mask is not None:
        if not isinstance(attention_mask, torch.Tensor):
            raise TypeError(
                f"attention_mask must be a tensor of the shape of item_ids, got "
                f"{type(attention_mask).__name__}: an epoch is passed by name, epoch=..."
            )
        if attention_mask.shape != item_ids.shape:
            raise ValueError(
                f"attention_mask has shape {tuple(attention_mask.shape)} and item_ids "
                f"{tuple(item_ids.shape)}; they must agree"
            )
        mask = mask & (attention_mask != 0)
    check_rows(item_ids, num_items)
    if attention_mask is not None and _at_hand(item_ids):
        other = (attention_mask != 0) & (attention_mask != 1)
        if bool(other.any()):
            raise ValueError(
                f"attention_mask holds {attention_mask[other][0].item()}; allowed are 1 = real "
                "item and 0 = padding"
            )
    slots = torch.arange(item_ids.shape[1], device=item_ids.device)
    # padding before items, and each of them in order: no two keys of a row are equal
    order = (slots + mask * item_ids.shape[1]).argsort(dim=1)[:, -longest:]  # (B, L')
    mask = mask.gather(1, order)
    return item_ids.gather(1, order) * mask, mask


def check_none_empty(mask: torch.Tensor) -> None:
    """Raise if a sequence has no item; in a trace nothing is checked.

    Args:
        mask: boolean (B, L), True = real.

    Raises:
        ValueError: if one has none.
    """
    if not _traced() and not bool(mask.any(1).all()):
        empty = int((~mask.any(1)).nonzero()[0])
        raise ValueError(f"sequence {empty} of the batch is empty: it needs at least one item")


def _at_hand(tensor: torch.Tensor) -> bool:
    """Whether the tensor has values that can be read without waiting for a device."""
    return tensor.device.type == "cpu" and tensor.numel() > 0 and not _traced()


def _traced() -> bool:
    """Whether operations are being recorded, by `torch.export`, `torch.compile` or `jit.trace`."""
    return torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None


def _holds_integers(tensor: torch.Tensor) -> bool:
    return not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype is torch.bool)
