"""Wrapping and checking do not modify the user's module, and copy it once per source."""

import copy
import functools
import random
from collections import deque
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from toys import toy_features
from transformers import GPT2Config, GPT2Model

from odmt_sdk import ODMTConfig, ODMTWrapper, SASRec
from odmt_sdk.backbones.check.report import check_backbone
from odmt_sdk.backbones.undisturbed import tried, undisturbed

D = 8


class Restless(nn.Module):
    """Changes in every call the parts selected by its arguments."""

    def __init__(self, switches):
        super().__init__()
        self.mix = nn.Linear(D, D)
        self.norm = nn.BatchNorm1d(D)
        self.register_buffer("count", torch.zeros(1))
        self.table = torch.ones(2)
        self.array = np.zeros(2)
        self.calls, self.log, self.seen, self.last = 0, [], {"nested": []}, deque(maxlen=2)
        self.generator_state = random.Random(0)
        self.torch_generator = torch.Generator().manual_seed(0)
        self.numpy_generator = np.random.default_rng(0)
        self.switches = switches

    def forward(self, inputs_embeds, attention_mask):
        for name in self.switches:
            CHANGES[name](self)
        hidden = self.mix(inputs_embeds)
        return self.norm(hidden.flatten(0, 1)).view(hidden.shape)


def replace_weight(module):
    module.mix.weight = nn.Parameter(torch.zeros(D, D))


CHANGES = {
    "weight": lambda m: m.mix.weight.data.mul_(0.5),
    "new weight": replace_weight,
    "frozen": lambda m: m.mix.weight.requires_grad_(False),
    "buffer": lambda m: m.count.add_(1),
    "new buffer": lambda m: setattr(m, "count", m.count + 1),
    "attribute": lambda m: setattr(m, "calls", m.calls + 1),
    "new attribute": lambda m: setattr(m, "extra", 1),
    "tensor": lambda m: m.table.add_(1),
    "array": lambda m: m.array.__iadd__(1),
    "list": lambda m: m.log.append(1),
    "nested list": lambda m: m.seen["nested"].append(1),
    "deque": lambda m: m.last.append(1),
    "mode": lambda m: m.mix.train(),
    "hook": lambda m: m.mix.register_forward_hook(lambda *_: None),
    "module": lambda m: m.add_module("late", nn.Linear(1, 1)),
    "random": lambda m: (random.random(), np.random.rand(), torch.rand(1)),
    "own random": lambda m: (
        m.generator_state.random(),
        m.numpy_generator.random(),
        m.torch_generator and torch.rand(1, generator=m.torch_generator),
    ),
}


def generator_state(module):
    return module.torch_generator.get_state().tolist()


def picture(module: nn.Module) -> Any:
    """Return the complete comparable state of a module."""
    numbers = module.generator_state.getstate(), module.numpy_generator.bit_generator.state
    return {
        "weights": {n: (id(p), p.tolist(), p.requires_grad) for n, p in module.named_parameters()},
        "gradients": {n: (id(p.grad), p.grad.tolist()) for n, p in module.named_parameters()},
        "buffers": {n: (id(b), b.tolist()) for n, b in module.named_buffers()},
        "modes": {n: m.training for n, m in module.named_modules()},
        "hooks": {n: list(m._forward_hooks.values()) for n, m in module.named_modules()},
        "attributes": sorted(vars(module)),
        "plain": copy.deepcopy((module.calls, module.log, module.seen, list(module.last))),
        "tensors": (id(module.table), module.table.tolist(), module.array.tolist()),
        "random": (*numbers, module.torch_generator and generator_state(module)),
        "global": (
            random.getstate(),
            np.random.get_state()[1].tolist(),
            torch.get_rng_state().tolist(),
        ),
    }


def restless(switches, modes, generator=None):
    module = Restless(sorted(switches))
    module.torch_generator = generator
    for part, mode in zip(module.modules(), modes, strict=True):
        part.training = mode
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    module.mix.register_forward_hook(nothing)
    return module


def nothing(*_):
    return None


some_switches = st.sets(st.sampled_from(sorted(CHANGES)))
three_modes = st.lists(st.booleans(), min_size=3, max_size=3)


@given(switches=some_switches, modes=three_modes)
@settings(max_examples=40, deadline=None)
def test_a_module_that_is_tried_is_as_it_was(switches, modes):
    module = restless(switches, modes, torch.Generator().manual_seed(0))
    called = []
    module.mix.weight.register_hook(called.append)
    embeds, mask = torch.randn(2, 3, D), torch.ones(2, 3, dtype=torch.long)
    before = picture(module)
    state = torch.get_rng_state(), random.getstate(), np.random.get_state()
    with tried(module):
        assert not module.mix.training
        weight = module.mix.weight
        hidden = module.train()(embeds, mask)
        if hidden.requires_grad:
            torch.autograd.grad(hidden.sum(), [*module.norm.parameters()])
            weight.grad = weight * 0
        module.to(torch.bfloat16)
    torch.set_rng_state(state[0])
    random.setstate(state[1])
    np.random.set_state(state[2])
    assert picture(module) == before
    assert not called
    hidden = (module.mix(embeds) * 1).sum()
    if hidden.requires_grad and module.mix.weight.requires_grad:
        hidden.backward()
        assert called  # the hook is back


@given(switches=some_switches, modes=three_modes)
@settings(max_examples=25, deadline=None)
def test_a_check_changes_nothing(switches, modes):
    module = restless(switches - {"own random"}, modes)
    before = picture(module)
    check_backbone(module, hidden_size=D)
    assert picture(module) == before


