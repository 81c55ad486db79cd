"""NextItNet compared with a loop over positions, and the receptive field of its convolutions.

Letters: B users, L positions, D hidden size.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from twins import assert_close_to_twin

from odmt_sdk.backbones.models.nextitnet import NextItNet


def twin(backbone, row):
    """The equations for one sequence without padding, (L, D) -> (L, D)."""
    for block in backbone.blocks:
        update = row
        for convolution, norm in ((block.near, block.near_norm), (block.far, block.far_norm)):
            taps, (dilation,) = convolution.kernel_size[0], convolution.dilation
            convolved = []
            for position in range(len(row)):
                total = convolution.bias
                for tap in range(taps):
                    source = position - (taps - 1 - tap) * dilation
                    if source >= 0:
                        total = total + convolution.weight[:, :, tap] @ update[source]
                centred = total - total.mean()
                scaled = centred / (centred.square().mean() + norm.eps).sqrt()
                convolved.append((norm.weight * scaled + norm.bias).clamp(min=0))
            update = torch.stack(convolved)
        row = row + update
    return row


@given(
    lengths=st.lists(st.integers(0, 8), min_size=1, max_size=4),
    kernel_size=st.integers(1, 3),
    dilations=st.lists(st.integers(1, 3), max_size=3),
)
@settings(max_examples=30)
def test_equals_its_twin(lengths, kernel_size, dilations):
    backbone = NextItNet(4, kernel_size=kernel_size, dilations=dilations)
    assert_close_to_twin(backbone, twin, lengths)


def test_without_weights_it_is_the_identity():
    backbone = NextItNet(4, dropout=0.0)
    with torch.no_grad():
        for block in backbone.blocks:
            block.near.weight.zero_()
            block.far.weight.zero_()
    embeds = torch.randn(2, 5, 4)
    assert torch.equal(backbone(embeds, torch.ones(2, 5)), embeds)


@pytest.mark.parametrize(
    ("kernel_size", "dilations", "reach"), [(3, (1,), 6), (2, (1, 2), 9), (3, (1, 2, 1, 2), 36)]
)
def test_reads_exactly_as_far_as_it_says(kernel_size, dilations, reach):
    backbone = NextItNet(16, kernel_size=kernel_size, dilations=dilations, dropout=0.0)
    embeds = torch.randn(1, reach + 5, 16, requires_grad=True)
    (backbone(embeds, torch.ones(1, reach + 5))[0, -1] * torch.randn(16)).sum().backward()
    read = embeds.grad[0].abs().amax(-1) > 0
    assert read.tolist() == [False] * 4 + [True] * (reach + 1)


def test_starts_as_in_the_program():
    block = NextItNet(64).blocks[0]
    assert block.near.weight.abs().max() <= 0.04
    assert block.near.weight.std().item() == pytest.approx(0.02 * 0.88, rel=0.02)  # cut at 2 sigma
    assert not block.far.bias.any()
    assert (block.far_norm.weight == 1).all()


@pytest.mark.parametrize("wrong", [{"kernel_size": 0}, {"dilations": (1, 0)}])
def test_refuses_what_reads_nothing(wrong):
    with pytest.raises(ValueError, match="must be at least 1; a dilation of 1 reads neighbouring"):
        NextItNet(4, **wrong)
