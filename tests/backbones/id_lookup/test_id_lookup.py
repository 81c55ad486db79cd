"""Models that take only item ids give the same numbers with embeddings as with their own table.

Letters: B users, L positions, N items, D hidden size.
"""

import copy
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import id_models as models
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rounding import assert_rounded
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from odmt_sdk.backbones.adapt import adapt_backbone, unwrap_backbone
from odmt_sdk.backbones.id_lookup.backbone import IdLookupBackbone, takes_item_ids_only
from odmt_sdk.backbones.id_lookup.table import FedTable, replace_table, restore_table
from odmt_sdk.backbones.models.sasrec import SASRec

N, D, LONGEST = 20, 16, 12
LAYERS = 2  # of the deepest model


@dataclass(eq=False)
class Case:
    """A model, the user's settings for it, and how to call it without the package.

    `direct` takes the model, its item ids (B, L) padded on the right with 0, and the lengths.
    """

    build: Callable[[], nn.Module]
    direct: Callable[..., torch.Tensor]
    table: str
    stated: dict[str, Any] = field(default_factory=dict)
    last_only: bool = True
    max_seq_length: int | None = None
    padding_id: int = 0


def _with_lengths(model, item_seq, lengths):
    return model(item_seq, lengths)


def _in_window(model, item_seq, lengths):
    return model(F.pad(item_seq, (0, LONGEST - item_seq.shape[1])))


