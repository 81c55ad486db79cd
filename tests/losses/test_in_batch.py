"""The in-batch softmax compared with a reference in which every position is a candidate."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from odmt_sdk.losses.in_batch import in_batch_candidates, in_batch_cross_entropy

sequences = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=6), min_size=1, max_size=5)


def left_padded(rows: list[list[int]]) -> torch.Tensor:
    length = max(map(len, rows))
    return torch.tensor([[0] * (length - len(row)) + row for row in rows])


def slot_losses(item_ids: torch.Tensor, score) -> list[torch.Tensor]:
    """One loss per position: all slots of the batch are candidates, those of the user's own
    sequence hidden but for the label. `score(user, position, item)` is the logit."""
    losses = []
    users, length = item_ids.shape
    for user in range(users):
        own = {int(i) for i in item_ids[user] if i}
        for position in range(length - 1):
            if not item_ids[user, position] or not item_ids[user, position + 1]:
                continue
            label = int(item_ids[user, position + 1])
            logits = [score(user, position, label)]
            for other in item_ids.flatten().tolist():
                if other and other not in own:
                    logits.append(score(user, position, other))
            losses.append(torch.stack(logits).logsumexp(0) - logits[0])
    return losses


@given(sequences)
def test_equals_the_slot_by_slot_loss(rows):
    item_ids = left_padded(rows)
    table = torch.randn(item_ids.shape[0], item_ids.shape[1], 10, dtype=torch.float64)
    expected = slot_losses(item_ids, lambda user, position, item: table[user, position, item])

    candidates = in_batch_candidates(item_ids, item_ids != 0)
    logits = table[:, :-1][candidates.valid][:, candidates.item_ids]
    loss = in_batch_cross_entropy(
        logits, candidates.labels, candidates.log_multiplicity.double()
    ).loss
    assert len(candidates.labels) == len(expected)
    if expected:
        torch.testing.assert_close(
            loss.double(), torch.stack(expected).mean(), rtol=1e-6, atol=1e-6
        )
    else:
        assert loss == 0


def test_closed_form():
    # two users without common items: the candidates are the label and the other user's two items
    item_ids = torch.tensor([[1, 2], [3, 4]])
    candidates = in_batch_candidates(item_ids, item_ids != 0)
    loss = in_batch_cross_entropy(
        torch.zeros(2, 4), candidates.labels, candidates.log_multiplicity
    ).loss
    torch.testing.assert_close(loss, torch.tensor(3.0).log())


def test_a_repeated_candidate_counts_as_often_as_it_stands():
    item_ids = torch.tensor([[0, 1, 2], [3, 3, 3]])
    candidates = in_batch_candidates(item_ids, item_ids != 0)
    first = candidates.log_multiplicity[0].exp()
    assert first[candidates.item_ids == 3].item() == pytest.approx(3)
    assert first[candidates.item_ids == 2].item() == 1
    assert first[candidates.item_ids == 1].item() == 0


@given(sequences, st.randoms(use_true_random=False))
def test_the_order_of_users_does_not_matter(rows, random):
    def loss(rows):
        item_ids = left_padded(rows)
        candidates = in_batch_candidates(item_ids, item_ids != 0)
        before = item_ids[:, :-1][candidates.valid]  # a logit that depends only on the items
        logits = torch.sin(before[:, None] * 3.0 + candidates.item_ids)
        return in_batch_cross_entropy(logits, candidates.labels, candidates.log_multiplicity).loss

    shuffled = list(rows)
    random.shuffle(shuffled)
    torch.testing.assert_close(loss(rows), loss(shuffled))


def test_padding_on_the_right_is_the_same_as_on_the_left():
    left, right = torch.tensor([[0, 1, 2], [3, 4, 5]]), torch.tensor([[1, 2, 0], [3, 4, 5]])
    a, b = in_batch_candidates(left, left != 0), in_batch_candidates(right, right != 0)
    assert torch.equal(a.labels, b.labels)
    assert torch.equal(a.log_multiplicity, b.log_multiplicity)


@given(sequences, st.randoms(use_true_random=False), st.booleans())
def test_padding_anywhere_is_the_same_as_on_the_left(rows, random, last_only):
    left = left_padded(rows)
    length = left.shape[1] + 2
    scattered = torch.zeros(len(rows), length, dtype=torch.int32)
    for user, row in enumerate(rows):
        scattered[user, sorted(random.sample(range(length), len(row)))] = torch.tensor(row).int()
    expected = in_batch_candidates(left, left != 0, last_only=last_only)
    # row 0 is padding, regardless of the mask
    for mask in (scattered != 0, torch.ones_like(scattered)):
        found = in_batch_candidates(scattered, mask, last_only=last_only)
        for name in ("item_ids", "labels", "users", "log_counts", "log_multiplicity"):
            assert torch.equal(getattr(found, name), getattr(expected, name)), name
        inputs = [items[:, :-1].flatten() for items in (scattered, left)]
        read, wanted = inputs[0][found.positions], inputs[1][expected.positions]
        assert torch.equal(read.long(), wanted)


def test_parts_of_the_positions_put_together_are_all():
    item_ids = torch.tensor([[1, 2, 3, 1], [0, 2, 4, 5]])
    whole = in_batch_candidates(item_ids, item_ids != 0)
    parts = [whole.part(start, 2) for start in range(0, 5, 2)]
    assert [len(part.labels) for part in parts] == [2, 2, 1]
    together = torch.cat([part.log_multiplicity for part in parts])
    assert torch.equal(together, whole.log_multiplicity)


def test_gradient():
    item_ids = torch.tensor([[1, 2, 3], [0, 2, 4]])
    candidates = in_batch_candidates(item_ids, item_ids != 0)
    bias = candidates.log_multiplicity.double().clamp(min=-60)
    logits = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)

    def loss(z):
        return torch.nn.functional.cross_entropy(z + bias, candidates.labels)

    (expected,) = torch.autograd.grad(loss(logits), logits)
    got = in_batch_cross_entropy(
        logits.float(), candidates.labels, candidates.log_multiplicity
    ).loss
    (gradient,) = torch.autograd.grad(got, logits)
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6)


def test_a_batch_without_any_label_gives_zero_and_a_gradient():
    item_ids = torch.tensor([[0, 1], [0, 0]])
    candidates = in_batch_candidates(item_ids, item_ids != 0)
    logits = torch.zeros(0, 1, requires_grad=True)
    loss = in_batch_cross_entropy(logits, candidates.labels, candidates.log_multiplicity).loss
    loss.backward()
    assert loss == 0
    assert logits.grad is not None
