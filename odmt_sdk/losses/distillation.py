"""Distillation between two predictions, and the schedule of its weight.

Letters: P positions, U candidates.
"""

import math

import torch

from odmt_sdk.scoring import score_type


def softened_logits(
    logits: torch.Tensor, temperature: float, log_multiplicity: torch.Tensor | None = None
) -> torch.Tensor:
    """Logits divided by the temperature, where a candidate may count several times.

    Args:
        logits: (P, U).
        temperature: tau > 0.
        log_multiplicity: (P, U) log of how often a candidate counts, -inf = not at all; None =
            every candidate counts once.

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
    """Cross entropy of the student's softened prediction under the teacher's.

    `-sum softmax(t / tau) log_softmax(s / tau) tau^2`, averaged over positions, where a candidate
    with multiplicity c stands for c equal ones: with the teacher `p = softmax(t / tau + log c)` and
    the normaliser `lse = logsumexp(s / tau + log c)` it is `lse - sum p s / tau`. Both are given,
    because students share teachers, and at tau = 1 the cross entropy has the same normaliser.

    Args:
        student_logits: (P, U).
        teacher: (P, U) `softened_logits(...).softmax(-1)` of the teacher; detach it to keep
            gradients from the teacher.
        normaliser: (P,) `softened_logits(...).logsumexp(-1)` of the student.
        temperature: tau > 0 of both.

    Returns:
        Scalar; 0 where P is 0.

    Source: section 3.3 of the paper, https://arxiv.org/abs/2308.04067, after Hinton et al. 2015,
    https://arxiv.org/abs/1503.02531.
    """
    if not len(student_logits):
        return student_logits.sum() * 0.0 + teacher.sum() * 0.0
    expected = (teacher * student_logits).sum(-1) / temperature
    return (normaliser - expected).mean() * temperature**2


def warmup_weight(epoch: float, *, weight: float, warmup_epochs: float) -> float:
    """Weight of the distillation loss at a moment of training.

    Args:
        epoch: epochs done, with a fraction; 0 at the start.
        weight: weight after the warm-up.
        warmup_epochs: length A of the warm-up in epochs; 0 = none.

    Returns:
        `weight * exp(-5 (1 - min(epoch, A) / A)^2)`.

    Source: section 4.1 of the paper, https://arxiv.org/abs/2308.04067, after Laine and Aila 2017,
    https://arxiv.org/abs/1610.02242.
    """
    if warmup_epochs <= 0:
        return weight
    remaining = 1 - min(max(epoch, 0.0), warmup_epochs) / warmup_epochs
    return weight * math.exp(-5 * remaining**2)