CASES = {
    "recurrent": Case(lambda: models.GRURecommender(N + 1), _with_lengths, "item_embedding"),
    "attention": Case(
        lambda: models.AttentionRecommender(N + 1),
        _with_lengths,
        "item_embedding",
        max_seq_length=12,
    ),
    "session graph": Case(
        lambda: models.SessionGraphRecommender(N + 1), _with_lengths, "item_embedding"
    ),
    "memory": Case(lambda: models.MemoryRecommender(N + 1), _with_lengths, "item_embedding"),
    "convolution": Case(
        lambda: models.ConvolutionRecommender(N + 1),
        _in_window,
        "item_embedding",
        max_seq_length=12,
    ),
    "dilated convolution": Case(
        lambda: models.DilatedRecommender(N),
        lambda model, item_seq, lengths: model(item_seq),
        "item_emb",
        last_only=False,
    ),
    "mixed": Case(
        lambda: models.MixedRecommender(N),
        # items are 0..N-1 there, and N is padding
        lambda model, item_seq, lengths: model.encode(
            torch.where(item_seq == 0, N, item_seq - 1), lengths
        )["last_hidden_state"],
        "embeddings.item",
        {"method": "encode"},
        padding_id=N,
    ),
    "attention on arrays": Case(
        lambda: models.NumpyAttentionRecommender(3, N),
        lambda model, item_seq, lengths: model.log2feats(item_seq.numpy()),
        "item_emb",
        {"method": "log2feats"},
        last_only=False,
        max_seq_length=12,
    ),
    "filter": Case(
        lambda: models.FilterRecommender(N + 1),
        lambda model, item_seq, lengths: _in_window(model, item_seq, lengths)[
            torch.arange(len(lengths)), lengths - 1
        ],
        "item_embeddings",
        {"last_only": True},
        max_seq_length=12,
    ),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


@cache
def built(case: Case) -> tuple[nn.Module, IdLookupBackbone, torch.Tensor]:
    """Cached `build`, for tests that do not modify the result."""
    return build(case)


def build(case: Case) -> tuple[nn.Module, IdLookupBackbone, torch.Tensor]:
    """Build a model, its bridge, and embeddings (N + 1, D) equal to those in the model's table."""
    model = case.build().eval()
    embeddings = torch.randn(N + 1, D)
    embeddings[0] = 0
    ids = [case.padding_id, *(i for i in range(N + 1) if i != case.padding_id)]
    with torch.no_grad():
        model.get_submodule(case.table).weight[ids] = embeddings
    return model, IdLookupBackbone(model, **case.stated), embeddings


def by_row(case: Case, by_id: torch.Tensor) -> torch.Tensor:
    """Reorder embeddings (N + 1, D) from the model's ids to rows."""
    ids = [case.padding_id, *(i for i in range(N + 1) if i != case.padding_id)]
    return by_id[ids]


def pad(sequences: list[list[int]], side: str, length: int | None = None) -> torch.Tensor:
    length = length or max(map(len, sequences))
    padding = [[0] * (length - len(s)) for s in sequences]
    pairs = zip(sequences, padding, strict=True)
    return torch.tensor([s + p if side == "right" else p + s for s, p in pairs])


def read(backbone, sequences, embeddings, length=None) -> torch.Tensor:
    """Return the bridge's states (B, D); states (B, L, D) without padding, as (P, D)."""
    item_ids = pad(sequences, "left", length)
    mask = (item_ids != 0).long()
    states = backbone(embeddings[item_ids] * mask[..., None], mask, item_ids=item_ids)
    return states if backbone.last_only else states[mask.bool()]


def read_directly(case, model, sequences) -> torch.Tensor:
    item_seq = pad(sequences, "right")
    states = case.direct(model, item_seq, torch.tensor([len(s) for s in sequences]))
    return states if case.last_only else states[item_seq != 0]


SOME = [[3, 5, 3, 7], [1], [2, 2, 2], [9, 20, 4, 1, 5, 5]]
items = st.integers(1, N)
batches = st.lists(st.lists(items, min_size=1, max_size=LONGEST), min_size=1, max_size=5)


# the same numbers as the model itself


@every_case
@settings(max_examples=12)
@given(sequences=batches, extra=st.integers(0, 3))
def test_states_are_those_of_the_model_with_these_embeddings_in_its_table(case, sequences, extra):
    model, backbone, embeddings = built(case)
    length = min(max(map(len, sequences)) + extra, case.max_seq_length or 100)
    with torch.no_grad():
        states = read(backbone, sequences, embeddings, length)
        expected = read_directly(case, model, sequences)
    torch.testing.assert_close(states, expected, rtol=1e-5, atol=1e-6)


@every_case
@settings(max_examples=5)
@given(sequences=batches)
def test_gradients_are_those_of_the_model_with_these_embeddings_in_its_table(case, sequences):
    model, backbone, embeddings = built(case)
    model.zero_grad()
    backbone.zero_grad()
    embeddings = embeddings.clone().requires_grad_()
    states = read(backbone, sequences, embeddings)
    weights = torch.randn(states.shape)
    (states * weights).sum().backward()
    (read_directly(case, model, sequences) * weights).sum().backward()

    table = model.get_submodule(case.table)
    gradient = by_row(case, table.weight.grad)
    gradient[0] = 0  # a table without padding_idx trains its padding row
    torch.testing.assert_close(embeddings.grad, gradient, rtol=1e-4, atol=1e-5)
    own = dict(model.named_parameters())
    for name, parameter in backbone.module.named_parameters():
        torch.testing.assert_close(parameter.grad, own[name].grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["recurrent", "attention", "convolution"])
def test_dropout_falls_as_in_the_model(name):
    case = CASES[name]
    model, backbone, embeddings = build(case)
    model.train()
    backbone.train()
    torch.manual_seed(1)
    states = read(backbone, SOME, embeddings)
    torch.manual_seed(1)
    expected = read_directly(case, model, SOME)
    torch.testing.assert_close(states, expected, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(states, read(backbone.eval(), SOME, embeddings))


@every_case
def test_without_item_ids_equal_embeddings_are_the_same_item(case):
    _, backbone, embeddings = built(case)
    item_ids = pad(SOME, "left")
    mask = item_ids != 0
    with torch.no_grad():
        states = backbone(embeddings[item_ids], mask)
        expected = backbone(embeddings[item_ids], mask, item_ids=item_ids)
    torch.testing.assert_close(states, expected, rtol=1e-5, atol=1e-6)


# what is detected


@every_case
def test_what_is_found_out(case):
    model, backbone, _ = built(case)
    assert backbone.item_embedding == case.table
    assert (backbone.hidden_size, backbone.output_size) == (D, D)
    assert backbone.last_only == case.last_only
    assert backbone.max_seq_length == case.max_seq_length
    assert backbone.reads_item_ids
    assert backbone.padding_side == "right"
    assert type(backbone.module) is type(model)


class Table(nn.Module):
    """A minimal id-only model; subclasses define its arguments and outputs."""

    def __init__(self, rows=N + 1, width=D, padding_idx=0):
        super().__init__()
        self.items = nn.Embedding(rows, width, padding_idx=padding_idx)


class Positions(Table):
    """Uses a position table in one of several ways."""

    def __init__(self, rows, find):
        super().__init__()
        self.positions = nn.Embedding(rows, D)
        self.find = find

    def forward(self, seq):
        positions = self.find(seq.shape[1], self.positions.num_embeddings)
        return (self.items(seq) + self.positions(positions)).cumsum(1)


@pytest.mark.parametrize(
    ("rows", "find", "longest"),
    [
        (7, lambda length, rows: torch.arange(length), 7),
        (7, lambda length, rows: torch.arange(1, length + 1), 6),
        (7, lambda length, rows: torch.arange(length).clamp(max=rows - 1), None),
        (7, lambda length, rows: torch.zeros(length, dtype=torch.long), None),
        (13, lambda length, rows: torch.arange(length) + 6, 7),
    ],
    ids=["from 0", "from 1", "no limit", "no positions", "with an offset"],
)
def test_position_table_limits_the_length(rows, find, longest):
    backbone = IdLookupBackbone(Positions(rows, find))
    assert backbone.max_seq_length == longest


def test_positions_counted_from_the_end_are_no_reason_to_pad_on_the_left():
    model = Positions(7, lambda length, rows: torch.arange(length - 1, -1, -1))
    with pytest.raises(ValueError, match="depends on the number of padding positions, on either"):
        IdLookupBackbone(model)
    backbone = IdLookupBackbone(model, padding_side="right")
    assert backbone.max_seq_length == 7


def test_too_long_sequences_are_refused():
    _, backbone, embeddings = built(CASES["attention"])
    read(backbone, [[1] * 12], embeddings)
    match = "sequences of 13 positions exceed the 12 that AttentionRecommender reads: cut them"
    with pytest.raises(ValueError, match=match):
        read(backbone, [[1] * 13], embeddings)


class LastColumn(Table):
    """Always reads the last position, so it needs left padding."""

    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(D, D, bias=False, batch_first=True)

    def forward(self, seq):
        return self.gru(self.items(seq))[0][:, -1]


def test_left_padding_is_found_where_the_right_changes_the_result():
    model = LastColumn()
    backbone = IdLookupBackbone(model)
    assert (backbone.padding_side, backbone.last_only) == ("left", True)
    states = read(backbone, SOME, model.items.weight)
    torch.testing.assert_close(states, model(pad(SOME, "left")))


class Window(Table):
    """Counts positions from the left of a window of four, padded on the left."""

    def __init__(self):
        super().__init__()
        self.place = nn.Parameter(torch.randn(4, D))

    def forward(self, seq):
        return (self.items(seq) * self.place).cumsum(1)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_side_and_fixed_length_can_be_stated(side):
    model = Window()
    backbone = IdLookupBackbone(model, padding_side=side, fixed_length=4)
    assert backbone.max_seq_length == 4
    sequences = [[3, 1], [2, 2, 5], [7]]
    item_ids = pad(sequences, side, 4)
    expected = model(item_ids)[item_ids != 0]
    torch.testing.assert_close(read(backbone, sequences, model.items.weight), expected)


def test_the_one_length_that_works_is_found_among_the_parameters():
    backbone = IdLookupBackbone(Window())
    assert (backbone.max_seq_length, backbone.padding_side) == (4, "right")


class Packed(Table):
    """Packs its sequences, so it returns as many positions as the longest one has."""

    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(D, D, batch_first=True)

    def forward(self, seq, seq_lens):
        packed = nn.utils.rnn.pack_padded_sequence(
            self.items(seq), seq_lens.cpu(), batch_first=True, enforce_sorted=False
        )
        return nn.utils.rnn.pad_packed_sequence(self.gru(packed)[0], batch_first=True)


def test_packed_sequences_may_come_back_shorter():
    backbone = IdLookupBackbone(Packed())
    embeddings = torch.randn(N + 1, D)
    assert not backbone.last_only
    states = read(backbone, SOME, embeddings, length=9)
    torch.testing.assert_close(states, read(backbone, SOME, embeddings))


# what the model receives


class Recorder(Table):
    """Records its arguments."""

    def __init__(self, **table):
        super().__init__(**table)
        self.log: list[Any] = []

    def forward(self, item_seq, item_seq_len, attention_mask=None, key_padding_mask=None, k=3):
        self.log.append((item_seq, item_seq_len, attention_mask, key_padding_mask, k))
        return self.items(item_seq).cumsum(1)


def test_ids_keep_who_equals_whom_and_masks_follow_them():
    backbone = IdLookupBackbone(Recorder())
    sequences = [[900, 7, 900], [12], [7, 12]]
    read(backbone, sequences, torch.randn(901, D))
    item_seq, lengths, mask, padding, k = backbone.module.log[-1]
    right = pad(sequences, "right")
    assert torch.equal(item_seq == 0, right == 0)
    same = right.flatten()[:, None] == right.flatten()
    assert torch.equal(item_seq.flatten()[:, None] == item_seq.flatten(), same)
    assert item_seq.dtype == torch.long
    assert item_seq.max() == 3
    assert lengths.tolist() == [3, 1, 2]
    assert torch.equal(mask, (right != 0).long())
    assert torch.equal(padding, right == 0)
    assert k == 3


def test_padding_id_is_the_tables_or_the_stated_one():
    model = Recorder(padding_idx=2)
    for backbone in (IdLookupBackbone(model), IdLookupBackbone(Recorder(), padding_id=2)):
        read(backbone, [[5, 6, 7, 5], [8]], torch.randn(9, D))
        item_seq = backbone.module.log[-1][0]
        assert torch.equal(item_seq == 2, pad([[5, 6, 7, 5], [8]], "right") == 0)
        assert sorted(set(item_seq.flatten().tolist())) == [0, 1, 2, 3, 4]


def test_item_ids_may_exceed_the_models_table():
    _, backbone, _ = built(CASES["session graph"])
    embeddings = torch.randn(10_000, D)
    states = read(backbone, [[9_999, 4, 9_999]], embeddings)
    small = read(backbone, [[2, 1, 2]], embeddings[[0, 4, 9_999]])
    torch.testing.assert_close(states, small)


@pytest.mark.parametrize(
    "forward",
    [
        lambda items, x: items(x).cumsum(1),
        lambda items, seq, anything=None: items(seq).cumsum(1),
        lambda items, history, seq_len=None: items(history)[
            torch.arange(len(seq_len)), seq_len - 1
        ],
        lambda items, input_ids, attention_mask: (
            items(input_ids).cumsum(1) * attention_mask[..., None]
        ),
        lambda items, n_items_len, session: items(session)[
            torch.arange(len(session)), n_items_len - 1
        ],
        lambda items, x, max_len=50: items(x).cumsum(1)[:, :max_len],
        lambda items, item_ids, length=5: items(item_ids).cumsum(1) + length,
        lambda items, item_seq=None, lengths=None: (items(item_seq).cumsum(1), lengths),
        lambda items, seqs: {"last_hidden_state": items(seqs).cumsum(1), "loss": None},
    ],
)
def test_signatures_that_are_understood(forward):
    class Model(Table):
        pass

    names = list(inspect.signature(forward).parameters)[1:]
    defaults = forward.__defaults__ or ()
    values = dict(zip(names[len(names) - len(defaults) :], defaults, strict=True))
    arguments = ", ".join(f"{n}={values[n]!r}" if n in values else n for n in names)
    scope: dict[str, Any] = {"inner": forward}
    exec(f"def call(self, {arguments}): return inner(self.items, {', '.join(names)})", scope)
    Model.forward = scope["call"]
    assert takes_item_ids_only(Model())
    read(IdLookupBackbone(Model()), SOME, torch.randn(N + 1, D))


def test_arguments_can_be_stated():
    class Model(Table):
        def forward(self, a, b, mask):
            states = self.items(a).cumsum(1)[torch.arange(len(b)), b - 1]
            return states + mask.float().mean()

    roles = {"a": "item_ids", "b": "lengths", "mask": "padding_mask"}
    model = Model()
    with torch.no_grad():
        states = read(IdLookupBackbone(model, arguments=roles), SOME, model.items.weight)
        ids = pad(SOME, "right")
        torch.testing.assert_close(states, model(ids, (ids != 0).sum(1), ids == 0))


# padding, empty rows, no state


@every_case
@settings(max_examples=5)
@given(data=st.data())
def test_rows_without_items_give_zeros_and_change_nothing(case, data):
    _, backbone, embeddings = built(case)
    mask = torch.tensor([[0] * 5, [0, 0, 1, 1, 1], [0] * 5, [1] * 5])
    item_ids = torch.tensor(data.draw(st.lists(items, min_size=20, max_size=20))).view(4, 5) * mask
    inputs = (embeddings[item_ids] * mask[..., None]).requires_grad_()
    states = backbone(inputs, mask, item_ids=item_ids)
    assert states.shape == ((4, D) if case.last_only else (4, 5, D))
    assert not states[[0, 2]].any()
    full = backbone(inputs[[1, 3]], mask[[1, 3]], item_ids=item_ids[[1, 3]])
    torch.testing.assert_close(states[[1, 3]], full, rtol=1e-5, atol=1e-6)
    states.sum().backward()
    assert inputs.grad.isfinite().all()
    assert not inputs.grad[mask == 0].any()


@every_case
def test_a_batch_without_any_item(case):
    _, backbone, _ = built(case)
    nothing = torch.zeros(2, 3, dtype=torch.long)
    states = backbone(torch.zeros(2, 3, D), nothing, item_ids=nothing)
    assert states.shape == ((2, D) if case.last_only else (2, 3, D))
    assert not states.any()


def test_states_at_padding_are_zeros():
    _, backbone, embeddings = built(CASES["dilated convolution"])
    item_ids = pad([[1, 2], [3, 4, 5]], "left")
    states = backbone(embeddings[item_ids], item_ids != 0, item_ids=item_ids)
    assert not states[0, 0].any()
    assert states[item_ids != 0].all(1).any()


def test_padding_may_stand_anywhere():
    _, backbone, embeddings = built(CASES["dilated convolution"])
    holes = torch.tensor([[4, 0, 2, 0, 9]])
    states = backbone(embeddings[holes], holes != 0, item_ids=holes)
    expected = read(backbone, [[4, 2, 9]], embeddings)
    torch.testing.assert_close(states[holes != 0], expected)


@every_case
def test_nothing_is_kept_between_calls(case):
    _, backbone, embeddings = built(case)
    other = torch.randn(N + 1, D)
    with torch.no_grad():
        first = read(backbone, SOME, embeddings)
        read(backbone, [[4, 4], [6]], other)
        torch.testing.assert_close(read(backbone, SOME, embeddings), first, rtol=0, atol=0)
    assert backbone.module.get_submodule(case.table)._rows is None


def test_nothing_is_kept_after_an_error_either():
    class Fails(Table):
        fail = False

        def forward(self, seq):
            states = self.items(seq).cumsum(1)
            if self.fail:
                raise RuntimeError("the user's own")
            return states

    backbone = IdLookupBackbone(Fails())
    backbone.module.fail = True
    with pytest.raises(RuntimeError, match="the user's own"):
        read(backbone, SOME, torch.randn(N + 1, D))
    with pytest.raises(RuntimeError, match="'items' was read outside a call"):
        _ = backbone.module.items.weight


# what happens to the model and its table


@every_case
def test_the_users_model_is_left_as_it_was(case):
    model = case.build()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random_state = torch.get_rng_state()
    backbone = IdLookupBackbone(model, **case.stated)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert model.training
    assert backbone.module.training
    assert type(model.get_submodule(case.table)) is nn.Embedding
    assert not any(part._forward_pre_hooks for part in model.modules())
    assert not any(part._forward_pre_hooks for part in backbone.modules())
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(1.0)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


@every_case
def test_the_table_is_neither_trained_nor_saved(case):
    model = case.build()
    backbone = IdLookupBackbone(model, **case.stated)
    table = model.get_submodule(case.table).weight
    expected = {
        f"module.{name}": value.shape
        for name, value in model.state_dict(keep_vars=True).items()
        if value is not table
    }
    assert {name: v.shape for name, v in backbone.state_dict().items()} == expected
    assert {name for name, _ in backbone.named_parameters()} <= set(expected)


@every_case
def test_weights_load_into_another_copy(case):
    _, backbone, embeddings = build(case)
    other = IdLookupBackbone(case.build().eval(), **case.stated)
    assert not torch.allclose(
        read(other, SOME, embeddings), read(backbone, SOME, embeddings), atol=1e-3
    )
    other.load_state_dict(backbone.state_dict())
    torch.testing.assert_close(read(other, SOME, embeddings), read(backbone, SOME, embeddings))


@every_case
def test_copies_are_independent(case):
    _, backbone, embeddings = build(case)
    copied = copy.deepcopy(backbone)
    with torch.no_grad():
        expected = read(backbone, SOME, embeddings)
        torch.testing.assert_close(read(copied, SOME, embeddings), expected, rtol=0, atol=0)
        for parameter in copied.parameters():
            parameter.mul_(0.5)
        torch.testing.assert_close(read(backbone, SOME, embeddings), expected, rtol=0, atol=0)


@every_case
def test_unwrapping_gives_the_model_back_with_a_table(case):
    _, backbone, embeddings = build(case)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape))  # simulates training
        model = backbone.unwrap(embeddings)
        expected = read(backbone, SOME, embeddings)
        torch.testing.assert_close(read_directly(case, model, SOME), expected, rtol=1e-5, atol=1e-6)
    assert type(model.get_submodule(case.table)) is nn.Embedding
    assert model.get_submodule(case.table).weight.requires_grad
    assert type(backbone.module.get_submodule(case.table)) is FedTable


