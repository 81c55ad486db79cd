"""A backbone with matching shapes but other settings is not accepted silently."""

import json
import warnings

import pytest
import torch
from torch import nn
from toys import MyModel, toy_model

from odmt_sdk import HSTU, AdapterError, NextItNet, ODMTWrapper, SASRec
from odmt_sdk.backbones.compared_settings import backbone_settings, different_settings


def encoder(nhead=2, **settings):
    layer = nn.TransformerEncoderLayer(8, nhead, 16, batch_first=True, **settings)
    return nn.TransformerEncoder(layer, 2)


def llama(**settings):
    from transformers import LlamaConfig, LlamaModel

    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "vocab_size": 10}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    return LlamaModel(LlamaConfig(**sizes, **{**heads, **settings}))


def gpt2(**settings):
    from transformers import GPT2Config, GPT2Model

    sizes = {"n_embd": 8, "n_layer": 1, "n_head": 2, "vocab_size": 10, "n_positions": 20}
    return GPT2Model(GPT2Config(**{**sizes, **settings}))


class Mine(MyModel):
    def __init__(self, heads=2, activation=nn.ReLU, dropout=0.1):
        super().__init__()
        self.heads = heads
        self.net = nn.Sequential(nn.Linear(8, 8), activation(), nn.Dropout(dropout))

    def forward(self, inputs_embeds, attention_mask):
        return super().forward(self.net(inputs_embeds), attention_mask)


OTHERS = [
    (lambda: SASRec(8, num_heads=2), lambda: SASRec(8, num_heads=4), "num_heads was 2, is 4"),
    (
        lambda: SASRec(8),
        lambda: SASRec(8, layer_norm_eps=1e-3),
        "layer_norm_eps was 1e-06, is 0.001",
    ),
    (
        lambda: NextItNet(8, dilations=(1, 2)),
        lambda: NextItNet(8, dilations=(1, 4)),
        r"dilations was \[1, 2\], is \[1, 4\]",
    ),
    (lambda: HSTU(8, num_heads=2), lambda: HSTU(8, num_heads=4), "num_heads was 2, is 4"),
    (encoder, lambda: encoder(4), "num_heads was 2, is 4"),
    (encoder, lambda: encoder(activation="gelu"), "activation was 'relu', is 'gelu'"),
    (encoder, lambda: encoder(norm_first=True), "norm_first was False, is True"),
    (
        lambda: nn.RNN(8, 8),
        lambda: nn.RNN(8, 8, nonlinearity="relu"),
        "nonlinearity was 'tanh', is 'relu'",
    ),
    (Mine, lambda: Mine(activation=nn.GELU), r"was \['Linear', 'ReLU'\], is \['Linear', 'GELU'\]"),
    (llama, lambda: llama(hidden_act="gelu"), "hidden_act was 'silu', is 'gelu'"),
    (llama, lambda: llama(rms_norm_eps=1e-3), "rms_norm_eps was 1e-06, is 0.001"),
    (
        llama,
        lambda: llama(rope_parameters={"rope_type": "default", "rope_theta": 99.0}),
        "rope_theta was 10000.0, is 99.0",
    ),
    (gpt2, lambda: gpt2(n_head=4), "n_head was 2, is 4"),
    (gpt2, lambda: gpt2(scale_attn_by_inverse_layer_idx=True), "inverse_layer_idx was False, is T"),
]
SAME = [
    (lambda: SASRec(8), lambda: SASRec(8, dropout=0.5)),
    (encoder, lambda: encoder(dropout=0.5)),
    (lambda: nn.GRU(8, 8), lambda: nn.GRU(8, 8, batch_first=True)),
    (Mine, lambda: Mine(dropout=0.5)),
    (llama, lambda: llama(attention_dropout=0.5, max_position_embeddings=99)),
    (gpt2, lambda: gpt2(resid_pdrop=0.0)),
]


@pytest.mark.parametrize(("saved", "passed", "message"), OTHERS)
@pytest.mark.parametrize("factory", [False, True])
def test_another_function_is_refused(saved, passed, message, factory, tmp_path):
    toy_model(saved()).save_pretrained(tmp_path / "a")
    with pytest.raises(AdapterError, match=f"its weights fit this .*, but .*{message}"):
        ODMTWrapper.from_pretrained(tmp_path / "a", passed if factory else passed())


@pytest.mark.parametrize(("saved", "passed"), SAME)
def test_what_only_training_reads_may_differ(saved, passed, tmp_path):
    toy_model(saved()).save_pretrained(tmp_path / "a")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ODMTWrapper.from_pretrained(tmp_path / "a", passed())


def test_attributes_of_a_users_own_class_are_a_warning(tmp_path):
    toy_model(Mine()).save_pretrained(tmp_path / "a")
    with pytest.warns(UserWarning, match="heads was 2, is 4. Its results may differ"):
        ODMTWrapper.from_pretrained(tmp_path / "a", Mine(heads=4))


