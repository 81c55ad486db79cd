"""The contract of the package's backbones, beyond the contract of every bridge.

Letters: B users, L positions, D hidden size.
"""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rounding import assert_rounded
from safetensors.torch import load, save
from torch.nn.utils.rnn import pad_sequence

from odmt_sdk.backbones.models.gru4rec import GRU4Rec
from odmt_sdk.backbones.models.hstu import HSTU
from odmt_sdk.backbones.models.mamba import Mamba2
from odmt_sdk.backbones.models.nextitnet import NextItNet
from odmt_sdk.backbones.signature.hidden_size import infer_hidden_size

WIDTH, LONGEST = 8, 10
LAYERS = 2  # of the deepest model
BUILDERS = {
    "gru4rec": lambda: GRU4Rec(WIDTH, num_layers=2, num_units=6),
    "nextitnet": lambda: NextItNet(WIDTH, dilations=(1, 2)),
    "hstu": lambda: HSTU(WIDTH, num_heads=2, max_seq_length=LONGEST),
    "mamba2": lambda: Mamba2(WIDTH),
}
every_backbone = pytest.mark.parametrize("name", BUILDERS)
lengths_of_rows = st.lists(st.integers(0, LONGEST), min_size=1, max_size=4)


def build(name):
    """Build a backbone in eval mode without weights of zero or one."""
    backbone = BUILDERS[name]().eval()
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return backbone


def left_padded(rows):
    """Rows (its length, D) -> embeddings (B, L, D) with zeros before them, mask (B, L)."""
    mask = [torch.ones(len(row), dtype=torch.long) for row in rows]
    return (
        pad_sequence(rows, batch_first=True, padding_side="left"),
        pad_sequence(mask, batch_first=True, padding_side="left"),
    )


def full(*shape):
    return torch.randn(*shape, WIDTH), torch.ones(*shape, dtype=torch.long)


@every_backbone
def test_says_its_width(name):
    backbone = build(name)
    assert backbone.hidden_size == infer_hidden_size(backbone) == WIDTH


@every_backbone
@given(lengths=lengths_of_rows)
@settings(max_examples=15)
def test_padding_changes_nothing(name, lengths):
    backbone = build(name)
    embeds, mask = left_padded([torch.randn(length, WIDTH) for length in [*lengths, LONGEST]])
    embeds = embeds.masked_fill(mask.unsqueeze(-1) == 0, 0) + 9 * (mask.unsqueeze(-1) == 0)
    with torch.no_grad():
        hidden = backbone(embeds, mask)
        assert hidden.shape == embeds.shape
        assert not hidden[mask == 0].any()
        for row, length in enumerate(lengths):
            if length:
                alone = backbone(
                    embeds[row : row + 1, -length:], torch.ones(1, length, dtype=torch.long)
                )
                torch.testing.assert_close(hidden[row, -length:], alone[0], atol=1e-5, rtol=1e-4)


@every_backbone
def test_even_nan_at_padding_changes_nothing(name):
    backbone = build(name)
    clean, mask = left_padded([torch.randn(length, WIDTH) for length in (2, 0, 5)])
    dirty = clean.masked_fill(mask.unsqueeze(-1) == 0, float("nan")).requires_grad_()
    hidden = backbone(dirty, mask)
    torch.testing.assert_close(hidden, backbone(clean, mask), atol=0, rtol=0)
    hidden[mask.bool()].sum().backward()
    assert dirty.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in backbone.parameters())


@every_backbone
@given(length=st.integers(2, LONGEST), data=st.data())
@settings(max_examples=10)
def test_no_position_sees_a_later_one(name, length, data):
    changed_at = data.draw(st.integers(1, length - 1))
    backbone = build(name)
    embeds, mask = full(2, length)
    mask[1, : changed_at // 2] = 0
    changed = embeds.clone()
    changed[:, changed_at:] = torch.randn_like(changed[:, changed_at:])
    with torch.no_grad():
        before, after = backbone(embeds, mask), backbone(changed, mask)
    torch.testing.assert_close(before[:, :changed_at], after[:, :changed_at], atol=1e-6, rtol=1e-5)
    moved = (before[:, changed_at] - after[:, changed_at]).abs().amax(-1)
    assert (moved > 1e-4).all()


@every_backbone
def test_rows_do_not_see_one_another(name):
    backbone = build(name)
    embeds, mask = left_padded([torch.randn(length, WIDTH) for length in (3, 5, 0, 1)])
    order = [2, 0, 3, 1]
    with torch.no_grad():
        torch.testing.assert_close(
            backbone(embeds, mask)[order],
            backbone(embeds[order], mask[order]),
            atol=1e-6,
            rtol=1e-5,
        )


@every_backbone
@pytest.mark.parametrize("length", [1, LONGEST])
def test_shortest_and_longest(name, length):
    hidden = build(name)(*full(3, length))
    assert hidden.shape == (3, length, WIDTH)
    assert hidden.isfinite().all()


@every_backbone
def test_gradient_reaches_everything(name):
    backbone = build(name).train()
    embeds, mask = full(4, LONGEST)
    embeds.requires_grad_()
    (backbone(embeds, mask) * torch.randn(4, LONGEST, WIDTH)).sum().backward()
    assert (embeds.grad.abs().amax(-1) > 0).all()
    for parameter_name, parameter in backbone.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


@every_backbone
def test_bfloat16(name):
    backbone = build(name)
    embeds, mask = left_padded([torch.randn(length, WIDTH) for length in (4, 0, 7)])
    expected = backbone(embeds, mask)
    hidden = copy.deepcopy(backbone).bfloat16()(embeds.bfloat16(), mask)
    assert hidden.dtype == torch.bfloat16
    real = mask.bool()
    assert_rounded(hidden[real], expected[real], torch.bfloat16, LAYERS)


@every_backbone
def test_autocast(name):
    backbone = build(name)
    embeds, mask = full(2, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = backbone(embeds, mask)
    expected = backbone(embeds, mask)
    assert_rounded(hidden, expected, torch.bfloat16, LAYERS)
    hidden.float().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in backbone.parameters())


@every_backbone
def test_saved_and_reloaded(name):
    backbone, other = build(name), build(name)
    batch = full(2, 5)
    assert not torch.equal(backbone(*batch), other(*batch))
    other.load_state_dict(load(save(backbone.state_dict())))
    assert torch.equal(backbone(*batch), other(*batch))


@every_backbone
def test_dropout_only_while_training(name):
    backbone, batch = build(name), full(2, 5)
    assert torch.equal(backbone(*batch), backbone(*batch))
    backbone.train()
    assert not torch.equal(backbone(*batch), backbone(*batch))


@every_backbone
def test_drawing_new_weights_forgets_all_old_ones(name):
    backbone, fresh = build(name), BUILDERS[name]()
    for each in (backbone, fresh):
        torch.manual_seed(3)
        each.reset_parameters()
    for key, value in fresh.state_dict().items():
        assert torch.equal(value, backbone.state_dict()[key]), key


@pytest.mark.slow
@every_backbone
def test_compiles(name):
    backbone = build(name)
    batch = left_padded([torch.randn(length, WIDTH) for length in (4, 0, 7)])
    torch._dynamo.reset()
    compiled = torch.compile(backbone, backend="aot_eager")
    torch.testing.assert_close(compiled(*batch), backbone(*batch), atol=1e-5, rtol=1e-4)
