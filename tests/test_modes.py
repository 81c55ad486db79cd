"""No public call changes the train or eval mode of a model or of a user's module."""

import contextlib
import random

import pytest
import torch
from torch import nn
from toys import MyModel, toy_features, toy_split

from odmt_sdk import (
    ODMTConfig,
    ODMTWrapper,
    check_backbone,
    draw_attention,
    draw_contributions,
    draw_item_map,
    evaluate,
)
from odmt_sdk.evaluation.evaluate import rank_targets
from odmt_sdk.figures.score_contributions import contributions
from odmt_sdk.modes import evaluating

HISTORY = ["item-1", "item-2", "item-3"]


class Deep(nn.Module):
    """A backbone with submodules that a user may have frozen."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(MyModelOnInputs(), nn.Dropout(0.1), nn.LayerNorm(8))

    def forward(self, inputs_embeds, attention_mask):
        return self.inner(inputs_embeds)


class MyModelOnInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(8, 8)
        self.dropout = nn.Dropout(0.2)

    def forward(self, x):
        return x + self.dropout(self.mix(x))


def make(fusion: str = "odmt") -> ODMTWrapper:
    features = toy_features(item_ids=[f"item-{i}" for i in range(12)])
    return ODMTWrapper(Deep(), features, ODMTConfig(fusion=fusion), hidden_size=8, check=False)


def modes(module: nn.Module) -> dict[str, bool]:
    return {name: part.training for name, part in module.named_modules()}


def mix_modes(module: nn.Module, seed: int) -> None:
    """Put every submodule into a random mode."""
    draw = random.Random(seed)
    for part in module.modules():
        part.training = draw.random() < 0.5


# Calls that a user may make on a model during training.
CALLS = {
    "forward": lambda m, _: m(torch.tensor([[1, 2, 3], [0, 4, 5]])).loss.backward(),
    "recommend": lambda m, _: m.recommend([HISTORY], k=2),
    "recommend_iter": lambda m, _: list(m.recommend_iter([HISTORY], k=2)),
    "score": lambda m, _: m.score([HISTORY], ["item-4"]),
    "similar_items": lambda m, _: m.similar_items(["item-4"], k=2),
    "item_vectors": lambda m, _: m.item_vectors(),
    "encode_histories": lambda m, _: m.encode_histories([HISTORY]),
    "catalogue_fingerprint": lambda m, _: m.catalogue_fingerprint(),
    "activation_checkpointing_enable": lambda m, _: m.activation_checkpointing_enable(),
    "activation_checkpointing_disable": lambda m, _: m.activation_checkpointing_disable(),
    "gradient_checkpointing_enable": lambda m, _: m.gradient_checkpointing_enable(),
    "gradient_checkpointing_disable": lambda m, _: m.gradient_checkpointing_disable(),
    "recommend among": lambda m, _: m.recommend([HISTORY], k=2, exclude_seen=False),
    "encode_catalogue": lambda m, _: m.encode_catalogue(),
    "content_tokens": lambda m, _: m.content_tokens(torch.tensor([1, 2])),
    "encoded_features": lambda m, _: m.encoded_features(),
    "encode_items": lambda m, _: m.encode_items(torch.tensor([1, 2])),
    "encode_sequences": lambda m, _: m.encode_sequences(torch.tensor([[1, 2]])),
    "evaluate": lambda m, _: evaluate(m, toy_split().test, k=(1,), progress=False),
    "rank_targets": lambda m, _: rank_targets(m, toy_split().test, progress=False),
    "contributions": lambda m, _: contributions(m, HISTORY, ["item-4"]),
    "draw_contributions": lambda m, _: draw_contributions(m, HISTORY),
    "draw_item_map": lambda m, _: draw_item_map(m),
    "draw_attention": lambda m, _: draw_attention(m, "item-3", grid=(1, 2)),
    "attention": lambda m, _: m.item_encoder.attention(
        torch.tensor([1]), m.item_features.gather(torch.tensor([1]))
    ),
    "save_pretrained": lambda m, path: m.save_pretrained(path / "adapter"),
    "set_item_popularity": lambda m, _: m.set_item_popularity(torch.arange(13)),
    "unwrap_backbone": lambda m, _: m.unwrap_backbone(),
    "freeze_backbones": lambda m, _: m.freeze_backbones(),
    "parameter_groups": lambda m, _: m.parameter_groups(
        learning_rate=0.1, backbone_learning_rate=0.1
    ),
    "add_items": lambda m, _: m.add_items(toy_features(2, item_ids=["new-1", "new-2"])),
    "to": lambda m, _: m.to(torch.float64),
}


@pytest.mark.parametrize("fusion", ["odmt", "late_deep"])
@pytest.mark.parametrize("call", CALLS)
def test_no_call_changes_the_mode_of_any_part(call, fusion, tmp_path):
    if "attention" in call and fusion != "odmt":
        pytest.skip("this fusion shows no attention")
    model = make(fusion)
    mix_modes(model, seed=sum(map(ord, call)))
    before = modes(model)
    CALLS[call](model, tmp_path)
    assert modes(model) == before


@pytest.mark.parametrize("call", ["recommend", "encode_catalogue", "evaluate", "contributions"])
def test_modes_come_back_after_an_error(call, monkeypatch):
    model = make()
    mix_modes(model, 3)
    before = modes(model)

    def breaks(*_, **__):
        raise RuntimeError("out of memory")

    for module in (*model.backbones.by_source.values(), model.item_encoder):
        monkeypatch.setattr(module, "forward", breaks)
    with pytest.raises(RuntimeError, match="out of memory"):
        CALLS[call](model, None)
    assert modes(model) == before


@pytest.mark.parametrize("seed", range(3))
def test_neither_wrapping_nor_checking_changes_the_users_module(seed):
    backbone = Deep()
    mix_modes(backbone, seed)
    before = modes(backbone)
    model = ODMTWrapper(backbone, toy_features(), hidden_size=8)
    check_backbone(backbone, hidden_size=8)
    assert modes(backbone) == before
    for adapted in model.backbones.by_source.values():  # copies start in the same modes
        found = modes(adapted)
        name = next(name for name, part in adapted.named_modules() if isinstance(part, Deep))
        prefix = f"{name}." if name else ""
        inside = {n.removeprefix(prefix): m for n, m in found.items() if n.startswith(prefix)}
        assert {n: m for n, m in inside.items() if n} == {n: m for n, m in before.items() if n}


def test_every_public_method_is_among_the_calls():
    methods: set[str] = set()
    for base in ODMTWrapper.__mro__:
        if base.__module__.startswith("odmt_sdk"):
            methods |= {
                name
                for name, value in vars(base).items()
                if not name.startswith("_") and callable(value)
            }
    tested_elsewhere = {
        "set_items",  # makes the parts
        "from_pretrained",  # makes a new model, in eval mode
        "export_index",  # item_vectors, and a library of its own
        "push_to_hub",  # save_pretrained and an upload
        "online_distillation_loss",  # does not depend on the mode
    }
    assert methods - tested_elsewhere <= set(CALLS)


def test_a_train_of_the_users_own_is_asked_for_both_modes():
    """A user's `train` may do more than set flags, for example clear a cache."""

    class Remembering(nn.Module):
        asked: list[bool]

        def train(self, mode: bool = True):
            self.asked.append(mode)
            return super().train(mode)

    module = Remembering()
    module.asked = []
    with evaluating(module):
        pass
    assert module.asked == [False, True]


def test_several_modules_and_one_that_cannot_evaluate():
    class Stubborn(nn.Linear):
        def train(self, mode: bool = True):
            if not mode:
                raise RuntimeError("never in eval mode")
            return super().train(mode)

    first, second = nn.Dropout(), Stubborn(2, 2)
    with contextlib.suppress(RuntimeError), evaluating(first, second):
        raise AssertionError("it cannot get here")
    assert first.training
    assert second.training


def test_a_model_without_parts_works():
    model = MyModel()
    with evaluating(model):
        assert not model.training
    assert model.training


def test_the_cached_catalogue_does_not_depend_on_autocast(tmp_path):
    model = ODMTWrapper(MyModel(), toy_features())
    with torch.autocast("cpu", torch.bfloat16):
        first = model.encode_catalogue()
        model.save_pretrained(tmp_path)
    saved = ODMTWrapper.from_pretrained(tmp_path, MyModel()).encode_catalogue()
    expected = ODMTWrapper.from_pretrained(tmp_path, MyModel(), toy_features()).encode_catalogue()
    for source, values in expected.items():
        assert first[source].dtype == torch.float32
        assert torch.equal(first[source], values)
        assert torch.equal(saved[source], values)
