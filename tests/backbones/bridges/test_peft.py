"""Models with PEFT LoRA layers, for every task type."""

import pytest
import torch
from torch import nn
from toys import toy_features
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    GPT2Model,
)

from odmt_sdk import ODMTConfig, ODMTWrapper

peft = pytest.importorskip("peft")
D = 8
ROWS = torch.tensor([[0, 3, 1, 2], [4, 5, 6, 7]])


def gpt2(kind):
    sizes = {"n_embd": D, "n_layer": 1, "n_head": 2, "vocab_size": 10, "n_positions": 16}
    return kind(GPT2Config(bos_token_id=0, eos_token_id=0, pad_token_id=0, **sizes))


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru, self.mix = nn.GRU(D, D, batch_first=True), nn.Linear(D, D)

    def forward(self, x):
        return self.mix(self.gru(x)[0])


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
@pytest.mark.parametrize(
    ("task", "build", "targets"),
    [
        ("FEATURE_EXTRACTION", lambda: gpt2(GPT2Model), ["c_attn"]),
        ("CAUSAL_LM", lambda: gpt2(GPT2LMHeadModel), ["c_attn", "wte"]),
        ("SEQ_CLS", lambda: gpt2(GPT2ForSequenceClassification), ["c_attn"]),
        (None, lambda: gpt2(GPT2Model), ["c_attn"]),
        (None, Own, ["mix"]),
    ],
    ids=["features", "causal", "classes", "none", "own class"],
)
def test_only_its_lora_layers_are_trained(task, build, targets):
    config = peft.LoraConfig(task_type=task, r=2, target_modules=targets)
    backbone = peft.get_peft_model(build(), config)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    model = ODMTWrapper(backbone, toy_features(), ODMTConfig(max_seq_length=6))
    for source in model.sources:
        trained = {
            name: parameter
            for name, parameter in model.backbones.of(source).named_parameters()
            if parameter.requires_grad
        }
        assert len(trained) == 2
        assert all("lora_" in name for name in trained)
    model(ROWS).loss.backward()
    assert all(p.grad is not None for p in trained.values())
    assert all(torch.equal(before[name], value) for name, value in backbone.state_dict().items())


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
def test_an_adapter_with_lora_layers_can_be_saved_and_loaded(tmp_path):
    def build():
        torch.manual_seed(0)
        config = peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["c_attn"])
        return peft.get_peft_model(gpt2(GPT2LMHeadModel), config)

    model = ODMTWrapper(build(), toy_features(), ODMTConfig(max_seq_length=6))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    model.save_pretrained(tmp_path)
    loaded = ODMTWrapper.from_pretrained(tmp_path, build())
    first, second = (m.recommend([[1, 2]], k=3) for m in (model, loaded))
    assert first.item_ids == second.item_ids
    assert first.scores[0] == pytest.approx(second.scores[0])


def test_learned_prompts_are_refused():
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    backbone = peft.get_peft_model(gpt2(GPT2LMHeadModel), config)
    with pytest.raises(ValueError, match=r"learns a prompt \(PromptTuningConfig\), .*LoraConfig"):
        ODMTWrapper(backbone, toy_features())