class Holds(MyModel):
    """Needs a tensor that is not in its state dict."""

    def __init__(self, how, seed=0):
        super().__init__()
        value = torch.randn(8, generator=torch.Generator().manual_seed(seed))
        if how == "attribute":
            self.scale = value
        elif how == "private":
            self._scale = value
        elif how == "non-persistent":
            self.register_buffer("scale", value, persistent=False)
        elif how == "list of modules":
            self.norms = [nn.LayerNorm(8)]
            self.norms[0].weight.data.copy_(value)
        else:
            self.held = {"scale": value}
        self.how = how

    def forward(self, inputs_embeds, attention_mask):
        scale = {"private": "_scale"}.get(self.how, "scale")
        value = self.held["scale"] if self.how == "dict" else getattr(self, scale, None)
        value = self.norms[0].weight if value is None else value
        return super().forward(inputs_embeds, attention_mask) * value


@pytest.mark.filterwarnings("ignore:Holds. saved")
@pytest.mark.parametrize(
    "how", ["attribute", "private", "non-persistent", "list of modules", "dict"]
)
def test_a_tensor_that_no_adapter_holds(how, tmp_path):
    model = toy_model(Holds(how))
    model.save_pretrained(tmp_path / "a")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ODMTWrapper.from_pretrained(tmp_path / "a", Holds(how))
        ODMTWrapper.from_pretrained(tmp_path / "a", Holds(how).bfloat16(), dtype=torch.float32)
    with pytest.warns(UserWarning, match=r"the tensor .* has other values, which no adapter"):
        ODMTWrapper.from_pretrained(tmp_path / "a", Holds(how, seed=1))


@pytest.mark.filterwarnings("ignore:Own. training")
def test_tensors_that_torch_computes_from_its_weights_may_differ(tmp_path):
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru, self.mix = nn.GRU(8, 8, batch_first=True), nn.Linear(8, 8)
            nn.utils.parametrizations.weight_norm(self.gru, "weight_hh_l0")
            nn.utils.spectral_norm(self.mix)

        def forward(self, x):
            return self.mix(self.gru(x)[0])

    model = toy_model(Own())
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(2)
    model.recommend([["item-1"]])
    model.save_pretrained(tmp_path / "a")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ODMTWrapper.from_pretrained(tmp_path / "a", Own())


def test_lora_layers_that_scale_otherwise(tmp_path):
    peft = pytest.importorskip("peft")

    def lora(base, **settings):
        targets = ["q_proj"] if base is llama else ["0"]
        config = peft.LoraConfig(r=2, target_modules=targets, **settings)
        return peft.get_peft_model(base(), config)

    for base in (llama, lambda: nn.Sequential(nn.Linear(8, 8), nn.ReLU())):
        toy_model(lora(base, lora_alpha=4)).save_pretrained(tmp_path / "a")
        ODMTWrapper.from_pretrained(tmp_path / "a", lora(base, lora_alpha=4, lora_dropout=0.5))
        for other in ({"lora_alpha": 8}, {"lora_alpha": 4, "use_rslora": True}):
            with pytest.raises(AdapterError, match=r"scaling\.default was 2\.0, is"):
                ODMTWrapper.from_pretrained(tmp_path / "a", lora(base, **other))


def test_without_the_forward_fn_it_was_trained_with(tmp_path):
    def call(module, inputs_embeds, attention_mask):
        return module(2 * inputs_embeds)[0]

    features = toy_model().item_features
    model = ODMTWrapper(nn.GRU(8, 8, batch_first=True), features, forward_fn=call)
    model.save_pretrained(tmp_path / "a")
    with pytest.warns(UserWarning, match="was trained with forward_fn= or bridge="):
        ODMTWrapper.from_pretrained(tmp_path / "a", nn.GRU(8, 8, batch_first=True))
    with pytest.raises(AdapterError, match="Also pass the forward_fn= or bridge= of training"):
        ODMTWrapper.from_pretrained(tmp_path / "a", MyModel())


def test_adapters_without_settings_are_compared_by_their_arguments(tmp_path):
    toy_model(SASRec(8, num_heads=2)).save_pretrained(tmp_path / "a")
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    del config["backbone"]["settings"], config["backbone"]["own_call"]
    (tmp_path / "a" / "config.json").write_text(json.dumps(config))
    with pytest.raises(AdapterError, match="num_heads was 2, is 4"):
        ODMTWrapper.from_pretrained(tmp_path / "a", SASRec(8, num_heads=4))
    ODMTWrapper.from_pretrained(tmp_path / "a", SASRec(8, dropout=0.3))


def test_settings_are_short_and_compared_where_both_have_them():
    deep = nn.Sequential(*(nn.Conv1d(8, 8, 3, dilation=2**i) for i in range(3)))
    settings = backbone_settings(deep)
    assert settings["*.Conv1d.dilation"] == [[1], [2], [4]]
    assert settings["*.Conv1d.kernel_size"] == [3]
    assert different_settings({"a": 1, "b": 2, "?c": 3}, {"b": 3, "?c": 4, "d": 5}) == (
        ["b was 2, is 3"],
        ["c was 3, is 4"],
    )
