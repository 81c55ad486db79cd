"""In-batch candidates gathered from all ranks, so that several devices train on one large batch.

Letters: R ranks, B users on this rank, L slots, P valid positions on this rank, V distinct items on
this rank, U distinct items on all ranks, M the largest V of any rank, S sources, D hidden size.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import distributed

from odmt_sdk.losses.in_batch import (
    InBatchCandidates,
    distinct_items,
    in_batch_candidates,
    labelled_positions,
)
from odmt_sdk.processes import gather_tensors


class SharedCandidates(NamedTuple):
    """This rank's positions, with the items of all ranks as candidates.

    Args:
        item_ids: (B, L) this rank's rows, 0 where masked; L is the longest of all ranks.
        attention_mask: boolean (B, L), True = real.
        candidates: candidates of this rank's users; `item_ids` (U,) and `columns` refer to the
            items of all ranks.
        own_item_ids: (V,) distinct items that this rank encodes.
        sizes: V of every rank.
        places: (U,) index of each candidate in the concatenated items of all ranks.
        scale: scalar factor for this rank's mean loss. The average of the scaled losses over ranks
            is the mean over all positions of all ranks.
    """

    item_ids: torch.Tensor
    attention_mask: torch.Tensor
    candidates: InBatchCandidates
    own_item_ids: torch.Tensor
    sizes: tuple[int, ...]
    places: torch.Tensor
    scale: torch.Tensor

    def gather(self, own_items: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Gather the embeddings of the candidates; gradients flow back to the rank of each item.

        This is a collective operation: all ranks must call it together, and `backward` as well.

        Args:
            own_items: source -> (V, D) embeddings of `own_item_ids`.

        Returns:
            Source -> (U, D).
        """
        names = list(own_items)
        stacked = torch.stack([own_items[name] for name in names], dim=1)  # (V, S, D)
        padding = stacked.new_zeros(max(self.sizes) - len(stacked), *stacked.shape[1:])
        gathered = _AllGather.apply(torch.cat([stacked, padding]))  # (R, M, S, D)
        together = torch.cat([part[:n] for part, n in zip(gathered, self.sizes, strict=True)])
        found = together[self.places]  # (U, S, D)
        return {name: found[:, index] for index, name in enumerate(names)}


class _AllGather(torch.autograd.Function):
    """All-gather of (M, ...) tensors to (R, M, ...) whose backward sums gradients over ranks."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor) -> torch.Tensor:
        return torch.stack(gather_tensors(tensor.contiguous()))

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total[distributed.get_rank()]


def share_candidates(
    item_ids: torch.Tensor, attention_mask: torch.Tensor, *, last_only: bool = False
) -> SharedCandidates:
    """Find the candidates of the batches of all ranks; all ranks must call it together.

    Args:
        item_ids: (B, L) rows; B and L may differ between ranks.
        attention_mask: boolean (B, L), True = real.
        last_only: as in `in_batch_candidates`.

    Returns:
        The candidates; the loss over them equals the loss of one process on the whole batch.
    """
    rank, ranks = distributed.get_rank(), distributed.get_world_size()
    sequences = _all_sequences(item_ids, attention_mask)
    first = sum(len(rows) for rows, _ in sequences[:rank])
    users = slice(first, first + len(item_ids))
    candidates = in_batch_candidates(
        torch.cat([rows for rows, _ in sequences]),
        torch.cat([mask for _, mask in sequences]),
        last_only=last_only,
        users=users,
    )
    distinct = [distinct_items(rows, mask) for rows, mask in sequences]
    order = torch.cat(distinct).sort(stable=True)  # an item's first occurrence stays first
    starts = torch.searchsorted(order.values, candidates.item_ids)
    positions = [labelled_positions(mask, last_only=last_only).sum() for _, mask in sequences]
    return SharedCandidates(
        *sequences[rank],
        candidates,
        distinct[rank],
        tuple(len(ids) for ids in distinct),
        order.indices[starts],
        positions[rank] * ranks / torch.stack(positions).sum().clamp(min=1),
    )


def _all_sequences(
    item_ids: torch.Tensor, attention_mask: torch.Tensor
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Rows and mask of every rank, left-padded to a common length; rows are 0 where masked."""
    sizes = gather_tensors(torch.tensor(item_ids.shape, device=item_ids.device))
    users, slots = torch.stack(sizes).amax(0).tolist()
    padded = item_ids.new_zeros(users, slots)
    padded[: len(item_ids), slots - item_ids.shape[1] :] = item_ids * attention_mask
    present = torch.zeros_like(padded)
    present[: len(item_ids), slots - item_ids.shape[1] :] = attention_mask.long()
    rows, masks = gather_tensors(padded), gather_tensors(present)
    numbers = [int(size[0]) for size in sizes]
    return [
        (row[:number], mask[:number].bool())
        for row, mask, number in zip(rows, masks, numbers, strict=True)
    ]
