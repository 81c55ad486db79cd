"""Mamba-2 compared with a loop over items, and the decay of its state.

Letters: B users, L positions, D hidden size, H heads.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from twins import assert_close_to_twin

from odmt_sdk.backbones.models.mamba import CHUNK_SIZE, Mamba2


def twin(backbone, row):
    """The recurrence for one sequence without padding, (L, D) -> (L, D)."""
    for block in backbone.model.layers:
        mixer = block.mixer
        heads, size = len(mixer.A_log), mixer.ssm_state_size
        channels = mixer.out_proj.in_features
        taps = mixer.conv1d.weight[:, 0]  # (channels + 2 size, taps)
        decay_rate = mixer.A_log.exp()
        state = torch.zeros(heads, channels // heads, size)
        before = [torch.zeros(len(taps))] * (taps.shape[1] - 1)
        updates = []
        for hidden in row:
            projected = mixer.in_proj.weight @ rms(block.norm, hidden)
            gate, mixed, step = projected.split([channels, len(taps), heads])
            before = [*before, mixed]
            window = torch.stack(before[-taps.shape[1] :], 1)
            x, b, c = F.silu((taps * window).sum(1) + mixer.conv1d.bias).split(
                [channels, size, size]
            )
            x, step = x.view(heads, -1), F.softplus(step + mixer.dt_bias)
            kept = (-step * decay_rate).exp().view(-1, 1, 1) * state
            state = kept + torch.einsum("h,hk,n->hkn", step, x, b)
            y = state @ c + mixer.D[:, None] * x  # (H, channels / H)
            updates.append(mixer.out_proj.weight @ rms(mixer.norm, y.flatten() * F.silu(gate)))
        row = row + torch.stack(updates)
    return torch.stack([rms(backbone.model.norm_f, hidden) for hidden in row])


def rms(norm, x):
    return norm.weight * x / (x.square().mean() + norm.variance_epsilon).sqrt()


@given(
    lengths=st.lists(st.integers(0, CHUNK_SIZE + 2), min_size=1, max_size=3),
    num_heads=st.sampled_from([1, 2]),
)
@settings(max_examples=8)
def test_equals_its_twin(lengths, num_heads):
    backbone = Mamba2(4, num_heads=num_heads, state_size=3, conv_kernel=3)
    assert_close_to_twin(backbone, twin, lengths, dtype=torch.float32, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(("step", "remembers"), [(-60.0, False), (1.0, True)])
def test_steps_of_no_length_remember_nothing(step, remembers):
    backbone = Mamba2(4, num_layers=1, conv_kernel=1).eval()
    with torch.no_grad():
        backbone.model.layers[0].mixer.dt_bias.fill_(step)
    embeds = torch.randn(1, 6, 4)
    other = embeds.clone()
    other[:, :5] = torch.randn(1, 5, 4)
    last, other_last = (backbone(x, torch.ones(1, 6))[:, -1] for x in (embeds, other))
    assert torch.allclose(last, other_last, atol=1e-6) is not remembers


def test_holds_no_token_embedding():
    names = Mamba2(8).state_dict()
    assert names
    assert not any("embed" in name for name in names)


def test_refuses_heads_that_do_not_divide_the_width():
    with pytest.raises(ValueError, match="hidden_size=8 is not divisible by num_heads=3"):
        Mamba2(8, num_heads=3)
