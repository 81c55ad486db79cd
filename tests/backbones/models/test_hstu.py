"""HSTU compared with a loop over pairs of positions, and in cases with a closed form.

Letters: B users, L positions, D hidden size.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from twins import assert_close_to_twin

from odmt_sdk.backbones.models.hstu import HSTU


def twin(backbone, row):
    """Equations (1) to (3) for one sequence without padding, (L, D) -> (L, D)."""
    width = row.shape[1]
    for unit in backbone.units:
        gates, values, queries, keys = [], [], [], []
        for hidden in row:
            projected = silu(unit.projection.weight @ normed(hidden))
            for kept, part in zip(
                (gates, values, queries, keys), projected.split(width), strict=True
            ):
                kept.append(part)
        updates = []
        for position in range(len(row)):
            attended = torch.zeros(width, dtype=row.dtype)
            for head in torch.arange(width).chunk(unit.num_heads):
                for other in range(position + 1):
                    score = queries[position][head] @ keys[other][head]
                    score = score + unit.position_bias[position - other]
                    attended[head] += silu(score) / backbone.max_seq_length * values[other][head]
            gated = normed(attended) * gates[position]
            updates.append(unit.output.weight @ gated + unit.output.bias)
        row = row + torch.stack(updates)
    return row


def silu(x):
    return x / (1 + (-x).exp())


def normed(x):
    centred = x - x.mean()
    return centred / (centred.square().mean() + 1e-6).sqrt()


@given(
    lengths=st.lists(st.integers(0, 7), min_size=1, max_size=3),
    num_layers=st.integers(1, 2),
    num_heads=st.sampled_from([1, 2, 4]),
)
@settings(max_examples=25)
def test_equals_its_twin(lengths, num_layers, num_heads):
    backbone = HSTU(4, num_layers=num_layers, num_heads=num_heads, max_seq_length=7)
    assert_close_to_twin(backbone, twin, lengths)


def test_without_queries_it_sums_the_values_that_the_bias_lets_through():
    backbone = HSTU(4, num_layers=1, max_seq_length=6, dropout=0.0)
    (unit,) = backbone.units
    with torch.no_grad():
        unit.projection.weight.normal_()
        unit.projection.weight[8:] = 0  # queries and keys
        unit.position_bias.copy_(torch.tensor([-200.0, 3, 3, -200, -200, -200]))
    embeds = torch.randn(1, 6, 4)
    gate, value = F.silu(unit.projection(F.layer_norm(embeds, (4,)))).split(4, -1)[:2]
    one_back, two_back = (F.pad(value, (0, 0, back, 0))[:, :6] for back in (1, 2))
    attended = F.silu(torch.tensor(3.0)) / 6 * (one_back + two_back)
    expected = embeds + unit.output(F.layer_norm(attended, (4,), eps=1e-6) * gate)
    torch.testing.assert_close(backbone(embeds, torch.ones(1, 6)), expected, atol=1e-4, rtol=1e-4)


def test_the_position_bias_is_read_by_distance():
    backbone = HSTU(4, max_seq_length=9)
    length = 5
    backbone(torch.randn(2, length, 4), torch.ones(2, length)).square().sum().backward()
    for unit in backbone.units:
        assert (unit.position_bias.grad != 0).tolist() == [True] * length + [False] * 4


def test_starts_as_in_the_program():
    (unit,) = HSTU(64, num_layers=1, max_seq_length=2000).units
    assert unit.projection.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert unit.position_bias.std().item() == pytest.approx(0.02, rel=0.1)
    assert unit.output.weight.abs().max() <= (6 / 128) ** 0.5
    assert not unit.output.bias.any()


def test_refuses_sequences_longer_than_its_table():
    with pytest.raises(ValueError, match="6 positions exceed max_seq_length=5: cut them"):
        HSTU(4, max_seq_length=5)(torch.randn(1, 6, 4), torch.ones(1, 6))


def test_refuses_heads_that_do_not_divide_the_width():
    with pytest.raises(ValueError, match="hidden_size=8 is not divisible by num_heads=3"):
        HSTU(8, num_heads=3)
