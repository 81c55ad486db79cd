"""All kinds of backbones in `ODMTWrapper`: built, trained, saved, loaded and taken out again.

Letters: B users, L positions of a sequence, N items, D hidden size.
"""

import copy
import functools
import warnings

import id_models
import pytest
import torch
from rounding import assert_rounded
from torch import nn
from toys import MyModel, toy_features, toy_split
from transformers import GPT2Config, GPT2LMHeadModel

from odmt_sdk import ODMTConfig, ODMTWrapper, SASRec
from odmt_sdk.backbones.id_lookup.backbone import IdLookupBackbone
from odmt_sdk.pipeline import fit

D = 8
SOURCES = ["id", "text", "image"]
ITEM_IDS = torch.tensor([[0, 0, 3, 1, 2], [4, 5, 6, 7, 5], [0, 1, 1, 2, 9]])


def gpt2() -> nn.Module:
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=40, n_positions=16, n_embd=D, n_layer=1, n_head=2,
                   resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    )  # fmt: skip


class ReturnsTuple(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(D, D)

    def forward(self, emb, padding_mask):
        return self.mix(emb.masked_fill(padding_mask.unsqueeze(-1), 0.0).cumsum(1)), None


def decay(mix, x, mask):
    return (mix(x) * mask.unsqueeze(-1)).cumsum(1)


BACKBONES = {
    "own class": ReturnsTuple,
    "torch GRU": lambda: nn.GRU(D, D, num_layers=2),
    "transformers": gpt2,
    "id-only, last state": lambda: id_models.GRURecommender(20, D),
    "id-only, all states": lambda: id_models.DilatedRecommender(20, D),
    "callable": lambda: functools.partial(decay, nn.Linear(D, D)),
}
every_backbone = pytest.mark.parametrize("build", BACKBONES.values(), ids=list(BACKBONES))


def wrap(backbone, item_features=None, **settings) -> ODMTWrapper:
    options = {
        key: settings.pop(key)
        for key in ("hidden_size", "bridge", "forward_fn", "fresh_copies", "check")
        if key in settings
    }
    features = item_features or toy_features(item_ids=[f"item-{i}" for i in range(12)])
    settings = {"max_seq_length": 5, "dropout": 0.0, **settings}
    return ODMTWrapper(backbone, features, ODMTConfig(**settings), **options)


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


@every_backbone
def test_trains_in_one_line(build):
    model = wrap(build())
    assert model.hidden_size == D
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        output = model(ITEM_IDS)
        output.loss.backward()
        losses.append(float(output.loss.detach()))
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is None}
    assert not gradients


@every_backbone
def test_saved_and_loaded(build, tmp_path):
    model = wrap(build()).eval()
    model.save_pretrained(tmp_path / "adapter")
    loaded = ODMTWrapper.from_pretrained(tmp_path / "adapter", backbone=build())
    histories = [["item-3"], ["item-1", "item-4", "item-2"]]
    assert loaded.recommend(histories, k=4) == model.recommend(histories, k=4)


@every_backbone
def test_the_users_object_is_left_alone_and_comes_back_trained(build):
    given = build()
    user = given.args[0] if isinstance(given, functools.partial) else given
    user = getattr(user, "transformer", user)
    before = weights(user)
    model = wrap(given)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(ITEM_IDS).loss.backward()
    optimizer.step()
    after = user.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    unwrapped = model.unwrap_backbone("text")
    if isinstance(given, functools.partial):
        unwrapped = unwrapped.function.args[0]
    assert type(unwrapped) is type(user)
    trained = unwrapped.state_dict()
    assert any(
        not torch.equal(value, trained[name])
        for name, value in before.items()
        if name in trained and trained[name].shape == value.shape
    )


