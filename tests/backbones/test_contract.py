"""The contract of every bridge, for all kinds of backbones.

Letters: B users, L positions, D hidden size.
"""

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import id_models
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rounding import assert_rounded
from torch import nn
from torch.nn import functional as F
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaModel,
    MistralConfig,
    MistralModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from odmt_sdk.backbones.adapt import adapt_backbone
from odmt_sdk.backbones.check.report import check_backbone
from odmt_sdk.backbones.models.gru4rec import GRU4Rec
from odmt_sdk.backbones.models.hstu import HSTU
from odmt_sdk.backbones.models.mamba import Mamba2
from odmt_sdk.backbones.models.nextitnet import NextItNet
from odmt_sdk.backbones.models.sasrec import SASRec

D, LONGEST = 16, 8
LAYERS = 2  # of the deepest model


class Attention(nn.Module):
    """Causal self-attention with learned positions, in a common style."""

    def __init__(self):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(D, D) for _ in range(3))
        self.positions = nn.Embedding(LONGEST, D)
        self.mix = nn.Sequential(nn.Linear(D, 64), nn.ReLU(), nn.Linear(64, D))

    def attend(self, x, real):
        length = x.shape[1]
        x = x + self.positions(torch.arange(length))
        visible = torch.ones(length, length, dtype=torch.bool).tril() & real[:, None, :]
        scores = self.query(x) @ self.key(x).transpose(1, 2)
        x = x + scores.masked_fill(~visible, -1e4).softmax(-1) @ self.value(x)
        return x + self.mix(x)


class LogMask(Attention):
    def forward(self, input_embs, log_mask):
        return self.attend(input_embs, log_mask != 0)


class PaddingMask(Attention):
    def forward(self, *, emb, padding_mask):
        return {"attention": None, "output": self.attend(emb, ~padding_mask)}


class KeyPadding(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(D, 2, 32, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)

    def forward(self, src, mask, src_key_padding_mask):
        return self.encoder(src, mask, src_key_padding_mask)


class NoMask(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(D, D, batch_first=True)

    def forward(self, x):
        return self.gru(x)


class Packed(NoMask):
    def forward(self, x, lengths):
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
        return nn.utils.rnn.pad_packed_sequence(self.gru(packed)[0], batch_first=True)[0]


class LastState(NoMask):
    def forward(self, seq_emb, seq_len):
        return self.gru(seq_emb)[0][torch.arange(len(seq_emb)), seq_len - 1]


def decayed(rate, x, mask):
    """A plain function: decayed mean of the past from rate (D,), x (B, L, D), mask (B, L)."""
    states = []
    state = torch.zeros_like(x[:, 0])
    for step in range(x.shape[1]):
        keep = torch.sigmoid(rate(x[:, step]))
        state = torch.where(mask[:, step, None].bool(), keep * state + x[:, step], state)
        states.append(state)
    return torch.stack(states, 1)


LLAMA_LIKE = {
    "vocab_size": 40,
    "hidden_size": D,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "attention_dropout": 0.0,
}


def gpt2():
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=40, n_positions=LONGEST, n_embd=D, n_layer=2, n_head=2,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
        )
    )  # fmt: skip


def bert():
    return BertModel(
        BertConfig(
            vocab_size=40, hidden_size=D, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=32, max_position_embeddings=LONGEST,
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )
    )  # fmt: skip


@dataclass
class Case:
    build: Callable[[], Any]
    options: dict[str, Any] = field(default_factory=dict)
    adapted: nn.Module | None = None

    def adapt(self) -> nn.Module:
        """Return a copy of the adapted backbone of this case, so that it is probed only once."""
        if self.adapted is None:
            torch.manual_seed(0)
            self.adapted = adapt_backbone(self.build(), **self.options)
        return copy.deepcopy(self.adapted)


def _encoder_layer(**options):
    return nn.TransformerEncoderLayer(D, 2, 32, dropout=0.0, **options)