def test_unwrapping_ties_what_was_tied():
    _, backbone, embeddings = built(CASES["mixed"])
    assert backbone.module.output.weight is None
    model = backbone.unwrap(embeddings)
    assert model.output.weight is model.embeddings["item"].weight


def test_unwrapping_wants_embeddings_of_the_models_width():
    _, backbone, _ = built(CASES["recurrent"])
    match = re.escape("shape (21, 8), GRURecommender needs (N + 1, 16)")
    with pytest.raises(ValueError, match=match):
        backbone.unwrap(torch.randn(N + 1, 8))


def test_a_table_under_two_names_is_one_table():
    class Twice(Table):
        def __init__(self):
            super().__init__()
            self.again = self.items
            self.kept = [self.items]

        def forward(self, seq):
            return (self.items(seq) + self.again(seq) + self.kept[0](seq)).cumsum(1)

    model = Twice()
    for backbone in (IdLookupBackbone(model), IdLookupBackbone(model, item_embedding="again")):
        assert not backbone.state_dict()
        states = read(backbone, [[1, 2]], model.items.weight)
        torch.testing.assert_close(states, model(torch.tensor([[1, 2]]))[0])


def test_a_table_read_only_by_its_weight_can_be_named():
    class ByWeight(Table):
        def forward(self, seq):
            return F.embedding(seq, self.items.weight).cumsum(1)

    model = ByWeight()
    with pytest.raises(ValueError, match="in any of its nn.Embedding modules .*item_embedding="):
        IdLookupBackbone(model)
    backbone = IdLookupBackbone(model, item_embedding="items")
    ids = torch.tensor([[3, 4, 3]])
    torch.testing.assert_close(read(backbone, [[3, 4, 3]], model.items.weight), model(ids)[0])


