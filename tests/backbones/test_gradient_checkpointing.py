"""Gradient checkpointing of a backbone, enabled before and after wrapping."""

import copy

import pytest
import torch
from toys import toy_features
from transformers import GPT2Config, GPT2Model, LlamaConfig, LlamaModel

from odmt_sdk import ODMTConfig, ODMTWrapper, SASRec

D = 8
ROWS = torch.tensor([[0, 3, 1, 2], [4, 5, 6, 7]])


def gpt2():
    sizes = {"n_embd": D, "n_layer": 2, "n_head": 2, "vocab_size": 10, "n_positions": 16}
    return GPT2Model(GPT2Config(bos_token_id=0, eos_token_id=0, **sizes))


def llama():
    sizes = {"hidden_size": D, "intermediate_size": 16, "vocab_size": 10}
    return LlamaModel(LlamaConfig(num_hidden_layers=2, num_attention_heads=2, **sizes))


def wrap(backbone):
    torch.manual_seed(0)
    return ODMTWrapper(backbone, toy_features(), ODMTConfig(max_seq_length=6)).train()


def step(model):
    torch.manual_seed(1)
    loss = model(ROWS).loss
    loss.backward()
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    return [loss.detach(), *gradients]


def enable(model):
    name = "activation_checkpointing_enable"  # its name in newer transformers releases
    getattr(model, name, model.gradient_checkpointing_enable)()


@pytest.mark.parametrize("build", [gpt2, llama])
def test_it_changes_no_loss_and_no_gradient(build):
    backbone = build()
    expected = step(wrap(backbone))
    checkpointed = copy.deepcopy(backbone)
    enable(checkpointed)
    before = wrap(checkpointed)
    copy.deepcopy(before)  # it holds handles of hooks on the removed token embedding
    after, one_by_one = wrap(backbone), wrap(backbone)
    after.backbones.gradient_checkpointing_enable()
    for source in one_by_one.sources:
        enable(one_by_one.unwrap_backbone(source))
    for model in (before, after, one_by_one):
        body = model.unwrap_backbone("text")
        assert body.is_gradient_checkpointing
        torch.testing.assert_close(step(model), expected)
    after.backbones.gradient_checkpointing_disable()
    assert not after.unwrap_backbone("text").is_gradient_checkpointing


def test_a_backbone_without_it_is_named():
    with pytest.raises(ValueError, match="of 'id', SASRec, has no gradient_checkpointing_enable"):
        wrap(SASRec(D)).backbones.gradient_checkpointing_enable()
