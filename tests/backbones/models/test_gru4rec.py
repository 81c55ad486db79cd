"""GRU4Rec compared with a loop over items, and in cases with a closed form.

Letters: B users, L positions, D hidden size, U units.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from twins import assert_close_to_twin

from odmt_sdk.backbones.models.gru4rec import GRU4Rec


def twin(backbone, row):
    """The equations for one sequence without padding, (L, D) -> (L, D)."""
    for layer in range(backbone.gru.num_layers):
        weights = {name: getattr(backbone.gru, f"{name}_l{layer}") for name in NAMES}
        w_r, w_z, w_n = weights["weight_ih"].chunk(3)
        u_r, u_z, u_n = weights["weight_hh"].chunk(3)
        b_r, b_z, b_n = weights["bias_ih"].chunk(3)
        c_r, c_z, c_n = weights["bias_hh"].chunk(3)
        state, states = torch.zeros(len(u_r), dtype=row.dtype), []
        for item in row:
            reset = torch.sigmoid(w_r @ item + b_r + u_r @ state + c_r)
            keep = torch.sigmoid(w_z @ item + b_z + u_z @ state + c_z)
            candidate = torch.tanh(w_n @ item + b_n + reset * (u_n @ state + c_n))
            state = keep * state + (1 - keep) * candidate
            states.append(state)
        row = torch.stack(states)
    return row @ backbone.feed_forward.weight.T + backbone.feed_forward.bias


NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


@given(
    lengths=st.lists(st.integers(0, 5), min_size=1, max_size=4),
    num_layers=st.integers(1, 2),
    num_units=st.sampled_from([None, 3]),
)
@settings(max_examples=30)
def test_equals_its_twin(lengths, num_layers, num_units):
    backbone = GRU4Rec(4, num_layers=num_layers, num_units=num_units)
    assert_close_to_twin(backbone, twin, lengths)


def test_half_open_gates_halve_the_distance_to_the_candidate():
    backbone = GRU4Rec(3, dropout=0.0)
    with torch.no_grad():
        for parameter in backbone.gru.parameters():
            parameter.zero_()
        backbone.gru.bias_ih_l0[6:] = 0.7  # the candidate is tanh(0.7) for any input
        backbone.feed_forward.weight.copy_(torch.eye(3))
    hidden = backbone(torch.randn(2, 6, 3), torch.tensor([[1] * 6, [0, 0, 1, 1, 1, 1]]))
    steps = torch.tensor([[1, 2, 3, 4, 5, 6], [0, 0, 1, 2, 3, 4]])
    expected = (1 - 0.5**steps) * torch.tensor(0.7).tanh()
    torch.testing.assert_close(hidden, expected.unsqueeze(-1).expand(-1, -1, 3))


def test_every_gate_is_drawn_for_its_own_shape():
    backbone = GRU4Rec(200, num_units=100)
    for matrix, fan in ((backbone.gru.weight_ih_l0, 300), (backbone.gru.weight_hh_l0, 200)):
        for gate in matrix.chunk(3):
            bound = (6 / fan) ** 0.5
            assert 0.95 * bound < gate.abs().max() <= bound
            assert gate.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
    assert not backbone.gru.bias_ih_l0.any()
    assert not backbone.gru.bias_hh_l0.any()
    assert not backbone.feed_forward.bias.any()


def test_one_layer_gives_no_warning(recwarn):
    GRU4Rec(4, num_layers=1, dropout=0.5)
    assert not recwarn.list
