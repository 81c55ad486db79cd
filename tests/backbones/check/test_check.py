"""Each kind of broken backbone gets its specific message.

Letters: B users, L positions, D hidden size.
"""

import random
import traceback

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from toys import toy_model

from odmt_sdk.backbones.check.report import BackboneReport, Finding, check_backbone
from odmt_sdk.backbones.models.sasrec import SASRec

D = 8
NAMES = [
    "shape",
    "finite",
    "no state",
    "deterministic",
    "users apart",
    "causal",
    "left padding",
    "right padding",
    "empty rows",
    "gradients",
    "saved",
    "training",
    "input",
    "bfloat16",
    "length",
]


class Native(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(D, D)

    def forward(self, inputs_embeds, attention_mask):
        return self.change(self.layer(inputs_embeds), attention_mask)

    def change(self, hidden, mask):
        return hidden


class Future(Native):
    def change(self, hidden, mask):
        return hidden.flip(1).cumsum(1).flip(1)


class OneStepAhead(Native):
    def change(self, hidden, mask):
        return hidden + 1e-3 * F.pad(hidden[:, 1:], (0, 0, 0, 1))


class ScalarOutput(Native):
    def change(self, hidden, mask):
        return hidden.sum()


class Complex(Native):
    def change(self, hidden, mask):
        return torch.fft.fft(hidden)


class Infinite(Native):
    def change(self, hidden, mask):
        return hidden / 0


class KeepsState(Native):
    state = None

    def change(self, hidden, mask):
        hidden = hidden if self.state is None else hidden + self.state
        self.state = hidden[:, -1:].detach()
        return hidden


class AlwaysDrops(Native):
    def change(self, hidden, mask):
        return F.dropout(hidden, 0.5)


class InPlace(Native):
    def forward(self, inputs_embeds, attention_mask):
        inputs_embeds *= 2
        return self.layer(inputs_embeds)


class InPlaceOnTheMask(Native):
    def forward(self, inputs_embeds, attention_mask):
        attention_mask.zero_()
        return self.layer(inputs_embeds)


class Float32Only(Native):
    def change(self, hidden, mask):
        return hidden @ torch.eye(D)


class ReturnsFloat32(Native):
    def change(self, hidden, mask):
        return hidden.float()


class OverflowsInHalf(Native):
    def change(self, hidden, mask):
        return hidden if hidden.dtype == torch.float32 else hidden / 0


class Detached(Native):
    def forward(self, inputs_embeds, attention_mask):
        return self.layer(inputs_embeds.detach())


class NoGradient(Native):
    def forward(self, inputs_embeds, attention_mask):
        with torch.no_grad():
            return self.layer(inputs_embeds)


class Unused(Native):
    def __init__(self):
        super().__init__()
        self.spare = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))


class ReadsPadding(Native):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(D, D, batch_first=True)

    def change(self, hidden, mask):
        return self.gru(hidden)[0]


class NanInPadding(Native):
    def change(self, hidden, mask):
        length = hidden.shape[1]
        visible = mask.bool()[:, None] & torch.ones(length, length, dtype=torch.bool).tril()
        scores = (hidden @ hidden.transpose(1, 2)).masked_fill(~visible, -torch.inf)
        hidden = scores.softmax(-1) @ hidden
        scores = (hidden @ hidden.transpose(1, 2)).masked_fill(~visible, -torch.inf)
        return scores.softmax(-1) @ hidden


class NanInEmptyRows(Native):
    def change(self, hidden, mask):
        return hidden * mask.cumsum(1).unsqueeze(-1) / mask.sum(1)[:, None, None]


class OverTheBatch(Native):
    def change(self, hidden, mask):
        return hidden - hidden.mean(0)


class TimeFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(D, D)

    def forward(self, x):
        return self.gru(x)[0]


class ShortTable(Native):
    def __init__(self):
        super().__init__()
        self.positions = nn.Embedding(11, D)

    def change(self, hidden, mask):
        length = hidden.shape[1]
        return hidden + self.positions.weight.flip(0)[:length].flip(0) * (length <= 11 or fail())


def fail():
    raise IndexError("index out of range")


class Normalizes(Native):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(D)

    def change(self, hidden, mask):
        return self.norm(hidden.flatten(0, 1)).view(hidden.shape)


class MixesInTraining(Native):
    def change(self, hidden, mask):
        return hidden - hidden.mean(0) if self.training else hidden


class FutureInTraining(Native):
    def change(self, hidden, mask):
        return hidden.flip(1).cumsum(1).flip(1) if self.training else hidden.cumsum(1)