CASES = {
    "SASRec": Case(lambda: SASRec(D, dropout=0.0, max_seq_length=LONGEST)),
    "GRU4Rec": Case(lambda: GRU4Rec(D, dropout=0.0)),
    "NextItNet": Case(lambda: NextItNet(D, dropout=0.0)),
    "HSTU": Case(lambda: HSTU(D, dropout=0.0, max_seq_length=LONGEST)),
    "Mamba2": Case(lambda: Mamba2(D, dropout=0.0)),
    "id-only, last state": Case(lambda: id_models.GRURecommender(20, D)),
    "id-only, all states": Case(lambda: id_models.DilatedRecommender(20, D)),
    "GRU": Case(lambda: nn.GRU(D, D, num_layers=2)),
    "LSTM, batch first": Case(lambda: nn.LSTM(D, 24, proj_size=D, batch_first=True)),
    "RNN": Case(lambda: nn.RNN(D, D)),
    "TransformerEncoder": Case(lambda: nn.TransformerEncoder(_encoder_layer(batch_first=True), 2)),
    "TransformerEncoder, time first": Case(
        lambda: nn.TransformerEncoder(_encoder_layer(), 2, enable_nested_tensor=False)
    ),
    "TransformerEncoderLayer": Case(lambda: _encoder_layer(norm_first=True)),
    "GPT-2": Case(gpt2),
    "Llama": Case(lambda: LlamaForCausalLM(LlamaConfig(**LLAMA_LIKE))),
    "Qwen3": Case(lambda: Qwen3ForCausalLM(Qwen3Config(head_dim=8, **LLAMA_LIKE))),
    "Mistral": Case(lambda: MistralModel(MistralConfig(sliding_window=4, **LLAMA_LIKE))),
    "Mamba": Case(
        lambda: MambaModel(
            MambaConfig(vocab_size=40, hidden_size=D, state_size=4, num_hidden_layers=2)
        )
    ),
    "BERT": Case(bert),
    "1 = real": Case(LogMask),
    "True = ignored, by keyword": Case(PaddingMask),
    "two masks of torch": Case(KeyPadding),
    "no mask": Case(NoMask),
    "lengths": Case(Packed),
    "last position": Case(LastState),
    "partial of a function": Case(lambda: functools.partial(decayed, nn.Linear(D, D))),
    "forward_fn": Case(
        lambda: SASRec(D, dropout=0.0, max_seq_length=LONGEST),
        {"forward_fn": lambda module, embeds, mask: module(embeds, mask), "hidden_size": D},
    ),
    "projected": Case(lambda: nn.GRU(12, 20), {"project": True, "hidden_size": D}),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def _is_last_only(backbone):
    return getattr(backbone, "last_only", False)


def _batch(lengths, length, seed=0):
    """Return random embeddings (B, L, D), left-padded with zeros, and their mask."""
    mask = (torch.arange(length) >= length - torch.tensor(lengths).unsqueeze(1)).long()
    generator = torch.Generator().manual_seed(seed)
    embeds = torch.randn(len(lengths), length, D, generator=generator)
    return embeds * mask.unsqueeze(-1), mask


@every_case
def test_shape(case):
    backbone = case.adapt()
    embeds, mask = _batch([5, 3], 5)
    hidden = backbone(embeds, mask)
    assert hidden.shape == ((2, D) if _is_last_only(backbone) else (2, 5, D))
    assert hidden.dtype == torch.float32


@every_case
def test_nothing_depends_on_a_later_item(case):
    backbone = case.adapt().eval()
    embeds, mask = _batch([6, 4], 6)
    changed = embeds.clone()
    changed[:, 4:] = torch.randn(2, 2, D)
    before, after = backbone(embeds, mask), backbone(changed, mask)
    if _is_last_only(backbone):
        assert not torch.allclose(before, after)
    else:
        real = mask[:, :4].bool()
        torch.testing.assert_close(before[:, :4][real], after[:, :4][real], rtol=0, atol=1e-6)
        assert not torch.allclose(before[:, 4], after[:, 4])


@every_case
@settings(max_examples=8)
@given(data=st.data())
@example(data=[[1], 1])
@example(data=[[2, 0, 1], 2])
@example(data=[[0], 3])
@example(data=[[LONGEST, 1], LONGEST])
def test_padding_and_other_users_change_nothing(case, data):
    lengths, length = data if isinstance(data, list) else _draw_lengths(data)
    backbone = case.adapt().eval()
    embeds, mask = _batch(lengths, length)
    hidden = backbone(embeds, mask)
    assert hidden.isfinite().all()
    for user, number in enumerate(lengths):
        if number:
            alone = backbone(embeds[user : user + 1, -number:], mask[user : user + 1, -number:])
            among = hidden[user] if _is_last_only(backbone) else hidden[user, -number:]
            torch.testing.assert_close(among, alone[0], rtol=1e-4, atol=1e-5)


def _draw_lengths(data):
    length = data.draw(st.integers(1, LONGEST))
    return data.draw(st.lists(st.integers(0, length), min_size=1, max_size=4)), length


@every_case
def test_rows_of_padding_leave_gradients_finite(case):
    backbone = case.adapt()
    embeds, mask = _batch([4, 0], 4)
    embeds.requires_grad_()
    hidden = backbone(embeds, mask)
    (hidden[:1].sum() if _is_last_only(backbone) else hidden[mask.bool()].sum()).backward()
    assert embeds.grad.isfinite().all()
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@every_case
def test_it_learns_32_sequences_by_heart(case):
    backbone = case.adapt()
    generator = torch.Generator().manual_seed(0)
    sequences = torch.randint(1, 40, (32, 6), generator=generator)
    sequences[:16, :2] = 0
    torch.manual_seed(1)  # the cases have drawn different numbers before
    items = nn.Embedding(40, D, padding_idx=0)
    optimizer = torch.optim.Adam([*items.parameters(), *backbone.parameters()], lr=0.003)
    inputs, labels = sequences[:, :-1], sequences[:, -1]
    for _ in range(1500):  # most cases need 100; rounding depends on the machine
        hidden = backbone(items(inputs), (inputs != 0).long())
        last = hidden if _is_last_only(backbone) else hidden[:, -1]
        logits = last @ items.weight.T
        if bool((logits.argmax(1) == labels).all()):
            return
        optimizer.zero_grad()
        F.cross_entropy(logits, labels).backward()
        optimizer.step()
    pytest.fail(f"{(logits.argmax(1) == labels).sum()} of 32 sequences learnt")


@every_case
def test_weights_go_from_one_to_another(case):
    first, second = case.adapt().eval(), case.adapt().eval()
    embeds, mask = _batch([5, 3], 5)
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    assert not torch.equal(first(embeds, mask), second(embeds, mask))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(embeds, mask), second(embeds, mask))


