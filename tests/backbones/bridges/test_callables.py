import copy
import functools

import pytest
import torch
from torch import nn

from odmt_sdk.backbones.adapt import adapt_backbone
from odmt_sdk.backbones.check.report import check_backbone

D = 8
EMBEDS, MASK = torch.randn(2, 4, D), torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]])
GLOBAL = nn.Linear(D, D)


def summed(x, mask):
    return x.masked_fill(~mask.unsqueeze(-1), 0).cumsum(1)


def with_net(net, x, factor=1.0):
    return net(x)[0] * factor


class Holder:
    def __init__(self, net):
        self.net = net

    def __call__(self, x):
        return self.net(x)[0]

    def encode(self, x):
        return self.net(x)[0]


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(D, D, batch_first=True)

    def encode(self, x):
        return self.gru(x)[0]


def test_a_function():
    adapted = adapt_backbone(summed)
    assert adapted.hidden_size is None  # any
    torch.testing.assert_close(adapted(EMBEDS, MASK)[1], EMBEDS[1].cumsum(0))
    assert adapt_backbone(summed, hidden_size=D).hidden_size == D
    assert not check_backbone(summed).errors


def test_a_lambda():
    adapted = adapt_backbone(lambda x: x.cumsum(1))
    torch.testing.assert_close(adapted(EMBEDS, MASK)[0, 1:], EMBEDS[0, 1:].cumsum(0))


@pytest.mark.parametrize(
    "bind",
    [
        lambda gru: functools.partial(with_net, gru, factor=2.0),
        lambda gru: functools.partial(with_net, net=gru, factor=2.0),
        lambda gru: functools.partial(gru, hx=None),
        Holder,
        lambda gru: Holder(gru).encode,
    ],
    ids=["positional", "keyword", "of a module", "object", "method of an object"],
)
def test_modules_that_it_holds_are_trained_and_copied(bind):
    gru = nn.GRU(D, D, batch_first=True)
    adapted = adapt_backbone(bind(gru))
    assert adapted.hidden_size == D
    assert [id(p) for p in adapted.parameters()] == [id(p) for p in gru.parameters()]
    other = copy.deepcopy(adapted)
    before = adapted(EMBEDS, MASK)
    torch.testing.assert_close(other(EMBEDS, MASK), before)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0)
    assert not other(EMBEDS, MASK)[MASK.bool()].any()
    assert torch.equal(adapted(EMBEDS, MASK), before)


def test_a_method_of_a_module():
    encoder = Encoder()
    adapted = adapt_backbone(encoder.encode)
    assert len(list(adapted.parameters())) == 4
    torch.testing.assert_close(adapted(EMBEDS, MASK)[1], encoder.encode(EMBEDS)[1])


def test_modules_by_name_are_refused():
    gru = nn.GRU(D, D, batch_first=True)

    def closure(x):
        return gru(x)[0]

    with pytest.raises(
        ValueError,
        match=r"'closure' uses the module 'gru' as a global or closure variable, .* pass ",
    ):
        adapt_backbone(closure)
    with pytest.raises(ValueError, match="uses the module 'GLOBAL' as a global or closure"):
        adapt_backbone(lambda x: GLOBAL(x))
    with pytest.raises(ValueError, match="uses the module 'gru' as a global or closure"):
        adapt_backbone(functools.partial(closure))


def test_one_that_takes_nothing_is_no_backbone():
    with pytest.raises(ValueError, match="names no argument for the embeddings"):
        adapt_backbone(lambda: None)