@pytest.mark.parametrize("name", ["attention", "dilated convolution", "memory"])
def test_half_precision(name):
    _, backbone, embeddings = built(CASES[name])
    states = read(backbone, SOME, embeddings)
    halved = IdLookupBackbone(CASES[name].build().bfloat16())
    halved.load_state_dict(backbone.state_dict())
    halved.eval()
    low = read(halved, SOME, embeddings.bfloat16())
    assert low.dtype == torch.bfloat16
    assert_rounded(low, states, torch.bfloat16, LAYERS)


@pytest.mark.slow
def test_compiles():
    _, backbone, embeddings = built(CASES["recurrent"])
    compiled = torch.compile(backbone, backend="eager")
    for sequences in (SOME, [[2, 2]], [[5, 1, 1], [7]]):
        item_ids = pad(sequences, "left")
        inputs = embeddings[item_ids]
        with torch.no_grad():
            expected = backbone(inputs, item_ids != 0, item_ids=item_ids)
            states = compiled(inputs, item_ids != 0, item_ids=item_ids)
        torch.testing.assert_close(states, expected)


def test_the_whole_adapter_may_be_checkpointed():
    _, backbone, embeddings = built(CASES["recurrent"])
    item_ids = pad(SOME, "left")
    grads = []
    for call in (backbone, lambda *args: checkpoint(backbone, *args, use_reentrant=False)):
        inputs = embeddings[item_ids].requires_grad_()
        call(inputs, item_ids != 0, item_ids).sum().backward()
        grads.append(inputs.grad)
    torch.testing.assert_close(*grads)