def test_an_id_only_model_comes_back_with_a_table_and_scores_as_before():
    model = wrap(id_models.GRURecommender(20, D)).eval()
    unwrapped = model.unwrap_backbone("image").eval()
    sequences = torch.tensor([[3, 1, 2], [4, 5, 6]])
    expected = model.encode_sequences(sequences)["image"]
    got = unwrapped(sequences, torch.tensor([3, 3]))
    torch.testing.assert_close(got, expected)


def test_unwrapping_an_unknown_source():
    with pytest.raises(ValueError, match="source='audio' is unknown; known are"):
        wrap(MyModel()).unwrap_backbone("audio")


class TestOnePerSource:
    def test_copies_start_alike_and_are_their_own(self):
        model = wrap(nn.GRU(D, D))
        first, second = (weights(model.unwrap_backbone(s)) for s in ("id", "text"))
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert model.unwrap_backbone("id") is not model.unwrap_backbone("text")

    @pytest.mark.parametrize(
        "build",
        [lambda: nn.GRU(D, D), lambda: SASRec(D), lambda: nn.TransformerEncoderLayer(D, 2, 16)],
        ids=["GRU", "SASRec", "TransformerEncoderLayer"],
    )
    def test_fresh_copies_draw_weights_of_their_own(self, build):
        user = build()
        before = weights(user)
        model = wrap(user, fresh_copies=True)
        first, second = (weights(model.unwrap_backbone(s)) for s in ("id", "text"))
        drawn = [n for n in first if first[n].ndim > 1]
        assert drawn
        assert all(not torch.equal(first[name], second[name]) for name in drawn)
        assert all(not torch.equal(first[name], before[name]) for name in drawn)
        assert all(torch.equal(user.state_dict()[name], before[name]) for name in before)

    def test_fresh_copies_of_what_cannot_draw(self):
        class Scaled(MyModel):
            def __init__(self):
                super().__init__()
                self.scale = nn.Parameter(torch.ones(D))

            def forward(self, inputs_embeds, attention_mask):
                return super().forward(inputs_embeds, attention_mask) * self.scale

        message = r"Scaled cannot draw new weights for itself \(Scaled with scale\): .* a factory"
        with pytest.raises(ValueError, match=message):
            wrap(Scaled(), fresh_copies=True)

    def test_a_factory(self):
        made = []

        def build():
            made.append(MyModel())
            return made[-1]

        model = wrap(build)
        assert len(made) == 3
        assert [model.unwrap_backbone(source) for source in SOURCES] == made

    def test_a_mapping(self):
        given = {"id": SASRec(D), "text": nn.GRU(D, D), "image": gpt2()}
        model = wrap(given)
        assert isinstance(model.unwrap_backbone("id"), SASRec)
        assert isinstance(model.unwrap_backbone("text"), nn.GRU)
        assert model.unwrap_backbone("id") is not given["id"]
        model(ITEM_IDS).loss.backward()

    @pytest.mark.parametrize(
        ("given", "settings", "message"),
        [
            ({}, {}, "backbone is an empty mapping"),
            (
                {"id": MyModel(), "text": MyModel()},
                {},
                r"has the sources \['id', 'text'\], but the items have \['id', 'image', 'text'\]",
            ),
            (dict.fromkeys(SOURCES, MyModel()), {"share_backbone": True}, "needs one backbone"),
            ({"id": nn.GRU(8, 8), "text": nn.GRU(6, 6)}, {}, "GRU reads 6 values per item and"),
        ],
    )
    def test_mappings_that_do_not_fit(self, given, settings, message):
        with pytest.raises(ValueError, match=message):
            wrap(given, **settings)

    def test_one_for_all(self):
        model = wrap(nn.GRU(D, D), share_backbone=True)
        assert model.unwrap_backbone("id") is model.unwrap_backbone("image")


