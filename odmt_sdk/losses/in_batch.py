"""In-batch softmax: every item of the batch is a candidate for every position.

The paper takes each slot of the batch as a candidate, so an item standing in c slots counts c
times. Here candidates are distinct, and c enters as `log c` added to the logit, which gives the
same loss: `cross_entropy(Z + log c)`.

How many items are distinct and how many positions have labels is known from the data alone, so a
GPU has to be waited for. It happens while the candidates are found, before any work worth waiting
for is under way, and nowhere later in a step.

Letters: B users, L slots of a sequence (inputs and the final target), P valid positions, U distinct
items.
"""

from typing import NamedTuple

import torch
from torch.nn import functional as F

from odmt_sdk.scoring import score_type


class InBatchCandidates(NamedTuple):
    """The candidates of a batch of sequences.

    Args:
        item_ids: (U,) distinct rows.
        columns: (B, L) index into `item_ids` of each slot; 0 at padding.
        valid: boolean (B, L - 1), the inputs that have a next item; P of them.
        positions: (P,) where they are in `valid`, flattened.
        labels: (P,) index into `item_ids` of the next item.
        log_multiplicity: (P, U) log of how often a candidate counts: 0 for the label, -inf for
            the other items of the same sequence, log c otherwise.
    """

    item_ids: torch.Tensor
    columns: torch.Tensor
    valid: torch.Tensor
    positions: torch.Tensor
    labels: torch.Tensor
    log_multiplicity: torch.Tensor


def distinct_items(item_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """The distinct rows of some sequences.

    Args:
        item_ids: (B, L) rows.
        attention_mask: boolean (B, L), True = real.

    Returns:
        (U,) in rising order; row 0 alone where all is padding, which is nobody's label.
    """
    distinct = torch.unique(item_ids[attention_mask])
    return distinct if len(distinct) else item_ids.new_zeros(1)


def labelled_positions(attention_mask: torch.Tensor, *, last_only: bool = False) -> torch.Tensor:
    """The inputs that have a next item.

    Args:
        attention_mask: boolean (B, L), True = real.
        last_only: of each sequence only the last of them.

    Returns:
        Boolean (B, L - 1).
    """
    valid = attention_mask[:, :-1] & attention_mask[:, 1:]
    if last_only:
        valid = valid & (valid.flip(1).cumsum(1).flip(1) == 1)  # the last True of every row
    return valid


def in_batch_candidates(
    item_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    *,
    last_only: bool = False,
    users: slice | None = None,
) -> InBatchCandidates:
    """Find the candidates of a batch.

    Args:
        item_ids: (B, L) rows.
        attention_mask: boolean (B, L), True = real.
        last_only: take only the last item of each sequence as a label; all stay candidates.
        users: the sequences that have labels, B of them; None = all. The items of all sequences
            are candidates.

    Returns:
        The candidates.

    Source: section 3.4 of the paper, https://arxiv.org/abs/2308.04067; masking the items of the
    user's own sequence follows the authors' program.
    """
    real = attention_mask.flatten().nonzero().squeeze(1)  # places in (B * L,)
    distinct, inverse, counts = torch.unique(
        item_ids.flatten()[real], return_inverse=True, return_counts=True
    )
    if not len(distinct):  # all padding: one candidate that is nobody's label
        distinct, counts = item_ids.new_zeros(1), item_ids.new_ones(1)
    columns = torch.zeros_like(item_ids).flatten().index_copy(0, real, inverse).view_as(item_ids)
    if users is not None:
        columns, attention_mask = columns[users], attention_mask[users]
    valid = labelled_positions(attention_mask, last_only=last_only)
    positions = valid.flatten().nonzero().squeeze(1)  # (P,)
    user = positions // max(valid.shape[1], 1)
    labels = columns[:, 1:].flatten()[positions]  # (B, L - 1) -> (P,)

    own = torch.zeros(len(columns), len(distinct), dtype=torch.long, device=item_ids.device)
    own.scatter_add_(1, columns, attention_mask.long())  # padding adds nothing
    log_counts = counts.to(torch.float32).log()
    log_multiplicity = log_counts.masked_fill(own > 0, -torch.inf)[user]  # (B, U) -> (P, U)
    log_multiplicity.scatter_(1, labels[:, None], 0.0)
    return InBatchCandidates(distinct, columns, valid, positions, labels, log_multiplicity)


class CrossEntropy(NamedTuple):
    """A cross entropy and the normaliser that it is made of.

    Args:
        loss: scalar, the mean over positions; 0 where there are none.
        normaliser: (P,) logsumexp of the logits.
    """

    loss: torch.Tensor
    normaliser: torch.Tensor


def in_batch_cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, log_multiplicity: torch.Tensor | None = None
) -> CrossEntropy:
    """Mean cross entropy over candidates that count several times.

    Args:
        logits: (P, U).
        labels: (P,) columns of `logits`, whose multiplicity is not 0.
        log_multiplicity: (P, U), see `InBatchCandidates`; None = every candidate counts once.

    Returns:
        The loss and `(logits + log_multiplicity).logsumexp(-1)`, which comes of the kernel of the
        loss: `logsumexp` and its gradient take twice the time.
    """
    if log_multiplicity is not None:
        logits = logits + log_multiplicity
    logits = logits.to(score_type(logits))
    losses = F.cross_entropy(logits, labels, reduction="none")  # (P,)
    normaliser = losses + logits.gather(1, labels[:, None]).squeeze(1)
    return CrossEntropy(losses.mean() if len(labels) else logits.sum() * 0.0, normaliser)