# clear errors


class Scores(Table):
    def forward(self, seq):
        return self.items(seq).cumsum(1) @ self.items.weight.T


class OwnHead(Table):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(D, N + 1)

    def forward(self, seq, seq_len):
        return self.head(self.items(seq)[torch.arange(len(seq)), seq_len - 1])


class TwoTables(Table):
    def __init__(self):
        super().__init__()
        self.bias = nn.Embedding(N + 1, 1)

    def forward(self, seq):
        return (self.items(seq) + self.bias(seq)).cumsum(1)


class MaskToken(Table):
    def forward(self, seq):
        token = torch.full_like(seq[:, :1], N)
        return self.items(torch.cat([seq, token], 1)).cumsum(1)[:, 1:]


class WithUser(Table):
    def forward(self, user, item_seq, item_seq_len):
        return self.items(item_seq)


class BareParameter(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(N, D))

    def forward(self, seq):
        return self.table[seq]


class Scaled(nn.Embedding):
    def forward(self, input):
        return super().forward(input) * 4


class ScaledTable(nn.Module):
    def __init__(self):
        super().__init__()
        self.items = Scaled(N + 1, D)

    def forward(self, seq):
        return self.items(seq).cumsum(1)


class Tiny(Table):
    def __init__(self):
        super().__init__(rows=4)

    def forward(self, seq):
        return self.items(seq).cumsum(1)


