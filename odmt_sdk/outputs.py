"""What the model returns, by name."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from transformers.utils import ModelOutput


@dataclass
class ODMTOutput(ModelOutput):
    """Output of `ODMTWrapper.forward`; P valid positions, U distinct items in the batch.

    Args:
        loss: scalar, ready for `backward()`.
        losses: each part of the loss by name: "cross_entropy/<source>" and
            "distillation/<student>" before their weight, and "distillation_weight".
        logits: source -> (P, U), corrected by log-popularity where that is on; empty where
            `loss_chunk_size` cuts the loss into chunks.
        labels: (P,) column of the next item in `logits`.
        candidate_ids: (U,) row of the item that each column of `logits` stands for.

    Examples:
        >>> output = model(item_ids)            # doctest: +SKIP
        >>> output.loss.backward()              # doctest: +SKIP
    """

    loss: torch.Tensor | None = None
    losses: dict[str, torch.Tensor] | None = None
    logits: dict[str, torch.Tensor] | None = None
    labels: torch.Tensor | None = None
    candidate_ids: torch.Tensor | None = None


class Recommendations(NamedTuple):
    """Output of `ODMTWrapper.recommend`, best first.

    Args:
        item_ids: for each history, up to k item ids as the user writes them.
        scores: for each history, their scores.
    """

    item_ids: list[list[object]]
    scores: list[list[float]]
