"""Output classes of the model: `ODMTOutput` and `Recommendations`."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from transformers.utils import ModelOutput


@dataclass
class ODMTOutput(ModelOutput):
    """Output of `ODMTWrapper.forward`, for P valid positions and U distinct items in the batch.

    Args:
        loss: scalar, ready for `backward()`.
        losses: scalar parts of the loss by name: "cross_entropy/<source>",
            "distillation/<student>" before weighting, and "distillation_weight".
        logits: source -> (P, U), with the log-popularity correction if it is on. Empty if
            `loss_chunk_size` splits the loss into chunks.
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
    """Output of `ODMTWrapper.recommend`, best item first.

    Args:
        item_ids: up to k item ids for each history, as defined by the user.
        scores: the scores of these items. Higher is better. A score is the mean over sources of the
            inner products of the history's state and the item's embedding, plus the score of
            item-to-item counts, if the model has them. It is not a probability.
    """

    item_ids: list[list[object]]
    scores: list[list[float]]
