"""Candidates from all ranks of a distributed run, so that many devices see one large batch.

Letters: R ranks, B users of this rank, L slots, P valid positions of this rank, U distinct items of
all ranks, M most distinct items that a rank has, S sources, D hidden size.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import distributed
from torch.distributed.nn import functional as gathering

from odmt_sdk.losses.in_batch import (
    InBatchCandidates,
    distinct_items,
    in_batch_candidates,
    labelled_positions,
)
from odmt_sdk.processes import gather_tensors


class GatheredCandidates(NamedTuple):
    """This rank's positions against the items of all ranks.

    Args:
        candidates: of this rank's users; `item_ids` (U,) and `columns` are over all ranks.
        items: source -> (U, D), with gradients that reach the ranks the items come from.
        scale: scalar; this rank's mean loss times this, averaged over ranks, is the mean over all.
    """

    candidates: InBatchCandidates
    items: dict[str, torch.Tensor]
    scale: torch.Tensor


def gather_sequences(
    item_ids: torch.Tensor, attention_mask: torch.Tensor
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The sequences of every rank.

    Args:
        item_ids: (B, L) rows; B and L may differ between ranks.
        attention_mask: boolean (B, L).

    Returns:
        For each rank its rows, 0 where masked, and mask, all padded on the left to one length.
    """
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


def own_sequences(
    sequences: list[tuple[torch.Tensor, torch.Tensor]],
) -> tuple[torch.Tensor, torch.Tensor]:
    """This rank's part of what `gather_sequences` gave."""
    return sequences[distributed.get_rank()]


def gather_candidates(
    sequences: list[tuple[torch.Tensor, torch.Tensor]],
    own_items: Mapping[str, torch.Tensor],
    *,
    last_only: bool = False,
) -> GatheredCandidates:
    """Put the candidates of all ranks together.

    All ranks must call this together, and call `backward` together.

    Args:
        sequences: of every rank, from `gather_sequences`.
        own_items: source -> embeddings of this rank's distinct items, in the order of
            `distinct_items`.
        last_only: as in `in_batch_candidates`.

    Returns:
        The candidates; the loss over them equals that of one process with the whole batch.
    """
    rank, ranks = distributed.get_rank(), distributed.get_world_size()
    first = sum(len(rows) for rows, _ in sequences[:rank])
    users = slice(first, first + len(sequences[rank][0]))
    everyone = in_batch_candidates(
        torch.cat([rows for rows, _ in sequences]),
        torch.cat([mask for _, mask in sequences]),
        last_only=last_only,
        users=users,
    )
    distinct = [distinct_items(rows, mask) for rows, mask in sequences]
    most = max(len(ids) for ids in distinct)
    names = list(own_items)
    stacked = torch.stack([own_items[name] for name in names], dim=1)  # (U of this rank, S, D)
    padding = stacked.new_zeros(most - len(stacked), *stacked.shape[1:])
    gathered = gathering.all_gather(torch.cat([stacked, padding]))  # R of (M, S, D)
    together = torch.cat([part[: len(ids)] for part, ids in zip(gathered, distinct, strict=True)])
    # where each distinct item of all ranks stands first
    order = torch.cat(distinct).sort(stable=True)
    starts = torch.searchsorted(order.values, everyone.item_ids)
    found = together[order.indices[starts]]  # (U, S, D)
    positions = [labelled_positions(mask, last_only=last_only).sum() for _, mask in sequences]
    return GatheredCandidates(
        everyone,
        {name: found[:, index] for index, name in enumerate(names)},
        positions[rank] * ranks / torch.stack(positions).sum().clamp(min=1),
    )
