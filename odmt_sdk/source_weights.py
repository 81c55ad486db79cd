"""Chooses the weights of a trained model's sources on validation.

Letters: Q queries.
"""

import math
from collections.abc import Mapping

import torch

from odmt_sdk.data.splits import Split
from odmt_sdk.evaluation.metrics import METRICS
from odmt_sdk.item_to_item import EncodedQueries, check_same_items, metric_and_cut
from odmt_sdk.wrapper import ODMTWrapper

# Weights to try for each source, where the others have 1 or what was chosen for them before.
WEIGHTS = (0.25, 0.5, 2.0, 4.0)
# Other weights than equal ones have to be better by so many standard errors over users.
CLEARLY = 2.0


def choose_source_weights(
    model: ODMTWrapper,
    split: Split,
    *,
    metric: str = "ndcg@10",
    exclude_seen: bool = True,
    batch_size: int = 256,
) -> dict[str, float]:
    """Choose how much each source counts in the scores of a trained model, on validation.

    With many interactions per item, the ID becomes far more accurate than text and pictures, and an
    equal mean wastes that. The weights of one source after the other are varied, and the best ones
    are kept if they are better than equal weights by two standard errors over users. `fit` calls
    this function after training. Item-to-item counts do not take part.

    Args:
        model: a trained model; its `source_weights` are replaced.
        split: from `leave_one_out` or `time_split`, with the vocabulary of the model.
        metric: validation metric that selects the weights, such as "ndcg@10".
        exclude_seen: whether to exclude items the user has already seen, except the target.
        batch_size: histories scored at once.

    Returns:
        Source -> weight, which is `model.source_weights` from now on.

    Raises:
        ValueError: if the vocabularies of split and model differ, the metric is unknown, or
            validation is empty.

    Examples:
        >>> choose_source_weights(model, split)                             # doctest: +SKIP
        {'id': 4.0, 'text': 1.0, 'image': 1.0}
    """
    check_same_items(model, split)
    name, cut = metric_and_cut(metric)
    model.source_weights = None
    if len(model.sources) < 2:
        return model.source_weights
    of_rank = [METRICS[name](torch.tensor([rank]), cut) for rank in range(1, cut + 1)]
    gain_of_rank = torch.tensor([*of_rank, 0.0])  # of ranks 1..cut, and of all others
    queries = EncodedQueries(
        model, split.validation, exclude_seen=exclude_seen, batch_size=batch_size
    )

    def gains(weights: Mapping[str, float]) -> torch.Tensor:
        return gain_of_rank[queries.ranks(weights).clamp(max=cut + 1) - 1]  # (Q,)

    best = dict.fromkeys(model.sources, 1.0)
    most = of_equal = gains(best)
    for source in model.sources:
        tried = [{**best, source: weight} for weight in WEIGHTS]
        found = [gains(weights) for weights in tried]
        place = max(range(len(found)), key=lambda number: float(found[number].mean()))
        if found[place].mean() > most.mean():
            best, most = tried[place], found[place]
    difference = (most - of_equal).double()
    if len(difference) > 1 and float(difference.mean()) > CLEARLY * _standard_error(difference):
        model.source_weights = best
    return model.source_weights


def _standard_error(values: torch.Tensor) -> float:
    """The standard error of the mean of values (Q,), Q > 1."""
    return float(values.std()) / math.sqrt(len(values))
