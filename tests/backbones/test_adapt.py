import copy

import pytest
import torch
from torch import nn

from odmt_sdk.backbones.adapt import (
    BRIDGES,
    adapt_backbone,
    register_bridge,
    unwrap_backbone,
)
from odmt_sdk.backbones.bridge import BackboneBridge
from odmt_sdk.backbones.bridges.projected import ProjectedBackbone
from odmt_sdk.backbones.bridges.torch_rnn import TorchRNNBackbone
from odmt_sdk.backbones.models.sasrec import SASRec

D = 8
EMBEDS, MASK = torch.randn(2, 4, D), torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]])


class Mine(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(D, D)

    def forward(self, left, right):
        return self.layer(left + right)


class MyAdapter(BackboneBridge):
    def forward(self, inputs_embeds, attention_mask):
        return self.module(inputs_embeds, attention_mask.unsqueeze(-1))


@pytest.fixture(autouse=True)
def _registered_here_only(monkeypatch):
    adapt_backbone(SASRec(D))  # loads the package's bridges
    monkeypatch.setattr(BRIDGES, "_entries", dict(BRIDGES._entries))


class TestRegister:
    def test_by_type(self):
        @register_bridge("mine", matches=Mine)
        def build(backbone, hidden_size):
            return MyAdapter(backbone, hidden_size=hidden_size or D)

        adapted = adapt_backbone(Mine())
        assert isinstance(adapted, MyAdapter)
        assert adapted(EMBEDS, MASK).shape == EMBEDS.shape
        assert unwrap_backbone(adapted).layer.in_features == D

    def test_by_predicate_and_for_types_that_the_package_knows(self):
        @register_bridge("my-gru", matches=lambda backbone: isinstance(backbone, nn.GRU))
        def build(backbone, hidden_size):
            return MyAdapter(backbone)

        assert isinstance(adapt_backbone(nn.GRU(D, D)), MyAdapter)
        assert isinstance(adapt_backbone(nn.RNN(D, D)), TorchRNNBackbone)

    @pytest.mark.parametrize(("priorities", "winner"), [((0, 0), "b"), ((1, 0), "a")])
    def test_priority_and_then_the_latest(self, priorities, winner):
        for name, priority in zip("ab", priorities, strict=True):
            adapter = MyAdapter(nn.Identity())
            adapter.name = name
            register_bridge(name, matches=Mine, priority=priority)(lambda b, d, a=adapter: a)
        assert adapt_backbone(Mine()).name == winner

    def test_others_are_not_asked_once_one_matches(self):
        def refuse(backbone):
            raise AssertionError("asked in vain")

        register_bridge("mine", matches=Mine)(lambda backbone, hidden_size: MyAdapter(backbone))
        register_bridge("other", matches=refuse, priority=-1)(lambda backbone, hidden_size: None)
        assert isinstance(adapt_backbone(Mine()), MyAdapter)

    def test_a_name_is_taken_once(self):
        register_bridge("mine", matches=Mine)(lambda backbone, hidden_size: backbone)
        with pytest.raises(ValueError, match="a bridge named 'mine' is registered already"):
            register_bridge("mine", matches=Mine)(lambda backbone, hidden_size: backbone)


class TestExplicit:
    def test_by_name(self):
        register_bridge("mine", matches=lambda backbone: False)(lambda b, d: MyAdapter(b))
        assert isinstance(adapt_backbone(SASRec(D), bridge="mine"), MyAdapter)

    def test_a_function(self):
        assert isinstance(adapt_backbone(nn.GRU(D, D), bridge=lambda b, d: MyAdapter(b)), MyAdapter)

    def test_forward_fn(self):
        gru = nn.GRU(D, D, batch_first=True)
        adapted = adapt_backbone(gru, forward_fn=lambda gru, embeds, mask: gru(embeds)[0] * 2)
        assert adapted.module is gru
        assert torch.equal(adapted(EMBEDS, MASK), gru(EMBEDS)[0] * 2)
        last = adapt_backbone(gru, hidden_size=D, forward_fn=lambda g, x, mask: g(x)[0][:, -1])
        assert last.last_only
        assert last(EMBEDS, MASK).shape == (2, D)

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            (
                {"bridge": "nope"},
                ValueError,
                "bridge='nope' is not registered; known are",
            ),
            ({"bridge": lambda b, d: 3}, TypeError, "the bridge returned int, it must return"),
            (
                {"bridge": "torch-rnn", "forward_fn": lambda m, x, k: x},
                ValueError,
                "bridge= and forward_fn= both say how to call the backbone: pass one",
            ),
            ({"forward_fn": 3}, TypeError, "forward_fn must be a function, got int"),
        ],
    )
    def test_errors(self, options, error, message):
        with pytest.raises(error, match=message):
            adapt_backbone(nn.GRU(D, D), **options)

    def test_forward_fn_needs_a_module(self):
        with pytest.raises(TypeError, match="forward_fn= calls a torch.nn.Module, but backbone is"):
            adapt_backbone(lambda x: x, forward_fn=lambda module, embeds, mask: embeds)