@every_case
def test_copies_have_weights_of_their_own(case):
    backbone = case.adapt().eval()
    other = copy.deepcopy(backbone)
    embeds, mask = _batch([5, 3], 5)
    before = backbone(embeds, mask)
    torch.testing.assert_close(other(embeds, mask), before)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    assert torch.equal(backbone(embeds, mask), before)
    assert not torch.allclose(other(embeds, mask), before)


@every_case
def test_bfloat16(case):
    backbone = case.adapt().eval()
    embeds, mask = _batch([5, 3], 5)
    exact = backbone(embeds, mask)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = backbone(embeds, mask)
    half = backbone.to(torch.bfloat16)(embeds.to(torch.bfloat16), mask)
    assert half.dtype == torch.bfloat16
    for result in (mixed, half):
        assert_rounded(result, exact, torch.bfloat16, LAYERS)


@every_case
def test_the_users_object_stays_as_it_is(case):
    backbone = case.build()
    user = backbone.args[0] if isinstance(backbone, functools.partial) else backbone
    user.train()
    before = copy.deepcopy(user.state_dict())
    names = [name for name, _ in user.named_modules()]
    random_state = torch.get_rng_state()
    adapt_backbone(backbone, **case.options)
    if "project" in case.options:  # new layers have random weights
        torch.set_rng_state(random_state)
    check_backbone(backbone, max_seq_length=LONGEST, **case.options)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(module.training for module in user.modules())
    assert all(parameter.grad is None for parameter in user.parameters())
    assert [name for name, _ in user.named_modules()] == names
    assert user.state_dict().keys() == before.keys()
    for name, value in user.state_dict().items():
        assert torch.equal(value, before[name]), name


@every_case
def test_the_probe_finds_nothing(case):
    torch.manual_seed(0)
    backbone = case.build()
    report = check_backbone(backbone, max_seq_length=LONGEST, **case.options)
    assert not report.errors, str(report)
    assert not report.warnings, str(report)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["TransformerEncoder", "GPT-2", "1 = real", "True = ignored, by keyword", "last position"],
)
def test_adapters_compile_without_a_break(name):
    backbone = CASES[name].adapt().eval()
    embeds, mask = _batch([5, 3], 5)
    compiled = torch.compile(backbone, backend="eager", fullgraph=True)
    with torch._dynamo.config.patch(allow_rnn=True):
        assert torch.equal(compiled(embeds, mask), backbone(embeds, mask))
    torch._dynamo.reset()