class TestTraining:
    def test_frozen_backbones_stay_as_they_are(self):
        model = wrap(nn.GRU(12, 12), hidden_size=D, project_backbone=True).freeze_backbones()
        before, projections = weights(model.unwrap_backbone()), weights(model.backbones)
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        model(ITEM_IDS).loss.backward()
        optimizer.step()
        after = model.unwrap_backbone().state_dict()
        assert all(torch.equal(after[name], value) for name, value in before.items())
        moved = [
            n for n, v in model.backbones.state_dict().items() if not torch.equal(v, projections[n])
        ]
        assert moved
        assert all("project_" in name for name in moved)
        model.freeze_backbones(False)
        assert all(p.requires_grad for p in model.parameters())

    def test_parameter_groups_hold_every_trained_parameter_once(self):
        model = wrap(nn.GRU(D, D))
        groups = model.parameter_groups(learning_rate=0.1, backbone_learning_rate=0.01)
        assert [group["lr"] for group in groups] == [0.1, 0.01]
        found = [id(p) for group in groups for p in group["params"]]
        assert sorted(found) == sorted(id(p) for p in model.parameters())
        model.freeze_backbones()
        groups = model.parameter_groups(learning_rate=0.1, backbone_learning_rate=0.01)
        assert not groups[1]["params"]

    def test_fit_takes_a_learning_rate_for_the_backbones(self, tmp_path):
        split = toy_split()
        model = wrap(nn.GRU(D, D))
        before, items = weights(model.backbones), weights(model.item_encoder)
        fit(
            model, split, tmp_path, epochs=1, batch_size=16, warmup_steps=0,
            backbone_learning_rate=0.0, k=(5,), metric="ndcg@5", disable_tqdm=True, use_cpu=True,
        )  # fmt: skip
        assert all(torch.equal(model.backbones.state_dict()[n], v) for n, v in before.items())
        after = model.item_encoder.state_dict()
        assert not all(torch.equal(after[name], value) for name, value in items.items())

    def test_modes_and_types_reach_the_backbones(self):
        model = wrap(nn.GRU(D, D)).eval().to(torch.float64)
        assert not any(module.training for module in model.modules())
        assert {p.dtype for p in model.backbones.parameters()} == {torch.float64}
        assert model(ITEM_IDS).logits["id"].dtype == torch.float64

    def test_in_bfloat16(self):
        model = wrap(gpt2())
        exact = model(ITEM_IDS).loss
        with torch.autocast("cpu", torch.bfloat16):
            mixed = model(ITEM_IDS).loss
        layers = model.config.num_layers + 1 + 1  # backbone layers; projections; heads and scores
        assert_rounded(mixed, exact, torch.bfloat16, layers)

    def test_a_compiled_backbone(self):
        plain = MyModel()
        compiled = torch.compile(plain, backend="eager")
        first, second = (wrap(one) for one in (plain, compiled))
        second.item_encoder.load_state_dict(first.item_encoder.state_dict())
        torch.testing.assert_close(second(ITEM_IDS).loss, first(ITEM_IDS).loss)


class TestLastStates:
    """Models that return only the state at the last item."""

    def losses(self, **settings):
        torch.manual_seed(0)
        backbone = IdLookupBackbone(id_models.DilatedRecommender(20, D), last_only=True)
        model = wrap(backbone, **settings)
        output = model(ITEM_IDS)
        output.loss.backward()
        return output, {name: p.grad for name, p in model.named_parameters()}

    def test_every_prefix_gives_the_loss_of_a_model_that_returns_all_states(self):
        torch.manual_seed(0)
        model = wrap(IdLookupBackbone(id_models.DilatedRecommender(20, D)))
        expected = model(ITEM_IDS)
        expected.loss.backward()
        output, gradients = self.losses()
        torch.testing.assert_close(output.loss, expected.loss)
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(gradients[name], parameter.grad, msg=name)

    def test_without_prefixes_only_the_last_items_are_labels(self):
        output, _ = self.losses(prefix_augmentation=False)
        assert output.candidate_ids[output.labels].tolist() == ITEM_IDS[:, -1].tolist()


