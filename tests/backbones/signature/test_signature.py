"""Modules with custom argument names: which are recognized, and which are probed.

Letters: B users, L positions, D hidden size.
"""

import collections
import dataclasses

import pytest
import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutput

from odmt_sdk.backbones.adapt import adapt_backbone, unwrap_backbone
from odmt_sdk.backbones.signature.backbone import Call, MaskForm, SignatureBackbone
from odmt_sdk.backbones.signature.roles import read_arguments

D = 8
EMBEDS = torch.randn(2, 5, D, generator=torch.Generator().manual_seed(0))
MASK = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
REAL, IGNORED = MaskForm("real", "int"), MaskForm("ignored", "bool")


def roles(function):
    found = read_arguments(function, "f")
    return found.embeds, found.mask, found.causal, found.lengths


class TestNames:
    @pytest.mark.parametrize(
        ("function", "expected"),
        [
            (lambda x: 0, ("x", None, None, None)),
            (lambda whatever: 0, ("whatever", None, None, None)),
            (lambda input_embs, log_mask, rank=0: 0, ("input_embs", "log_mask", None, None)),
            (lambda emb, padding_mask=None: 0, ("emb", "padding_mask", None, None)),
            (lambda mask, emb: 0, ("emb", "mask", None, None)),
            (lambda x, is_pad: 0, ("x", "is_pad", None, None)),
            (lambda x, m: 0, ("x", "m", None, None)),
            (lambda seqs, seq_len: 0, ("seqs", None, None, "seq_len")),
            (lambda item_emb, lengths, max_len=9: 0, ("item_emb", None, None, "lengths")),
            (lambda src, mask, key_padding_mask: 0, ("src", "key_padding_mask", "mask", None)),
            (lambda src, src_mask=None: 0, ("src", None, "src_mask", None)),
            (lambda item_ids=None, mask=None, embeds=None: 0, ("embeds", "mask", None, None)),
            (lambda x, /, *, attention_mask: 0, ("x", "attention_mask", None, None)),
            (lambda x, dropout=0.1, return_mask=False: 0, ("x", None, None, None)),
        ],
    )  # fmt: skip
    def test_tell_the_roles(self, function, expected):
        assert roles(function) == expected

    @pytest.mark.parametrize(
        ("function", "message"),
        [
            (
                lambda: 0,
                r"f\(\) names no argument for the embeddings: define how it is called with f",
            ),
            (lambda *args, **kwargs: 0, r"f\(\*args, \*\*kwargs\) names no argument"),
            (lambda mask, lengths: 0, "has no argument for the embeddings"),
            (lambda x, users, times: 0, "requires users, times, but only embeddings, masks and"),
            (lambda x, mask, users: 0, "requires users, but only"),
            (lambda seq, seq_emb: 0, "requires seq, but only"),
            (lambda x, key_mask, padding_mask: 0, "requires padding_mask, but only"),
        ],
    )
    def test_errors(self, function, message):
        with pytest.raises(ValueError, match=message):
            read_arguments(function, "f")


class Attention(nn.Module):
    """One causal layer; `visible` (B, L), True = may be seen."""

    def __init__(self, positions=False):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(D, D) for _ in range(3))
        self.positions = nn.Parameter(torch.randn(9, D)) if positions else None

    def attend(self, x, visible, hide=-1e4):
        length = x.shape[1]
        x = x if self.positions is None else x + self.positions[:length]
        scores = self.query(x) @ self.key(x).transpose(1, 2)
        visible = visible[:, None, :] & torch.ones(length, length, dtype=torch.bool).tril()
        return x + scores.masked_fill(~visible, hide).softmax(-1) @ self.value(x)


class Real(Attention):
    def forward(self, x, mask):
        return self.attend(x, mask > 0)


class RealByOneMinus(Attention):
    def forward(self, x, mask):
        return self.attend(x, (1 - mask) == 0)


class RealBool(Attention):
    def forward(self, x, mask):
        return self.attend(x, ~~mask)


class Ignored(Attention):
    def forward(self, x, mask):
        return self.attend(x, ~mask)


class IgnoredInNan(Attention):
    def forward(self, x, mask):
        return self.attend(x, ~mask, hide=-torch.inf)


class Additive(Attention):
    def forward(self, x, mask):
        length = x.shape[1]
        scores = self.query(x) @ self.key(x).transpose(1, 2) + mask.clamp(min=-1e4)[:, None, :]
        future = torch.ones(length, length, dtype=torch.bool).triu(1)
        return x + scores.masked_fill(future, -torch.inf).softmax(-1) @ self.value(x)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(D, D, batch_first=True)


