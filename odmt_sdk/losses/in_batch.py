"""In-batch softmax loss: every item of the batch is a candidate for every position.

The paper uses each slot of the batch as a candidate, so an item that occurs c times counts c times.
Here the candidates are distinct and `log c` is added to the logit, which gives the same loss:
`cross_entropy(Z + log c)`.

The number of distinct items and of labelled positions depends on the data, so finding them makes
the CPU wait for the GPU. This happens once per step, while the candidates are found and the GPU has
little work queued.

Letters: B users, L slots of a sequence (inputs and the final target), P valid positions, U distinct
items.
"""

from typing import NamedTuple

import torch
from torch.nn import functional as F

from odmt_sdk.scoring import score_type


class InBatchCandidates(NamedTuple):
    """The candidates and labels of a batch of sequences.

    Args:
        item_ids: (U,) distinct rows, in ascending order.
        columns: (B, L) index into `item_ids` of each slot; 0 at padding.
        valid: boolean (B, L - 1), True for inputs that have a next item; P of them are True.
        positions: (P,) indices of the valid positions in the flattened `valid`.
        labels: (P,) index into `item_ids` of the next item.
        users: (P,) index of the sequence that each position belongs to.
        log_counts: (B, U) log of the number of times a candidate counts for a sequence: -inf for
            the items of the sequence itself, log c otherwise.
    """

    item_ids: torch.Tensor
    columns: torch.Tensor
    valid: torch.Tensor
    positions: torch.Tensor
    labels: torch.Tensor
    users: torch.Tensor
    log_counts: torch.Tensor

    @property
    def log_multiplicity(self) -> torch.Tensor:
        """(P, U) log of the number of times a candidate counts: `log_counts`, but 0 for the label.

        It is computed on each access. Use `part(...).log_multiplicity` if the tensor for all
        positions takes too much memory.
        """
        expanded = self.log_counts[self.users]  # (B, U) -> (P, U)
        return expanded.scatter_(1, self.labels[:, None], 0.0)

    def part(self, start: int, size: int) -> "InBatchCandidates":
        """The same candidates for a range of positions.

        Args:
            start: first position.
            size: number of positions; the last part may be shorter.

        Returns:
            Candidates with the `labels`, `users`, `positions` and `log_multiplicity` of these
            positions.
        """
        chosen = slice(start, start + size)
        return self._replace(
            positions=self.positions[chosen], labels=self.labels[chosen], users=self.users[chosen]
        )


def distinct_items(item_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """The distinct items of some sequences.

    Args:
        item_ids: (B, L) rows.
        attention_mask: boolean (B, L), True = real.

    Returns:
        (U,) in ascending order; only row 0, which is never a label, if everything is padding.
    """
    distinct = torch.unique(item_ids[attention_mask])
    return distinct if len(distinct) else item_ids.new_zeros(1)


def labelled_positions(attention_mask: torch.Tensor, *, last_only: bool = False) -> torch.Tensor:
    """Mark the inputs that have a next item; padding between two items is skipped.

    Args:
        attention_mask: boolean (B, L), True = real.
        last_only: mark only the last such input of each sequence.

    Returns:
        Boolean (B, L - 1).
    """
    later = attention_mask.flip(1).cumsum(1).flip(1)  # (B, L) real slots from this one on
    return attention_mask[:, :-1] & (later[:, :-1] == 2 if last_only else later[:, :-1] > 1)


def in_batch_candidates(
    item_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    *,
    last_only: bool = False,
    users: slice | None = None,
) -> InBatchCandidates:
    """Find the candidates and labels of a batch.

    Padding may be anywhere, also between the items of a sequence: the next item of a position is
    the next real one. The place of the padding changes neither labels nor candidates.

    Args:
        item_ids: (B, L) rows, of any integer type; 0 is padding, whatever the mask says.
        attention_mask: boolean (B, L), True = real.
        last_only: use only the last item of each sequence as a label; all items stay candidates.
        users: the B sequences that have labels; None = all. The items of all sequences are
            candidates.

    Returns:
        The candidates.

    Source: section 3.4 of the paper, https://arxiv.org/abs/2308.04067. The items of the user's own
    sequence are masked as in the authors' program.
    """
    item_ids = item_ids.long()
    attention_mask = attention_mask.bool() & (item_ids != 0)
    real = attention_mask.flatten().nonzero().squeeze(1)  # indices into (B * L,)
    distinct, inverse, counts = torch.unique(
        item_ids.flatten()[real], return_inverse=True, return_counts=True
    )
    if not len(distinct):  # all padding: one candidate, which is never a label
        distinct, counts = item_ids.new_zeros(1), item_ids.new_ones(1)
    columns = torch.zeros_like(item_ids).flatten().index_copy(0, real, inverse).view_as(item_ids)
    if users is not None:
        columns, attention_mask = columns[users], attention_mask[users]
    valid = labelled_positions(attention_mask, last_only=last_only)
    positions = valid.flatten().nonzero().squeeze(1)  # (P,)
    length = max(valid.shape[1], 1)
    of_user = positions // length
    following = _following(attention_mask)[of_user, positions % length]  # (B, L - 1) -> (P,)
    labels = columns[of_user, following]

    # The extra last column receives padding, so that padding never masks an item.
    own = torch.zeros(len(columns), len(distinct) + 1, dtype=torch.bool, device=item_ids.device)
    own.scatter_(1, columns.where(attention_mask, len(distinct)), True)
    log_counts = counts.to(torch.float32).log().masked_fill(own[:, :-1], -torch.inf)  # (B, U)
    return InBatchCandidates(distinct, columns, valid, positions, labels, of_user, log_counts)


def _following(attention_mask: torch.Tensor) -> torch.Tensor:
    """The slot of the next real item after each slot, (B, L - 1); L if there is none."""
    length = attention_mask.shape[1]
    slots = torch.arange(length, device=attention_mask.device)
    real = slots.where(attention_mask, length)  # (B, L)
    return real[:, 1:].flip(1).cummin(1).values.flip(1)


class CrossEntropy(NamedTuple):
    """A cross-entropy loss and its normaliser.

    Args:
        loss: scalar, the mean over positions; 0 if there are none.
        normaliser: (P,) logsumexp of the logits.
    """

    loss: torch.Tensor
    normaliser: torch.Tensor


def in_batch_cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, log_multiplicity: torch.Tensor | None = None
) -> CrossEntropy:
    """Mean cross-entropy over candidates that may count several times.

    Args:
        logits: (P, U).
        labels: (P,) columns of `logits`; the multiplicity of a label must not be 0.
        log_multiplicity: (P, U), see `InBatchCandidates`; None = every candidate counts once.

    Returns:
        The loss and `(logits + log_multiplicity).logsumexp(-1)`. The normaliser is derived from the
        fused loss, because a separate `logsumexp` and its gradient take twice the time.
    """
    if log_multiplicity is not None:
        logits = logits + log_multiplicity
    logits = logits.to(score_type(logits))
    losses = F.cross_entropy(logits, labels, reduction="none")  # (P,)
    normaliser = losses + logits.gather(1, labels[:, None]).squeeze(1)
    return CrossEntropy(losses.mean() if len(labels) else logits.sum() * 0.0, normaliser)