class CarriesState(KeepsState):
    def change(self, hidden, mask):
        return super().change(hidden, mask) if self.training else hidden


class OwnGenerator(Native):
    def __init__(self):
        super().__init__()
        self.drawn = random.Random(0)

    def change(self, hidden, mask):
        return hidden * self.drawn.random() if self.training else hidden


class VeryShortTable(Native):
    def __init__(self):
        super().__init__()
        self.positions = nn.Embedding(3, D)

    def change(self, hidden, mask):
        return hidden + self.positions(torch.arange(hidden.shape[1]))


class PlainLists(Native):
    def __init__(self, frozen=False):
        super().__init__()
        self.more = [nn.Linear(D, D).requires_grad_(not frozen) for _ in range(2)]
        self.scales = {"a": nn.Parameter(torch.ones(D), requires_grad=not frozen)}

    def change(self, hidden, mask):
        for layer in self.more:
            hidden = layer(hidden)
        return hidden * self.scales["a"]


class LayerDrop(Native):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(D, D) for _ in range(3))

    def change(self, hidden, mask):
        for layer in self.layers:
            if not self.training or torch.rand(()) < 0.5:
                hidden = hidden + layer(hidden)
        return hidden


@pytest.mark.parametrize(
    ("backbone", "name", "level", "message"),
    [
        (ScalarOutput(), "shape", "error", r"returned the shape \(\) for embeddings of shape"),
        (Complex(), "shape", "error", "returned torch.complex64 numbers, .* return hidden.real"),
        (Infinite(), "finite", "error", "nan or inf for small normal inputs"),
        (KeepsState(), "no state", "error", "keeps state between calls, .* reset it in forward"),
        (AlwaysDrops(), "deterministic", "error", "random numbers in eval mode, .* training=self"),
        (OverTheBatch(), "users apart", "error", "depend on the other users in the batch"),
        (TimeFirst(), "users apart", "error", r"if it expects \(L, B, D\), use batch_first=True"),
        (Future(), "causal", "error", "it reads the future: a change of item 2 changes"),
        (OneStepAhead(), "causal", "error", "it reads the future: .* or pass allow_future=True"),
        (ReadsPadding(), "left padding", "warning", "padding on the left changes its outputs, "),
        (NanInPadding(), "left padding", "error", "padding on the left turns its outputs into nan"),
        (NanInEmptyRows(), "empty rows", "error", "a row that holds only padding turns outputs or"),
        (Detached(), "gradients", "error", r"no gradient reaches the item embeddings, .* detach"),
        (NoGradient(), "gradients", "error", "no gradient reaches the item embeddings"),
        (Unused(), "gradients", "warning", r"spare.0.weight, .*spare.1.bias and 2 more got no "),
        (Normalizes(), "training", "warning", "^norm is a BatchNorm: .* padding, .* nn.LayerNorm"),
        (MixesInTraining(), "training", "warning", "in training mode, but not in eval mode, the"),
        (FutureInTraining(), "training", "error", "it reads the future in training mode"),
        (CarriesState(), "training", "error", "carries state from one batch to the next"),
        (OwnGenerator(), "training", "warning", "draws from its own random generator"),
        (LayerDrop(), "gradients", "warning", "in some steps only, .* LayerDrop"),
        (InPlace(), "input", "warning", "changes its input in place, .* by x = x"),
        (InPlaceOnTheMask(), "input", "warning", "changes its input in place"),
        (Float32Only(), "bfloat16", "warning", r"does not run in bfloat16 \(RuntimeError: "),
        (ReturnsFloat32(), "bfloat16", "warning", "returns torch.float32 for bfloat16 inputs"),
        (OverflowsInHalf(), "bfloat16", "warning", "returns nan or inf in bfloat16"),
        (PlainLists(), "saved", "warning", r"^more.0.weight, .*and 1 more are weights outside"),
        (VeryShortTable(), "shape", "error", "at most 3 positions, and max_seq_length is 50 .*=3"),
        (ShortTable(), "length", "error", "at most 11 positions, and max_seq_length is 50 .*=11"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)  # fmt: skip
def test_bad_backbones(backbone, name, level, message):
    report = check_backbone(backbone, hidden_size=D)
    finding = next(finding for finding in report.findings if finding.name == name)
    assert finding.level == level
    with pytest.raises(ValueError, match=message):
        raise ValueError(finding.message)
    worse = {finding.name for finding in report.errors} - {name}
    assert worse <= {"left padding", "empty rows"}, str(report)


def test_frozen_helpers_may_stay_outside_the_state_dict():
    report = check_backbone(PlainLists(frozen=True))
    assert [finding.name for finding in report.warnings] == ["bfloat16"]


def test_a_good_one():
    report = check_backbone(SASRec(D))
    assert [finding.name for finding in report.findings] == NAMES
    assert not report.errors
    assert not report.warnings
    report.raise_for_errors()
    assert str(report).splitlines()[:2] == [
        "SASRec",
        "ok       shape          returns every position",
    ]


def test_the_future_can_be_allowed():
    report = check_backbone(Future(), allow_future=True)
    causal = next(finding for finding in report.findings if finding.name == "causal")
    assert (causal.level, causal.message) == ("ok", "reads later items, as allowed")


def test_the_users_traceback_is_the_cause():
    class Raises(Native):
        def change(self, hidden, mask):
            raise KeyError("deep inside")

    report = check_backbone(Raises(), hidden_size=D)
    with pytest.raises(
        ValueError, match="Raises cannot be used:\nshape: it raised KeyError"
    ) as error:
        report.raise_for_errors()
    frames = traceback.extract_tb(error.value.__cause__.__traceback__)
    assert frames[-1].name == "change"


def test_one_that_raises_only_in_training():
    class Raises(Native):
        def change(self, hidden, mask):
            if self.training:
                raise RuntimeError("not yet")
            return hidden

    report = check_backbone(Raises())
    assert {finding.name for finding in report.errors} == {"empty rows", "gradients", "training"}


def test_all_errors_are_raised_at_once():
    report = BackboneReport(
        "Mine",
        (
            Finding("a", "error", "first."),
            Finding("b", "warning", "second."),
            Finding("c", "error", "third.", KeyError("x")),
        ),
    )
    with pytest.raises(ValueError, match="^Mine cannot be used:\na: first.\nc: third.$") as error:
        report.raise_for_errors()
    assert isinstance(error.value.__cause__, KeyError)
    assert [finding.name for finding in report.warnings] == ["b"]


def test_nothing_is_left_behind():
    module = Native().train()
    module.layer.eval()
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    check_backbone(module)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert (np.random.get_state()[1] == states[2]).all()
    assert module.training
    assert not module.layer.training
    assert module.layer.weight.grad is None


def test_frozen_weights_need_no_gradient():
    module = Native().requires_grad_(False)
    assert not check_backbone(module).errors


def test_batch_norm_that_is_frozen_is_fine():
    class Frozen(Normalizes):
        def train(self, mode=True):
            super().train(mode)
            self.norm.eval()
            return self

    assert not check_backbone(Frozen(), hidden_size=D).warnings


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_dropout_is_no_state(rate):
    class Drops(Native):
        def __init__(self):
            super().__init__()
            self.drop = nn.Dropout(rate)

        def change(self, hidden, mask):
            return self.drop(hidden)

    for backbone in (Drops(), nn.GRU(D, D, num_layers=2, dropout=rate), SASRec(D, dropout=rate)):
        assert not check_backbone(backbone, hidden_size=D).warnings


@pytest.mark.parametrize("length", [1, 2, 3])
@pytest.mark.parametrize("hidden_size", [D, None])
def test_short_limits(length, hidden_size):
    report = check_backbone(SASRec(D, max_seq_length=length), hidden_size=hidden_size)
    assert not report.errors, str(report)
    assert report.findings[-1].message == f"reads {length} positions"


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_of_numbers(dtype):
    report = check_backbone(nn.GRU(D, D).to(dtype))
    assert not report.errors, str(report)


def test_what_cannot_be_copied():
    module = Native()
    module.cache = module.layer.weight * 2  # not a leaf, so torch cannot copy it
    with pytest.raises(ValueError, match="Native cannot be copied .* keep no locks, generators"):
        check_backbone(module)


def test_options_of_adapting():
    assert check_backbone(ReadsPadding(), bridge="signature").warnings == ()
    assert not check_backbone(nn.GRU(4, 6), hidden_size=D, project=True).errors
    report = check_backbone(
        TimeFirst(),
        hidden_size=D,
        forward_fn=lambda module, x, mask: module(x.transpose(0, 1)).transpose(0, 1),
    )
    assert [finding.name for finding in report.warnings] == ["left padding"]


def test_a_wrapper_has_all_its_backbones_checked():
    report = check_backbone(toy_model(SASRec(D)))
    assert not report.errors
    assert {finding.name.split(":")[0] for finding in report.findings} == {"id", "text", "image"}
    shared = check_backbone(toy_model(SASRec(D), share_backbone=True))
    assert [finding.name for finding in shared.findings] == NAMES
