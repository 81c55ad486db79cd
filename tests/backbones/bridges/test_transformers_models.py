"""transformers models, built in small sizes without a download."""

import copy

import pytest
import torch
import transformers
from torch import nn
from transformers import (
    AlbertConfig,
    AlbertModel,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    DebertaV2Config,
    DebertaV2Model,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Model,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTModel,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5EncoderModel,
    T5Model,
    ViTConfig,
    ViTModel,
)

from odmt_sdk.backbones.adapt import adapt_backbone, unwrap_backbone
from odmt_sdk.backbones.bridges.transformers_models import RemovedEmbedding, TransformersBackbone
from odmt_sdk.backbones.check.report import check_backbone

D = 8
EMBEDS = torch.randn(2, 5, D, generator=torch.Generator().manual_seed(0))
MASK = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
SIZES = {
    "vocab_size": 30,
    "hidden_size": D,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}


def gpt2(**options):
    return GPT2Config(
        vocab_size=30, n_positions=9, n_embd=D, n_layer=2, n_head=2, bos_token_id=0,
        eos_token_id=0, **options,
    )  # fmt: skip


def llama():
    return LlamaForCausalLM(LlamaConfig(num_key_value_heads=2, **SIZES))


def names(module):
    return list(module.state_dict())


@pytest.mark.parametrize(
    ("model", "embedding"),
    [
        (GPT2LMHeadModel(gpt2()), "wte"),
        (GPT2Model(gpt2()), "wte"),
        (llama(), "embed_tokens"),
        (BertForMaskedLM(BertConfig(**SIZES)), "word_embeddings"),
        (T5EncoderModel(T5Config(d_model=D, d_kv=4, d_ff=16, num_layers=1, num_heads=2)), "shared"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_body_alone_without_token_embedding(model, embedding):
    before = copy.deepcopy(model.state_dict())
    adapted = adapt_backbone(model)
    assert isinstance(adapted, TransformersBackbone)
    assert any(embedding in name for name in before)
    for name in names(adapted):
        assert embedding not in name
        assert "embed_tokens" not in name
        assert "head" not in name
        assert "cls." not in name
    body = unwrap_backbone(adapted)
    assert isinstance(body.get_input_embeddings(), RemovedEmbedding)
    with pytest.raises(RuntimeError, match="the token embedding of this model was removed"):
        body(input_ids=torch.ones(1, 2, dtype=torch.long))
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_it_computes_what_the_model_computes():
    model = llama().eval()
    adapted = adapt_backbone(model).eval()
    tokens = torch.tensor([[3, 7, 1]])
    embeds = torch.cat([torch.zeros(1, 2, D), model.get_input_embeddings()(tokens)], dim=1)
    expected = model.model(input_ids=tokens).last_hidden_state
    hidden = adapted(embeds, torch.tensor([[0, 0, 1, 1, 1]]))
    torch.testing.assert_close(hidden[:, 2:], expected)


def test_encoders_get_a_causal_mask_where_they_take_one():
    bert = BertModel(BertConfig(**SIZES), add_pooling_layer=True)
    adapted = adapt_backbone(bert)
    assert adapted.mask_form == "causal"
    assert bert.pooler is not None
    assert not any("pooler" in name for name in names(adapted))
    assert not check_backbone(bert).errors


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_under_autocast_a_causal_mask_gives_no_nan(attention):
    config = BertConfig(**SIZES, attn_implementation=attention)
    adapted = adapt_backbone(BertModel(config))
    with torch.autocast("cpu", torch.bfloat16):
        assert adapted(EMBEDS, MASK).isfinite().all()


def test_encoders_that_take_none_are_refused():
    model = DebertaV2Model(DebertaV2Config(**SIZES))
    assert adapt_backbone(model).mask_form == "padding"
    report = check_backbone(model)
    assert [finding.name for finding in report.errors] == ["causal"]
    with pytest.raises(ValueError, match="load it with attn_implementation='sdpa' or 'eager'"):
        report.raise_for_errors()
    allowed = check_backbone(model, allow_future=True)
    assert not allowed.errors
    assert not allowed.warnings  # padding is masked nevertheless


@pytest.mark.parametrize(
    ("model", "limit"),
    [
        (GPT2Model(gpt2()), 9),
        (BertModel(BertConfig(max_position_embeddings=7, **SIZES)), 7),
        (RobertaModel(RobertaConfig(max_position_embeddings=7, **SIZES)), 5),  # 2 rows are reserved
        (
            OPTModel(
                OPTConfig(
                    vocab_size=30, hidden_size=D, ffn_dim=16, num_hidden_layers=1,
                    num_attention_heads=2, max_position_embeddings=6, word_embed_proj_dim=D,
                )
            ),
            6,
        ),
        (llama(), None),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_position_tables_limit_the_length(model, limit):
    adapted = adapt_backbone(model).eval()
    assert adapted.max_seq_length == limit
    longest = limit or 60
    adapted(torch.randn(1, longest, D), torch.ones(1, longest, dtype=torch.long))
    if limit:
        with pytest.raises((IndexError, RuntimeError)):
            adapted(torch.randn(1, limit + 1, D), torch.ones(1, limit + 1, dtype=torch.long))


def test_a_position_table_shorter_than_the_sequences():
    report = check_backbone(GPT2Model(gpt2()), max_seq_length=20)
    assert [finding.name for finding in report.errors] == ["length"]
    with pytest.raises(
        ValueError, match=r"reads at most 9 positions, .*: set max_seq_length=9"
    ) as e:
        report.raise_for_errors()
    assert isinstance(e.value.__cause__, (IndexError, RuntimeError))


def test_a_factorised_embedding_reads_one_width_and_returns_another():
    model = AlbertModel(AlbertConfig(embedding_size=4, **SIZES))
    with pytest.raises(ValueError, match="AlbertModel reads 4 values per item and returns 8"):
        adapt_backbone(model)
    adapted = adapt_backbone(model, hidden_size=D, project=True)
    assert adapted(EMBEDS, MASK).shape == EMBEDS.shape


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: T5Model(T5Config(d_model=D, d_kv=4, d_ff=16, num_layers=1, num_heads=2)),
            "T5Model is an encoder with a decoder, .* such as model.get_encoder",
        ),
        (
            lambda: ViTModel(ViTConfig(**{**SIZES, "image_size": 8, "patch_size": 4})),
            "ViTModel does not accept inputs_embeds instead of tokens: pass forward_fn=",
        ),
    ],
)
def test_models_that_read_something_else(build, message):
    with pytest.raises(TypeError, match=message):
        adapt_backbone(build())


def test_a_model_that_does_not_run_is_the_cause():
    model = GPT2Model(gpt2())
    model.h[0].attn.c_attn = nn.Identity()
    with pytest.raises(ValueError, match="GPT2Model does not run on inputs_embeds alone") as error:
        adapt_backbone(model)
    assert error.value.__cause__ is not None


def test_settings_of_the_model_that_change_what_it_returns():
    config = gpt2(use_cache=True)
    config.return_dict = False
    config.output_hidden_states = True
    adapted = adapt_backbone(GPT2Model(config))
    assert adapted(EMBEDS, MASK).shape == EMBEDS.shape


def test_modes_are_kept():
    model = GPT2Model(gpt2()).train()
    model.h[1].eval()
    body = unwrap_backbone(adapt_backbone(model))
    assert body.training
    assert body.h[0].training
    assert not body.h[1].training
    assert model.training


def test_gradient_checkpointing_works():
    model = GPT2Model(gpt2()).train()
    model.gradient_checkpointing_enable()
    adapted = adapt_backbone(model)
    embeds = EMBEDS.clone().requires_grad_()
    adapted(embeds, MASK).sum().backward()
    assert embeds.grad.any()


def test_the_library_is_not_needed_to_tell_other_modules():
    assert "transformers" in transformers.__name__
    assert not isinstance(adapt_backbone(nn.GRU(D, D)), TransformersBackbone)
