import torch
from hypothesis import given
from hypothesis import strategies as st

from odmt_sdk.backbones.bridges.right_padding import real_counts, restore, right_pad

masks = st.integers(1, 6).flatmap(
    lambda length: st.lists(
        st.lists(st.sampled_from([0, 1]), min_size=length, max_size=length), min_size=1, max_size=4
    )
)


@given(masks)
def test_real_positions_stand_in_front_in_their_order_and_come_back(mask):
    mask = torch.tensor(mask)
    embeds = torch.arange(mask.numel() * 2.0).reshape(*mask.shape, 2)
    padded, slots = right_pad(embeds, mask)
    assert torch.equal(restore(padded, slots), embeds)
    for row, real in enumerate(mask.bool()):
        assert torch.equal(padded[row, : real.sum()], embeds[row, real])


def test_gradients_go_to_where_values_came_from():
    embeds = torch.randn(2, 4, 3, dtype=torch.double, requires_grad=True)
    mask = torch.tensor([[0, 1, 0, 1], [0, 0, 0, 1]])
    assert torch.autograd.gradcheck(lambda x: right_pad(x, mask)[0], embeds)


def test_an_empty_row_counts_as_one_item():
    assert real_counts(torch.tensor([[0, 0, 0], [0, 1, 1]])).tolist() == [1, 2]