class MasksItsOutput(Recurrent):
    def forward(self, x, mask):
        return self.gru(x)[0] * mask.unsqueeze(-1)


class MasksItsInput(Recurrent):
    def forward(self, x, padding):
        return self.gru(x.masked_fill(padding.unsqueeze(-1), 0))[0]


class CountsItsMask(Recurrent):
    def forward(self, x, mask):
        packed = nn.utils.rnn.pack_padded_sequence(
            x, mask.sum(1).cpu(), batch_first=True, enforce_sorted=False
        )
        return nn.utils.rnn.pad_packed_sequence(self.gru(packed)[0], batch_first=True)[0]


class DoesNotReadItsMask(Recurrent):
    def forward(self, x, mask):
        return self.gru(x)[0]


class LastSlot(Attention):
    def forward(self, x, mask):
        return self.attend(x, mask > 0)[:, -1]


class CausalMask(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(D, 2, 16, dropout=0.0, batch_first=True)

    def forward(self, src, mask=None):
        return self.layer(src, mask)


class BothMasks(CausalMask):
    def forward(self, src, src_mask, src_key_padding_mask):
        return self.layer(src, src_mask, src_key_padding_mask)


class TestWhatIsMeasured:
    @pytest.mark.parametrize(
        ("module", "mask", "right_padded"),
        [
            (Real(), REAL, False),
            (Real(positions=True), REAL, True),
            (RealByOneMinus(), REAL, False),
            (RealBool(), MaskForm("real", "bool"), False),
            (Ignored(), IGNORED, False),
            (Ignored(positions=True), IGNORED, True),
            (IgnoredInNan(), IGNORED, True),
            (Additive(), MaskForm("additive", "float"), False),
            (MasksItsOutput(), REAL, True),
            (MasksItsInput(), IGNORED, True),
            (CountsItsMask(), REAL, True),
            (DoesNotReadItsMask(), REAL, True),
        ],
    )
    def test_the_mask_and_the_side_of_padding(self, module, mask, right_padded):
        # `Real` needs no bridge, so build one by hand to see the result of probing
        adapted = adapt_backbone(module)
        if adapted is module:
            assert (mask, right_padded) == (REAL, False)
        else:
            assert adapted.call == Call(mask=mask, right_padded=right_padded)
            assert unwrap_backbone(adapted) is module
        alone = adapted(EMBEDS[:1, 2:], MASK[:1, 2:])[0]
        torch.testing.assert_close(adapted(EMBEDS, MASK)[0, 2:], alone)

    def test_the_last_position_is_read_from_the_last_slot(self):
        adapted = adapt_backbone(LastSlot())
        assert adapted.last_only
        assert not adapted.call.right_padded
        assert adapted(EMBEDS, MASK).shape == (2, D)

    @pytest.mark.parametrize(
        ("module", "mask"), [(CausalMask(), None), (BothMasks(), IGNORED)], ids=["lone", "both"]
    )
    def test_a_causal_mask(self, module, mask):
        adapted = adapt_backbone(module)
        assert (adapted.call.mask, adapted.call.causal) == (mask, IGNORED)  # either side will do
        changed = EMBEDS.clone()
        changed[:, 3:] = torch.randn(2, 2, D)
        before, after = adapted(EMBEDS, MASK), adapted(changed, MASK)
        real = MASK[:, :3].bool()
        torch.testing.assert_close(before[:, :3][real], after[:, :3][real])

    def test_lengths_sorted_where_packing_asks(self):
        class Packs(Recurrent):
            def forward(self, x, lengths):
                packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
                return nn.utils.rnn.pad_packed_sequence(self.gru(packed)[0], batch_first=True)[0]

        module = Packs()
        adapted = adapt_backbone(module)
        assert adapted.call.longest_first
        hidden = adapted(EMBEDS[:, 1:], torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1]]))
        torch.testing.assert_close(hidden[0, 2:], module.gru(EMBEDS[:1, 3:])[0][0])
        torch.testing.assert_close(hidden[1, 1:], module.gru(EMBEDS[1:, 2:])[0][0])

    def test_a_mask_that_hides_nothing_is_ambiguous(self):
        class Marks(nn.Module):
            def __init__(self):
                super().__init__()
                self.mark = nn.Embedding(2, D)

            def forward(self, x, mask):
                return x + self.mark(mask.long())

        message = (
            "Marks: its argument 'mask' can be read as 1 = real or as 1 = ignored. Both hide the "
            "padding but give different results: define how it is called with forward_fn="
        )
        with pytest.raises(ValueError, match=message):
            adapt_backbone(Marks())

    def test_an_unknown_argument_is_a_mask_only_if_it_acts_as_one(self):
        class Acts(Ignored):
            def forward(self, x, m):
                return super().forward(x, m)

        class DoesNot(Recurrent):
            def forward(self, x, user):
                return self.gru(x)[0]

        assert adapt_backbone(Acts()).call.mask == IGNORED
        with pytest.raises(ValueError, match="DoesNot requires user, which is an unknown name. A"):
            adapt_backbone(DoesNot())

    def test_a_mask_that_never_hides_the_padding(self):
        class Mixes(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(D, D)

            def forward(self, x, mask):
                return self.layer(x + x.mean(1, keepdim=True)) + mask.unsqueeze(-1)

        with pytest.raises(
            ValueError, match="no form of its argument 'mask' makes the outputs depend"
        ):
            adapt_backbone(Mixes())

    def test_state_between_calls(self):
        class Counts(Real):
            calls = 0

            def forward(self, x, mask):
                self.calls += 1
                return super().forward(x, mask) * self.calls

        with pytest.raises(
            ValueError, match="does not give the same result twice, so the meaning of"
        ):
            adapt_backbone(Counts())

    def test_a_module_that_always_raises_is_the_cause(self):
        class Broken(Recurrent):
            def forward(self, x, mask):
                raise RuntimeError("no luck")

        with pytest.raises(
            ValueError, match=r"Broken could not be run on embeddings \(at"
        ) as error:
            adapt_backbone(Broken())
        assert "no luck" in str(error.value.__cause__)

    def test_several_widths_ask(self):
        class Scale(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(6))

            def forward(self, x):
                return x * self.a.sum() * self.b.sum()

        with pytest.raises(ValueError, match=r"several widths \(\[4, 6\]\): choose one with"):
            adapt_backbone(Scale())
        assert adapt_backbone(Scale(), hidden_size=6).hidden_size == 6

    def test_other_widths_are_tried_with_the_mask_that_ran(self):
        widths = []

        class Counting(nn.Module):
            def __init__(self):
                super().__init__()
                self.gru = nn.GRU(D, D, batch_first=True)

            def forward(self, emb, padding_mask):
                widths.append(emb.shape[-1])
                return self.gru(emb.masked_fill(padding_mask[..., None], 0))[0]

        adapt_backbone(Counting())
        assert widths.count(3 * D) == 1  # of the GRU's weights
        assert len(widths) <= 10

    def test_warnings_of_forms_that_are_only_tried_are_not_shown(self, recwarn):
        adapt_backbone(BothMasks())
        assert not [w for w in recwarn if "mask" in str(w.message)]


@dataclasses.dataclass
class Output:
    states: torch.Tensor
    note: str = ""


Named = collections.namedtuple("Named", ["weights", "hidden"])


class TestReturned:
    @pytest.mark.parametrize(
        ("wrap", "key"),
        [
            (lambda h: h, None),
            (lambda h: (h, h.sum()), 0),
            (lambda h: (h.sum(), h, h), 1),
            (lambda h: [h], 0),
            (lambda h: {"loss": h.sum(), "states": h}, "states"),
            (lambda h: {"a": h, "last_hidden_state": h}, "last_hidden_state"),
            (lambda h: {"scores": h @ h.transpose(1, 2), "h": h}, "h"),
            (lambda h: BaseModelOutput(h, hidden_states=(h, h)), "last_hidden_state"),
            (Output, "states"),
            (lambda h: Named(h.sum(), h), "hidden"),
        ],
    )  # fmt: skip
    def test_where_the_states_are(self, wrap, key):
        class Wraps(Recurrent):
            def forward(self, x):
                return wrap(self.gru(x)[0])

        module = Wraps()
        adapted = adapt_backbone(module)
        assert adapted.call.key == key
        torch.testing.assert_close(adapted(EMBEDS, MASK)[1], module.gru(EMBEDS)[0][1])

    @pytest.mark.parametrize(
        ("wrap", "message"),
        [
            (lambda h: [h, h], r"several tensors that could be the hidden states \(a list of 0: "),
            (lambda h: {"a": h, "b": h}, "several tensors that could be the hidden states"),
            (lambda h: h.sum(), r"it returned a tensor \(\) for embeddings of shape \(2, 6, 8\)"),
            (lambda h: "text", "it returned a str for embeddings"),
            (lambda h: None, "it returned a NoneType"),
            (lambda h: (h.sum(),), r"it returned a tuple of 0: \(\)"),
            (lambda h: h.mean(-1), r"it returned one number per position, a tensor \(2, 6\)"),
            (
                lambda h: torch.complex(h, h),
                "complex numbers .* return hidden.real, or torch.view_as",
            ),
        ],
    )
    def test_errors(self, wrap, message):
        class Wraps(Recurrent):
            def forward(self, x):
                return wrap(self.gru(x)[0])

        with pytest.raises(ValueError, match="Wraps could not be run on embeddings") as error:
            adapt_backbone(Wraps(), hidden_size=D)
        with pytest.raises(TypeError, match=message):
            raise error.value.__cause__
        assert "hidden_size=" not in str(error.value)  # it was given


def test_last_positions_as_wide_as_the_trial_is_long_are_hidden_states():
    class Narrow(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru = nn.GRU(D, 6, batch_first=True)

        def forward(self, x):
            return self.gru(x)[0][:, -1]

    adapted = adapt_backbone(Narrow(), hidden_size=D, project=True)
    assert adapted(EMBEDS, MASK).shape == (len(EMBEDS), D)


@pytest.mark.parametrize("rows", [2, 3, 4, 5])
def test_a_very_short_table_of_positions_is_read_at_its_length(rows):
    class Short(Recurrent):
        def __init__(self):
            super().__init__()
            self.positions = nn.Embedding(rows, D)

        def forward(self, x, padding_mask):
            x = x.masked_fill(padding_mask.unsqueeze(-1), 0)
            return self.gru(x + self.positions(torch.arange(x.shape[1])))[0]

    module = Short()
    adapted = adapt_backbone(module)
    assert adapted.hidden_size == D
    assert adapted.call.mask == IGNORED
    embeds = EMBEDS[:, :2]
    hidden = adapted(embeds, torch.tensor([[0, 1], [1, 1]]))
    alone = torch.zeros(1, 1, dtype=torch.bool)
    torch.testing.assert_close(hidden[0, 1:], module(embeds[:1, 1:], alone)[0])


class ReadsBatch(Recurrent):
    def forward(self, batch):
        return self.gru(batch["item_emb"])[0] * batch.get("padding_mask").unsqueeze(-1)


def test_a_module_that_takes_a_mapping_of_all_inputs_is_told_its_forward_fn():
    message = (
        "ReadsBatch could not be run on embeddings .*: its 'batch' seems to be a mapping of all "
        r"inputs. Fill the mapping with (forward_fn=.* module\(\{.*\}\))$"
    )
    with pytest.raises(ValueError, match=message) as error:
        adapt_backbone(ReadsBatch(), hidden_size=D)
    advice = str(error.value).partition("forward_fn=")[2]
    forward_fn = eval(advice)
    adapted = adapt_backbone(ReadsBatch(), hidden_size=D, forward_fn=forward_fn)
    assert adapted(EMBEDS, MASK).shape == EMBEDS.shape


@pytest.mark.parametrize("name", ["attention_mask", "log_mask"])
def test_a_name_that_says_the_sense_is_tried_first_and_believed_if_it_acts_so(name):
    calls = []
    scope = {"Attention": Attention, "calls": calls, "torch": torch}
    source = f"""
class Named(Attention):
    def forward(self, x, {name}):
        calls.append({name})
        return self.attend(x, {name} != 0)
class Contrary(Attention):
    def forward(self, x, {name}):
        return self.attend(x, {name} == 0)
"""
    exec(source, scope)
    adapted = adapt_backbone(scope["Named"]())
    assert getattr(adapted, "call", Call(mask=REAL, right_padded=False)).mask == REAL
    assert len(calls) <= 8
    assert adapt_backbone(scope["Contrary"]()).call.mask.sense == "ignored"


def test_other_ways_of_passing():
    class Mixed(Recurrent):
        def forward(self, emb, /, scale=None, *, lengths):
            return self.gru(emb)[0]

    adapted = adapt_backbone(Mixed())
    assert isinstance(adapted, SignatureBackbone)
    assert adapted(EMBEDS, MASK).shape == EMBEDS.shape


def test_a_limit_that_the_module_states():
    class Limited(Recurrent):
        max_seq_length = 7

        def forward(self, x):
            return self.gru(x)[0]

    assert adapt_backbone(Limited()).max_seq_length == 7


def test_compiled_modules_are_read_without_compiling():
    class Plain(Recurrent):
        def forward(self, x):
            return self.gru(x)

    compiled = torch.compile(Plain())
    adapted = adapt_backbone(compiled)
    assert adapted.module is compiled
    assert adapted.call == Call(key=0)
