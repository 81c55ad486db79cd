"""The loss of a large batch, some positions at a time.

Letters: P valid positions, U distinct items, D hidden size.
"""

from collections.abc import Callable, Mapping

import torch
from torch.utils.checkpoint import checkpoint

from odmt_sdk.losses.in_batch import InBatchCandidates
from odmt_sdk.losses.online_distillation import LossParts

States = Mapping[str, torch.Tensor]


def loss_in_chunks(
    loss: Callable[[States, InBatchCandidates], LossParts],
    states: States,
    candidates: InBatchCandidates,
    size: int,
) -> LossParts:
    """Compute a mean over positions in parts, whose logits are computed again for gradients.

    Only the logits (size, U) of one part are in memory at a time.

    Args:
        loss: the mean loss, and its parts, of states and of candidates for the same positions.
        states: source -> (P, D).
        candidates: of all positions.
        size: positions at a time.

    Returns:
        The loss and its parts, without gradients in the parts.
    """

    def of_chunk(start: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        chunk = candidates.part(start, size)
        found, parts = loss(
            {source: values[start : start + size] for source, values in states.items()}, chunk
        )
        share = len(chunk.labels) / len(candidates.labels)
        return found * share, {name: value.detach() * share for name, value in parts.items()}

    found = [
        checkpoint(of_chunk, start, use_reentrant=False)
        for start in range(0, len(candidates.labels), size)
    ]
    losses, parts = zip(*found, strict=True)
    return LossParts(
        torch.stack(losses).sum(),
        {name: torch.stack([part[name] for part in parts]).sum() for name in parts[0]},
    )