class TestNative:
    def test_it_is_returned_as_it_is(self):
        backbone = SASRec(D)
        assert adapt_backbone(backbone) is backbone
        assert adapt_backbone(backbone, hidden_size=D) is backbone
        assert unwrap_backbone(backbone) is backbone

    def test_an_adapted_one_is_not_adapted_again(self):
        adapted = adapt_backbone(nn.GRU(D, D))
        assert adapt_backbone(adapted) is adapted

    def test_a_module_that_only_looks_so_is_adapted(self):
        class Tuple(SASRec):
            def forward(self, inputs_embeds, attention_mask):
                return super().forward(inputs_embeds, attention_mask), None

        backbone = Tuple(D, dropout=0.0)
        adapted = adapt_backbone(backbone)
        assert adapted.module is backbone
        torch.testing.assert_close(adapted(EMBEDS, MASK), backbone(EMBEDS, MASK)[0])

    def test_other_names_for_the_same_need_no_adapter(self):
        class Other(nn.Module):
            def __init__(self):
                super().__init__()
                self.sasrec = SASRec(D)

            def forward(self, x, mask):
                return self.sasrec(x, mask)

        backbone = Other()
        assert adapt_backbone(backbone) is backbone


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        (SASRec, r"backbone is the class SASRec, pass an instance: SASRec\(\.\.\.\)"),
        (3, "backbone must be a torch.nn.Module or another callable, got int"),
        (None, "backbone must be a torch.nn.Module or another callable, got NoneType"),
        ({"id": SASRec(D)}, "backbone must be a torch.nn.Module or another callable, got dict"),
    ],
)
def test_what_is_no_backbone(backbone, message):
    with pytest.raises(TypeError, match=message):
        adapt_backbone(backbone)


class TestWidths:
    @pytest.mark.parametrize(
        ("backbone", "message"),
        [
            (
                nn.GRU(16, 16),
                "GRU reads 16 values per item and returns 16, but the item embeddings have 8: pass "
                "hidden_size=16, or project=True",
            ),
            (
                nn.GRU(D, 16),
                "GRU reads 8 .* returns 16, but the item embeddings have 8: pass project=",
            ),
            (SASRec(16), "SASRec reads 16 .*: pass hidden_size=16, or project=True"),
            (nn.Linear(16, 16), "Linear reads 16 .*: pass hidden_size=16, or project=True"),
        ],
    )
    def test_a_difference_is_told_or_bridged(self, backbone, message):
        with pytest.raises(ValueError, match=message):
            adapt_backbone(backbone, hidden_size=D)
        adapted = adapt_backbone(backbone, hidden_size=D, project=True)
        assert isinstance(adapted, ProjectedBackbone)
        assert adapted(EMBEDS, MASK).shape == EMBEDS.shape
        assert adapted.hidden_size == D
        assert unwrap_backbone(adapted) is backbone

    def test_only_what_differs_is_projected(self):
        adapted = adapt_backbone(nn.GRU(D, 16), project=True)
        assert isinstance(adapted.project_in, nn.Identity)
        assert adapted.project_out.weight.shape == (D, 16)

    def test_padding_stays_zero_on_the_way_in(self):
        adapted = adapt_backbone(nn.GRU(16, 16), hidden_size=D, project=True)
        assert not adapted.project_in(torch.zeros(1, 2, D)).any()

    def test_device_and_type_follow_the_backbone(self):
        adapted = adapt_backbone(nn.GRU(16, 16).double(), hidden_size=D, project=True)
        assert adapted.project_in.weight.dtype == torch.float64

    def test_none_is_needed_where_widths_agree(self):
        assert isinstance(adapt_backbone(nn.GRU(D, D), project=True), TorchRNNBackbone)


def test_unwrapping_gives_the_trained_module():
    gru = nn.GRU(D, D, batch_first=True)
    adapted = copy.deepcopy(adapt_backbone(gru))
    optimizer = torch.optim.SGD(adapted.parameters(), lr=1.0)
    adapted(EMBEDS, MASK).square().sum().backward()
    optimizer.step()
    trained = unwrap_backbone(adapted)
    assert type(trained) is nn.GRU
    assert not torch.equal(trained.weight_ih_l0, gru.weight_ih_l0)
    torch.testing.assert_close(adapted(EMBEDS, MASK)[1], trained(EMBEDS)[0][1])