class TestWidths:
    def test_projected(self, tmp_path):
        model = wrap(nn.GRU(12, 12), hidden_size=D, project_backbone=True)
        model(ITEM_IDS).loss.backward()
        assert all(p.grad is not None for p in model.parameters())
        model.eval().save_pretrained(tmp_path / "adapter")
        loaded = ODMTWrapper.from_pretrained(tmp_path / "adapter", backbone=nn.GRU(12, 12))
        assert loaded.recommend([["item-1"]], k=3) == model.recommend([["item-1"]], k=3)

    def test_or_refused(self):
        message = r"GRU reads 12 values per item .* hidden_size=12, or project=True \(ODMTConfig\(p"
        with pytest.raises(ValueError, match=message):
            wrap(nn.GRU(12, 12), hidden_size=D)


class TestCheck:
    def test_the_future_is_an_error_unless_allowed(self):
        backbone = nn.GRU(D, D // 2, batch_first=True, bidirectional=True)
        with pytest.raises(ValueError, match="GRU cannot be used:\ncausal: it reads the future"):
            wrap(backbone)
        assert wrap(backbone, allow_future=True)(ITEM_IDS).loss.isfinite()

    def test_what_is_less_grave_is_a_warning_at_the_users_line(self):
        class Unused(MyModel):
            def __init__(self):
                super().__init__()
                self.head = nn.Linear(D, 3)

        with pytest.warns(UserWarning, match=r"gradients: head.weight, head.bias got no") as caught:
            ODMTWrapper(Unused(), toy_features())
        assert caught[0].filename == __file__

    def test_it_can_be_left_out(self):
        class Unused(MyModel):
            def __init__(self):
                super().__init__()
                self.head = nn.Linear(D, 3)

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            wrap(Unused(), check=False)

    def test_a_position_table_that_is_too_short(self):
        class Short(MyModel):
            def __init__(self):
                super().__init__()
                self.positions = nn.Embedding(16, D)

            def forward(self, inputs_embeds, attention_mask):
                places = torch.arange(inputs_embeds.shape[1])
                hidden = super().forward(inputs_embeds, attention_mask)
                return hidden + self.positions(places)

        with pytest.raises(ValueError, match="it reads at most 16 positions, and max_seq_le"):
            wrap(Short(), max_seq_length=None)
        assert wrap(Short(), max_seq_length=16)(ITEM_IDS).loss.isfinite()

    def test_the_users_traceback_is_the_cause(self):
        class Raises(MyModel):
            def forward(self, inputs_embeds, attention_mask):
                raise KeyError("my own mistake")

        with pytest.raises(ValueError, match="Raises") as error:
            wrap(Raises())
        cause = error.value.__cause__
        assert isinstance(cause, KeyError)
        assert cause.__traceback__.tb_next is not None

    def test_forward_fn_wins(self):
        class Odd(nn.Module):
            def __init__(self):
                super().__init__()
                self.mix = nn.Linear(D, D)

            def forward(self, a, b, c, d):
                return self.mix(b)

        def call(odd, inputs_embeds, attention_mask):
            return odd(0, inputs_embeds * attention_mask.unsqueeze(-1), 1, 2)

        with pytest.raises(ValueError, match="forward_fn="):
            wrap(Odd())
        model = wrap(Odd(), forward_fn=call)
        assert model.hidden_size == D
        model(ITEM_IDS).loss.backward()
        twin = copy.deepcopy(model)
        torch.testing.assert_close(twin(ITEM_IDS).loss, model(ITEM_IDS).loss)

    def test_an_adapter_by_name_wins(self):
        with pytest.raises(ValueError, match="bridge='mine' is not registered"):
            wrap(nn.GRU(D, D), bridge="mine")
        assert wrap(nn.GRU(D, D), bridge="torch-rnn")(ITEM_IDS).loss.isfinite()