class Raises(Table):
    def forward(self, seq):
        raise KeyError("my own mistake")


class ReturnsText(Table):
    def forward(self, seq):
        return str(self.items(seq))


class Flat(Table):
    def forward(self, seq):
        return self.items(seq).flatten(0, 1)


class FirstItem(Table):
    def forward(self, seq, lens):
        return self.items(seq[:, 0])


class MeanOfAll(Table):
    def forward(self, seq):
        return self.items(seq).mean(1) + seq.shape[1]


class NeedsFour(Table):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(D, D, 4)

    def forward(self, seq):
        return self.conv(self.items(seq).transpose(1, 2)).amax(2)


class Ambiguous(Table):
    def forward(self, a=None, b=None):
        return self.items(a)


class NoParameters(Table):
    def forward(self, *args):
        return self.items(args[0])


@pytest.mark.parametrize(
    ("model", "stated", "message"),
    [
        (Scores(), {}, "a score for every item of its table: pass method="),
        (OwnHead(), {}, "returned a tensor (2, 21), which looks like a score for every"),
        (
            models.MixedRecommender(N),
            {},
            "by the item encoder (output.weight shared its weight and was removed too)",
        ),
        (
            TwoTables(),
            {},
            "looks up items in 2 tables, ['items', 'bias'], but the item encoder can",
        ),
        (
            TwoTables(),
            {"item_embedding": "items"},
            "looks up items in 2 tables, ['items', 'bias']",
        ),
        (MaskToken(), {}, "looks up the ids [20] in its item table 'items'"),
        (WithUser(), {}, "WithUser.forward requires ['user'], but only item ids, lengths and"),
        (BareParameter(), {}, "make it an nn.Embedding"),
        (
            BareParameter(),
            {"item_embedding": "table"},
            "item_embedding='table' is not an nn.Embedding",
        ),
        (Tiny(), {"item_embedding": "item"}, "of Tiny; it has ['items']"),
        (ScaledTable(), {}, "is a Scaled with its own forward"),
        (Tiny(), {}, "Its item table needs at least 5 rows"),
        (
            Raises(),
            {},
            "Raises.forward does not run on item ids (2, L) with L = [1, 2, 3], given as "
            "{'seq': 'item_ids'}: KeyError: 'my own mistake'",
        ),
        (ReturnsText(), {}, "it returned a str for embeddings of shape (2, 3, 16)"),
        (Flat(), {}, "it returned a tensor (6, 16)"),
        (
            FirstItem(),
            {},
            "the last item does not depend on that item: check which position it reads",
        ),
        (MeanOfAll(), {}, "depends on the number of padding positions, on either side"),
        (
            NeedsFour(),
            {},
            "reads sequences of [4, 16, 21] positions, but not of all lengths [1, 2, 3]",
        ),
        (NeedsFour(), {"fixed_length": 3}, "with L = 3, given as"),
        (Ambiguous(), {}, "cannot tell which parameter of Ambiguous.forward takes the item ids"),
        (NoParameters(), {}, "cannot tell which parameter of NoParameters.forward"),
        (Tiny(), {"arguments": {"x": "item_ids"}}, "its parameters are ['seq']"),
        (Tiny(), {"arguments": {"seq": "ids"}}, "each can receive one of ('item_ids', 'lengths'"),
        (Tiny(), {"method": "encode"}, "method='encode': there is no Tiny.encode"),
        (Tiny(), {"padding_side": "top"}, "padding_side='top' must be one of ('right', 'left')"),
        (Tiny(), {"fixed_length": 0}, "fixed_length=0 must be at least 1"),
        (
            models.GRURecommender(N),
            {"last_only": False},
            "last_only=False, but GRURecommender.forward returns (B, D)",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_models_that_cannot_be_fed(model, stated, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        IdLookupBackbone(model, **stated)


def test_the_users_own_error_is_the_cause():
    with pytest.raises(ValueError, match="my own mistake") as caught:
        IdLookupBackbone(Raises())
    assert isinstance(caught.value.__cause__, KeyError)


def test_only_modules_are_taken():
    with pytest.raises(TypeError, match="module must be a torch.nn.Module, got function"):
        IdLookupBackbone(lambda seq: seq)


def test_a_stated_length_makes_a_window_model_work():
    backbone = IdLookupBackbone(NeedsFour(), fixed_length=6)
    assert backbone.max_seq_length == 6
    assert read(backbone, SOME, torch.randn(N + 1, D)).shape == (4, D)


def test_a_model_that_changes_what_it_returns_is_stopped():
    class Moody(Table):
        def forward(self, seq):
            states = self.items(seq).cumsum(1)
            return states if len(seq) < 3 else states[:, :, :4]

    backbone = IdLookupBackbone(Moody())
    match = r"Moody returned a tensor \(3, 1, 4\), expected \(3, 1, 16\) as in its trial run"
    with pytest.raises(ValueError, match=match):
        read(backbone, [[1], [2], [3]], torch.randn(N + 1, D))


def test_an_id_made_up_later_is_no_item():
    class Sneaky(Table):
        def forward(self, seq):
            return self.items(seq + 5 * (seq.shape[1] == 4)).cumsum(1)

    match = "id 9 was looked up in 'items', but it is not an item of the batch, whose ids are 0..4"
    with pytest.raises(IndexError, match=match):
        read(IdLookupBackbone(Sneaky()), [[1, 2, 3, 4]], torch.randn(N + 1, D))


def test_a_narrower_output_is_said():
    class Narrow(Table):
        def __init__(self):
            super().__init__()
            self.narrow = nn.Linear(D, 8)

        def forward(self, seq):
            return self.narrow(self.items(seq).cumsum(1))

    backbone = IdLookupBackbone(Narrow())
    assert (backbone.hidden_size, backbone.output_size) == (D, 8)
    assert read(backbone, SOME, torch.randn(N + 1, D)).shape[-1] == 8


def test_tables_are_replaced_and_restored_at_their_names_only():
    with pytest.raises(TypeError, match="'gru_layers' is a GRU, expected an nn.Embedding"):
        replace_table(models.GRURecommender(N), "gru_layers")
    with pytest.raises(TypeError, match="'items' is a Embedding, expected a FedTable"):
        restore_table(Tiny(), "items", torch.randn(4, D))


# which models this bridge accepts


class OnEmbeddings(nn.Module):
    def __init__(self):
        super().__init__()
        self.positions = nn.Embedding(9, D)
        self.mix = nn.Linear(D, D)

    def forward(self, x):
        return self.mix(x + self.positions(torch.arange(x.shape[1])))


@pytest.mark.parametrize(
    ("backbone", "answer"),
    [
        *((case.build(), True) for name, case in CASES.items() if not case.stated.get("method")),
        (WithUser(), True),
        (TwoTables(), True),
        (Raises(), False),
        (Positions(9, lambda length, rows: torch.arange(length)), True),
        (OnEmbeddings(), False),
        (nn.GRU(D, D), False),
        (SASRec(D), False),
        (lambda item_seq: item_seq, False),
        ("text", False),
    ],
)
def test_which_models_this_adapter_is_for(backbone, answer):
    assert takes_item_ids_only(backbone) == answer


def test_transformers_models_are_not_for_this_adapter():
    from transformers import GPT2Config, GPT2Model

    tiny = GPT2Config(n_embd=8, n_head=2, n_layer=1, vocab_size=20, n_positions=16)
    assert not takes_item_ids_only(GPT2Model(tiny))


@pytest.mark.parametrize("name", ["recurrent", "dilated convolution"])
def test_the_registry_finds_this_adapter(name):
    model, backbone, embeddings = built(CASES[name])
    adapted = adapt_backbone(model)
    assert type(adapted) is IdLookupBackbone
    torch.testing.assert_close(read(adapted, SOME, embeddings), read(backbone, SOME, embeddings))
    assert adapt_backbone(backbone) is backbone
    assert type(unwrap_backbone(adapted)) is type(model)


def test_item_embeddings_of_another_width_can_be_projected():
    model = built(CASES["session graph"])[0]
    with pytest.raises(ValueError, match="reads 16 values per item and returns 16, but the item"):
        adapt_backbone(model, hidden_size=6)
    adapted = adapt_backbone(model, hidden_size=6, project=True)
    assert read(adapted, SOME, torch.randn(N + 1, 6)).shape == (4, 6)


def test_the_registry_says_where_arguments_go():
    message = "To set these arguments, pass IdLookupBackbone(TwoTables(...), ...) as the backbone"
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        adapt_backbone(TwoTables())
    assert isinstance(caught.value.__cause__, ValueError)


def test_models_not_written_in_python_are_not_for_this_adapter():
    model = Tiny()
    model.forward = max  # has no signature
    assert not takes_item_ids_only(model)


def test_numpy_is_only_handed_to_models_that_take_nothing_else():
    class Either(Table):
        def forward(self, seq):
            assert isinstance(seq, (torch.Tensor, np.ndarray))
            self.kind = type(seq)
            return self.items(torch.as_tensor(seq)).cumsum(1)

    backbone = IdLookupBackbone(Either())
    read(backbone, SOME, torch.randn(N + 1, D))
    assert backbone.module.kind is torch.Tensor
    assert built(CASES["attention on arrays"])[1].call.as_numpy
