"""The distillation loss between a student and a teacher, and the warm-up of its weight.

Letters: P positions, U candidates.
"""

import math

import torch

from odmt_sdk.scoring import score_type


def softened_logits(
    logits: torch.Tensor, temperature: float, log_multiplicity: torch.Tensor | None = None
) -> torch.Tensor:
    """Divide logits by the temperature and account for candidates that count several times.

    Args:
        logits: (P, U).
        temperature: tau > 0.
        log_multiplicity: (P, U) log of the number of times each candidate counts; -inf excludes
            it. None = every candidate counts once.

    Returns:
        (P, U) `logits / tau + log_multiplicity`, in float32 at least.

    Raises:
        ValueError: if `temperature` is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"temperature={temperature} must be greater than 0")
    if log_multiplicity is not None:
        return torch.add(log_multiplicity, logits, alpha=1 / temperature)
    logits = logits.to(score_type(logits))
    return logits if temperature == 1 else logits / temperature


def distillation_loss(
    student_logits: torch.Tensor,
    teacher: torch.Tensor,
    normaliser: torch.Tensor,
    *,
    temperature: float,
) -> torch.Tensor:
    """Cross-entropy between the softened predictions of teacher and student.

    The loss is `-sum softmax(t / tau) log_softmax(s / tau) tau^2`, averaged over positions. A
    candidate with multiplicity c stands for c equal candidates: with the teacher
    `p = softmax(t / tau + log c)` and the normaliser `lse = logsumexp(s / tau + log c)`, the loss
    per position is `(lse - sum p s / tau) tau^2`. Both are arguments because they can be reused:
    several students share a teacher, and at tau = 1 the cross-entropy on labels has the same
    normaliser.

    Args:
        student_logits: (P, U).
        teacher: (P, U) `softened_logits(...).softmax(-1)` of the teacher. Detach it if the teacher
            should receive no gradient.
        normaliser: (P,) `softened_logits(...).logsumexp(-1)` of the student.
        temperature: tau > 0, the same for both.

    Returns:
        Scalar; 0 if there are no positions.

    Source: section 3.3 of the paper, https://arxiv.org/abs/2308.04067, after Hinton et al. 2015,
    https://arxiv.org/abs/1503.02531.
    """
    if not len(student_logits):
        return student_logits.sum() * 0.0 + teacher.sum() * 0.0
    expected = (teacher * student_logits).sum(-1) / temperature
    return (normaliser - expected).mean() * temperature**2


def warmup_weight(epoch: float | None, *, weight: float, warmup_epochs: float) -> float:
    """Weight of the distillation loss at a given point of training.

    Args:
        epoch: epochs completed, as a fraction; 0.0 is the start of training, where the weight is
            smallest. None = the full weight.
        weight: weight after the warm-up.
        warmup_epochs: length A of the warm-up in epochs; 0 = no warm-up.

    Returns:
        `weight * exp(-5 (1 - min(epoch, A) / A)^2)`; `weight` without a warm-up.

    Raises:
        ValueError: if `epoch` is negative or NaN.

    Source: section 4.1 of the paper, https://arxiv.org/abs/2308.04067, after Laine and Aila 2017,
    https://arxiv.org/abs/1610.02242.
    """
    if epoch is None or warmup_epochs <= 0:
        return weight
    if not epoch >= 0:
        raise ValueError(
            f"epoch={epoch} must be at least 0 (epochs completed), or None for the full weight"
        )
    remaining = 1 - min(epoch, warmup_epochs) / warmup_epochs
    return weight * math.exp(-5 * remaining**2)