def test_values_can_be_left_out_where_they_are_only_moved():
    module = nn.Linear(2, 2)
    weight, data = module.weight, module.weight.data.clone()
    place = weight.data_ptr()
    with undisturbed(module, values=False):
        module.to(torch.bfloat16)
    assert module.weight is weight
    assert weight.data_ptr() == place
    assert torch.equal(weight, data)


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(D, D)

    def forward(self, inputs_embeds, attention_mask):
        return self.mix(inputs_embeds * attention_mask.unsqueeze(-1))


class OwnMask(Own):
    def forward(self, seq_emb, padding_mask):
        return self.mix(seq_emb.masked_fill(padding_mask.unsqueeze(-1), 0).cumsum(1))


class Ids(nn.Module):
    def __init__(self):
        super().__init__()
        self.item_embedding = nn.Embedding(30, D, padding_idx=0)
        self.gru = nn.GRU(D, D, batch_first=True)

    def forward(self, item_seq, item_seq_len):
        states, _ = self.gru(self.item_embedding(item_seq))
        return states[torch.arange(len(states)), item_seq_len - 1]


def gpt2():
    sizes = {"n_embd": D, "n_layer": 1, "n_head": 2, "vocab_size": 10, "n_positions": 16}
    return GPT2Model(GPT2Config(bos_token_id=0, eos_token_id=0, **sizes))


@pytest.mark.parametrize(
    ("build", "forwards"),
    [(gpt2, 20), (lambda: SASRec(D), 20), (Own, 22), (OwnMask, 35), (Ids, 30)],
    ids=["transformers", "built in", "protocol", "mask", "item ids"],
)
def test_one_copy_for_each_source_and_few_forwards(build, forwards, monkeypatch):
    backbone = build()
    kind, counts = type(backbone), {"copies": 0, "forwards": 0}

    def counted_copy(self, memo):
        counts["copies"] += 1
        twin = kind.__new__(kind)
        memo[id(self)] = twin
        twin.__dict__.update(copy.deepcopy(vars(self), memo))
        return twin

    original = kind.forward

    @functools.wraps(original)
    def counted_forward(self, *args, **kwargs):
        counts["forwards"] += 1
        return original(self, *args, **kwargs)

    monkeypatch.setattr(kind, "__deepcopy__", counted_copy, raising=False)
    monkeypatch.setattr(kind, "forward", counted_forward)
    model = ODMTWrapper(backbone, toy_features(), ODMTConfig(max_seq_length=6))
    assert counts["copies"] == len(model.sources) == 3
    assert counts["forwards"] <= forwards


def test_a_backbone_that_the_caller_adapted_stays_the_callers():
    from odmt_sdk.backbones.adapt import adapt_backbone

    adapted = adapt_backbone(gpt2())
    model = ODMTWrapper(adapted, toy_features(), ODMTConfig(max_seq_length=6))
    own = {id(parameter) for parameter in adapted.parameters()}
    assert not own & {id(parameter) for parameter in model.parameters()}


@pytest.mark.filterwarnings("ignore")
def test_a_scripted_module_is_left_alone_and_its_copies_can_be_trained():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix, self.frozen = nn.Linear(D, D), nn.Linear(D, D).requires_grad_(False)
            self.register_buffer("scale", torch.ones(D))

        def forward(self, x):
            return self.frozen(self.mix(x)).cumsum(1) * self.scale

    scripted = torch.jit.script(Plain())
    before = copy.deepcopy(scripted.state_dict())
    model = ODMTWrapper(scripted, toy_features())
    assert scripted.training
    assert scripted.mix.training
    for name, value in scripted.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, before[name])
    backbone = model.unwrap_backbone("text")
    trained = {name: weight.requires_grad for name, weight in backbone.named_parameters()}
    assert trained == {name: "mix" in name for name in trained}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.tensor([[1, 2, 3], [4, 5, 6]])).loss.backward()
    optimizer.step()
    after = backbone.state_dict()
    assert not torch.equal(after["mix.weight"], before["mix.weight"])
    assert torch.equal(after["frozen.weight"], before["frozen.weight"])


def test_gradient_hooks_of_weights_come_along_to_the_copies():
    gru, calls = nn.GRU(D, D), []
    gru.weight_ih_l0.register_hook(lambda gradient: gradient * 0)
    gru.bias_ih_l0.register_post_accumulate_grad_hook(calls.append)
    model = ODMTWrapper(gru, toy_features())
    assert not calls  # the check runs without them
    model(torch.tensor([[1, 2, 3], [4, 5, 6]])).loss.backward()
    assert len(calls) == len(model.sources)
    for source in model.sources:
        assert not model.unwrap_backbone(source).weight_ih_l0.grad.any()
        assert model.unwrap_backbone(source).weight_hh_l0.grad.any()
    assert len(gru.weight_ih_l0._backward_hooks) == 1


def test_lazy_weights_have_no_shape_to_copy():
    class Lazy(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = nn.LazyLinear(D)

        def forward(self, x):
            return self.mix(x).cumsum(1)

    lazy = Lazy()
    with pytest.raises(ValueError, match=r"lazy weights, .*: mix.weight, mix.bias. Run it once"):
        ODMTWrapper(lazy, toy_features())
    lazy(torch.zeros(1, 2, D))
    ODMTWrapper(lazy, toy_features())
