import pytest
import torch

from odmt_sdk import SASRec
from odmt_sdk.backbones.models.one_state import can_read_one_state
from odmt_sdk.backbones.per_source import SourceBackbones


@pytest.mark.parametrize("num_layers", [1, 3])
def test_one_state_of_each_sequence_is_that_among_all(num_layers):
    backbone = SASRec(8, num_layers=num_layers, max_seq_length=6).eval()
    embeds = torch.randn(5, 4, 8)
    mask = torch.tensor([[0, 0, 0, 1], [1, 1, 1, 1], [0, 1, 1, 1], [0, 0, 0, 0], [0, 1, 1, 0]])
    only_at = torch.tensor([3, 0, 2, 1, 2])
    expected = backbone(embeds, mask)[torch.arange(5), only_at]
    torch.testing.assert_close(backbone(embeds, mask, only_at=only_at), expected)


class Louder(SASRec):
    def forward(self, inputs_embeds, attention_mask):
        return 2 * super().forward(inputs_embeds, attention_mask)


@pytest.mark.parametrize(("kind", "can"), [(SASRec, True), (Louder, False)])
def test_a_subclass_that_knows_nothing_of_it_is_not_asked(kind, can):
    backbone = kind(8, max_seq_length=4).eval()
    assert can_read_one_state(backbone) == can
    asked = []
    backbone.register_forward_hook(lambda _, __, states: asked.append(states.shape))
    backbones = SourceBackbones({"id": backbone})
    arguments = {"item_ids": torch.ones(3, 4).long(), "positions": torch.tensor([3, 5, 8])}
    inputs = torch.randn(3, 4, 8), torch.ones(3, 4).long(), "id"
    one = backbones(*inputs, **arguments, one_each=True)
    torch.testing.assert_close(one, backbones(*inputs, **arguments))
    assert asked == [(3, 8) if can else (3, 4, 8), (3, 4, 8)]
