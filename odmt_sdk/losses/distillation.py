"""Distillation between two predictions, and the schedule of its weight.

Letters: P positions, U candidates.
"""

import math

import torch

from odmt_sdk.scoring import score_type


def distillation_loss(
    student_logits: torch.Tensor,
    teacher_logits: torch.Tensor,
    *,
    temperature: float,
    log_multiplicity: torch.Tensor | None = None,
) -> torch.Tensor:
    """Cross entropy of the student's softened prediction under the teacher's.

    `-sum softmax(t / tau) log_softmax(s / tau) tau^2`, averaged over positions, where a candidate
    with multiplicity c stands for c equal ones: with `p = softmax(t / tau + log c)` and
    `lse = logsumexp(s / tau + log c)` it is `lse - sum p s / tau`.

    Args:
        student_logits: (P, U).
        teacher_logits: (P, U); detach it to keep gradients from the teacher.
        temperature: tau > 0.
        log_multiplicity: (P, U) log of how often a candidate counts, -inf = not at all; None =
            every candidate counts once.

    Returns:
        Scalar; 0 where P is 0.

    Raises:
        ValueError: if `temperature` is not positive.

    Source: section 3.3 of the paper, https://arxiv.org/abs/2308.04067, after Hinton et al. 2015,
    https://arxiv.org/abs/1503.02531.
    """
    if not temperature > 0:
        raise ValueError(f"temperature={temperature} must be greater than 0")
    if not len(student_logits):
        return student_logits.sum() * 0.0 + teacher_logits.sum() * 0.0
    dtype = score_type(student_logits, teacher_logits)
    student = student_logits.to(dtype) / temperature
    teacher = teacher_logits.to(dtype) / temperature
    if log_multiplicity is None:
        normaliser = student.logsumexp(-1)
    else:
        teacher = teacher + log_multiplicity
        normaliser = (student + log_multiplicity).logsumexp(-1)
    expected = (teacher.softmax(-1) * student).sum(-1)
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
