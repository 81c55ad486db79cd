import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from odmt_sdk.losses.distillation import (
    distillation_loss,
    softened_logits,
    warmup_weight,
)


def from_logits(student, teacher, temperature, log_multiplicity=None):
    """Compute the loss of a student with a teacher given by its logits."""
    p = softened_logits(teacher, temperature, log_multiplicity).softmax(-1)
    normaliser = softened_logits(student, temperature, log_multiplicity).logsumexp(-1)
    return distillation_loss(student, p, normaliser, temperature=temperature)


def twin(student, teacher, temperature, multiplicity):
    """Reference: repeat every candidate as often as it counts."""
    losses = []
    for row in range(len(student)):
        columns = [c for c in range(student.shape[1]) for _ in range(int(multiplicity[row, c]))]
        p = (teacher[row, columns] / temperature).softmax(0)
        q = (student[row, columns] / temperature).log_softmax(0)
        losses.append(-(p * q).sum() * temperature**2)
    return torch.stack(losses).mean()


@given(st.integers(1, 4), st.integers(1, 6), st.floats(0.1, 4), st.integers(0, 2**31), st.data())
def test_equals_candidates_written_out(positions, candidates, temperature, seed, data):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, positions, candidates, generator=generator).double()
    multiplicity = torch.randint(0, 4, (positions, candidates), generator=generator)
    multiplicity[:, data.draw(st.integers(0, candidates - 1))] = 1
    student.requires_grad_()
    teacher.requires_grad_()
    expected = twin(student, teacher, temperature, multiplicity)
    got = from_logits(student, teacher, temperature, multiplicity.log().float())
    torch.testing.assert_close(got.double(), expected, rtol=1e-4, atol=1e-5)
    wanted = torch.autograd.grad(expected, (student, teacher))
    for a, b in zip(torch.autograd.grad(got, (student, teacher)), wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_closed_form_of_equal_predictions():
    # a uniform teacher and student over n candidates: entropy log n
    loss = from_logits(torch.zeros(3, 8), torch.zeros(3, 8), temperature=2.0)
    torch.testing.assert_close(loss, torch.tensor(4 * math.log(8)))


def test_adding_a_constant_to_the_logits_changes_nothing():
    student, teacher = torch.randn(2, 4, 6)
    before = from_logits(student, teacher, temperature=0.5)
    after = from_logits(student + 3, teacher - 2, temperature=0.5)
    torch.testing.assert_close(before, after)


def test_a_batch_without_positions_gives_zero_and_a_gradient():
    student = torch.zeros(0, 3, requires_grad=True)
    loss = from_logits(student, torch.zeros(0, 3), temperature=1.0)
    loss.backward()
    assert loss == 0
    assert student.grad is not None


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan")])
def test_temperature_must_be_positive(temperature):
    with pytest.raises(ValueError, match=r"temperature=.* must be greater than 0"):
        softened_logits(torch.zeros(1, 2), temperature)


def test_warmup():
    assert warmup_weight(0, weight=2.0, warmup_epochs=10) == pytest.approx(2 * math.exp(-5))
    assert warmup_weight(5, weight=1.0, warmup_epochs=10) == pytest.approx(math.exp(-1.25))
    assert warmup_weight(10, weight=0.7, warmup_epochs=10) == 0.7
    assert warmup_weight(99, weight=0.7, warmup_epochs=10) == 0.7
    assert warmup_weight(0, weight=0.02, warmup_epochs=0) == 0.02
