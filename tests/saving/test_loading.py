"""Options of loading: backbone, device, dtype, and parts that were not saved."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from toys import MyModel, toy_features, toy_model

from odmt_sdk import (
    HSTU,
    AdapterError,
    GRU4Rec,
    Mamba2,
    NextItNet,
    ODMTConfig,
    ODMTWrapper,
    SASRec,
)
from odmt_sdk.backbones.models.by_name import BUILT_IN, built_in_arguments, make_built_in

HISTORIES = [["item-3", "item-1"], ["item-4"]]
ITEM_IDS = [f"item-{i}" for i in range(12)]
BACKBONES = [
    SASRec(8, max_seq_length=6, num_layers=1),
    GRU4Rec(8, num_units=6),
    NextItNet(8, dilations=(1, 2)),
    HSTU(8, max_seq_length=6),
    Mamba2(8, num_layers=1, state_size=4),
]


def same(model, other):
    return model.eval().recommend(HISTORIES, k=5) == other.recommend(HISTORIES, k=5)


class TestBuiltInBackbones:
    @pytest.mark.parametrize("backbone", BACKBONES, ids=lambda b: type(b).__name__)
    def test_are_made_again(self, backbone, tmp_path):
        model = toy_model(backbone)
        model.save_pretrained(tmp_path / "a")
        loaded = ODMTWrapper.from_pretrained(tmp_path / "a")
        assert same(model, loaded)
        assert type(loaded.unwrap_backbone()) is type(backbone)
        arguments = loaded.unwrap_backbone().constructor_arguments
        assert arguments == json.loads(json.dumps(backbone.constructor_arguments))
        assert loaded.max_seq_length == model.max_seq_length
        assert torch.equal(loaded.unwrap_backbone()(*batch()), model.unwrap_backbone()(*batch()))

    @pytest.mark.parametrize("settings", [{"share_backbone": True}, {"fusion": "id"}])
    def test_of_other_settings_too(self, settings, tmp_path):
        model = toy_model(GRU4Rec(8), **settings)
        model.save_pretrained(tmp_path / "a")
        assert same(model, ODMTWrapper.from_pretrained(tmp_path / "a"))

    def test_between_projections_too(self, tmp_path):
        model = toy_model(SASRec(4, num_layers=1), hidden_size=8, project_backbone=True)
        model.save_pretrained(tmp_path / "a")
        assert same(model, ODMTWrapper.from_pretrained(tmp_path / "a"))

    def test_all_are_listed(self):
        assert set(BUILT_IN) == {type(backbone).__name__ for backbone in BACKBONES}
        for backbone in BACKBONES:
            name, arguments = built_in_arguments(backbone)
            again = make_built_in(name, arguments, num_tensors=100)
            assert {k: v.shape for k, v in again.state_dict().items()} == {
                k: v.shape for k, v in backbone.state_dict().items()
            }

    def test_a_class_that_inherits_is_the_users_own(self, tmp_path):
        class Mine(SASRec):
            pass

        toy_model(Mine(8)).save_pretrained(tmp_path / "a")
        message = "trained with Mine, a custom backbone: pass it as backbone="
        with pytest.raises(AdapterError, match=message):
            ODMTWrapper.from_pretrained(tmp_path / "a")

    def test_called_in_a_way_of_the_users_is_the_users_own(self, tmp_path):
        def call(module, inputs_embeds, attention_mask):
            return 2 * module(inputs_embeds, attention_mask)

        features = toy_features(item_ids=ITEM_IDS)
        model = ODMTWrapper(SASRec(8), features, forward_fn=call)
        model.save_pretrained(tmp_path / "a")
        with pytest.raises(AdapterError, match="pass it as backbone="):
            ODMTWrapper.from_pretrained(tmp_path / "a")
        assert same(model, ODMTWrapper.from_pretrained(tmp_path / "a", SASRec(8), forward_fn=call))


def batch():
    return torch.ones(2, 3, 8), torch.ones(2, 3, dtype=torch.long)


class TestWhatDoesNotFit:
    @pytest.mark.parametrize(
        ("saved", "passed", "message"),
        [
            (
                GRU4Rec(8),
                GRU4Rec(16),
                "trained with GRU4Rec of hidden size 8; you passed GRU4Rec of hidden size 16. "
                "Build it as it was for training, or leave out backbone=",
            ),
            (SASRec(8), GRU4Rec(8), "with SASRec of hidden size 8; you passed GRU4Rec of hidden s"),
            (SASRec(8), SASRec(8, num_layers=3), "you passed SASRec of hidden size 8 with other s"),
            (MyModel(), SASRec, "backbone is the class SASRec, pass an instance"),
            (
                GRU4Rec(8, num_units=8),
                GRU4Rec(8, num_units=4),
                r"weight is \(8, 8\) in the adapter",
            ),
        ],
    )
    def test_is_said_in_the_users_words(self, saved, passed, message, tmp_path):
        toy_model(saved).save_pretrained(tmp_path / "a")
        with pytest.raises(AdapterError, match=message):
            ODMTWrapper.from_pretrained(tmp_path / "a", passed)

    def test_the_users_backbone_stays_as_it_was(self, tmp_path):
        toy_model().save_pretrained(tmp_path / "a")
        mine = MyModel()
        before = mine.mix.weight.clone()
        ODMTWrapper.from_pretrained(tmp_path / "a", mine)
        assert torch.equal(mine.mix.weight, before)

    def test_one_that_fits_is_adapted_once(self, tmp_path):
        adapted = []

        def bridge(module, hidden_size):
            adapted.append(module)
            return module

        model = ODMTWrapper(SASRec(8), toy_features(item_ids=ITEM_IDS), bridge=bridge)
        model.save_pretrained(tmp_path / "a")
        adapted.clear()
        assert same(model, ODMTWrapper.from_pretrained(tmp_path / "a", SASRec(8), bridge=bridge))
        assert len(adapted) == 1


class TestTypesAndDevices:
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
    def test_weights_come_back_in_the_type_in_which_they_were_saved(self, dtype, tmp_path):
        model = toy_model().to(dtype)
        model.item_features = model.item_features.to(dtype=dtype)
        model.save_pretrained(tmp_path / "a")
        loaded = ODMTWrapper.from_pretrained(tmp_path / "a", MyModel())
        state = loaded.state_dict()
        for name, value in model.state_dict().items():
            assert state[name].dtype == value.dtype, name
            assert torch.equal(state[name], value), name
        assert loaded.recommend(HISTORIES).item_ids == model.eval().recommend(HISTORIES).item_ids

    def test_or_in_another(self, tmp_path):
        toy_model().save_pretrained(tmp_path / "a")
        loaded = ODMTWrapper.from_pretrained(tmp_path / "a", MyModel(), dtype=torch.bfloat16)
        assert {p.dtype for p in loaded.parameters()} == {torch.bfloat16}
        assert loaded.item_encoder.unseen.dtype == torch.bool
        loaded.recommend(HISTORIES)

    def test_on_a_device(self, tmp_path):
        model = toy_model()
        model.save_pretrained(tmp_path / "a")
        assert same(
            model, ODMTWrapper.from_pretrained(tmp_path / "a", MyModel(), map_location="cpu")
        )
        features = toy_features(item_ids=ITEM_IDS)
        loaded = ODMTWrapper.from_pretrained(
            tmp_path / "a", MyModel(), features, map_location="meta"
        )
        assert {p.device.type for p in loaded.parameters()} == {"meta"}

    def test_a_compiled_model(self, tmp_path):
        model = toy_model()
        model.backbones.by_source["id"] = torch.compile(model.backbones.by_source["id"])
        torch.compile(model).save_pretrained(tmp_path / "a", item_embeddings=False)
        assert not [n for n in load_file(tmp_path / "a" / "model.safetensors") if "_orig_mod" in n]
        features = toy_features(item_ids=ITEM_IDS)
        loaded = ODMTWrapper.from_pretrained(tmp_path / "a", MyModel(), features)
        plain = {n.replace("_orig_mod.", ""): v for n, v in model.state_dict().items()}
        for name, value in loaded.state_dict().items():
            assert torch.equal(value, plain[name]), name

    def test_gru_weights_stay_one_block(self, tmp_path):
        """torch's recurrent layers keep a list of their weights in addition to the parameters."""
        model = toy_model(nn.GRU(8, 8))
        model.save_pretrained(tmp_path / "a")
        loaded = ODMTWrapper.from_pretrained(tmp_path / "a", nn.GRU(8, 8))
        gru = loaded.unwrap_backbone()
        assert all(a is b for a, b in zip(gru._flat_weights, gru.all_weights[0], strict=True))
        assert same(model, loaded)


class TestLeavingOut:
    def test_item_embeddings(self, tmp_path):
        model = toy_model()
        model.save_pretrained(tmp_path / "a", item_embeddings=False)
        assert not (tmp_path / "a" / "item_embeddings.safetensors").exists()
        loaded = ODMTWrapper.from_pretrained(tmp_path / "a", MyModel())
        with pytest.raises(ValueError, match="are not loaded: pass item_features="):
            loaded.recommend(HISTORIES)
        with pytest.raises(
            AdapterError, match="cannot save the item embeddings: .*_embeddings=False"
        ):
            loaded.save_pretrained(tmp_path / "b")
        features = toy_features(item_ids=ITEM_IDS)
        loaded = ODMTWrapper.from_pretrained(tmp_path / "a", MyModel(), features)
        assert loaded.recommend(HISTORIES).item_ids == model.eval().recommend(HISTORIES).item_ids

    def test_weights_of_the_backbone(self, tmp_path):
        mine = MyModel()
        model = toy_model(mine).freeze_backbones()
        model.save_pretrained(tmp_path / "a", backbone_weights=False)
        names = load_file(tmp_path / "a" / "model.safetensors")
        assert not [name for name in names if name.startswith("backbones.")]
        assert same(model, ODMTWrapper.from_pretrained(tmp_path / "a", mine))
        toy_model(SASRec(8)).save_pretrained(tmp_path / "b", backbone_weights=False)
        with pytest.raises(
            AdapterError, match="trained with SASRec, whose weights it lacks: pass it"
        ):
            ODMTWrapper.from_pretrained(tmp_path / "b")

    def test_layers_around_the_backbone_are_saved_nevertheless(self, tmp_path):
        mine = SASRec(4, num_layers=1)
        model = toy_model(mine, hidden_size=8, project_backbone=True)
        model.save_pretrained(tmp_path / "a", backbone_weights=False)
        names = load_file(tmp_path / "a" / "model.safetensors")
        assert {n.split(".")[3] for n in names if n.startswith("backbones.")} == {
            "project_in",
            "project_out",
        }
        assert same(model, ODMTWrapper.from_pretrained(tmp_path / "a", mine))

    def test_other_processes_write_nothing(self, tmp_path):
        toy_model().save_pretrained(tmp_path / "a", is_main_process=False)
        assert not (tmp_path / "a").exists()

    def test_a_state_dict_collected_elsewhere(self, tmp_path):
        model = toy_model()
        state = model.state_dict()
        state["item_log_probability"] = state["item_log_probability"] + 1
        model.save_pretrained(tmp_path / "a", state_dict=state)
        assert not (tmp_path / "a" / "item_embeddings.safetensors").exists()
        loaded = ODMTWrapper.from_pretrained(tmp_path / "a", MyModel())
        assert torch.equal(loaded.item_log_probability, model.item_log_probability + 1)

    def test_what_is_no_tensor_is_refused(self, tmp_path):
        class Stateful(MyModel):
            def get_extra_state(self):
                return {"a": object()}

            def set_extra_state(self, state):
                pass

        message = "_extra_state is a dict; only tensors can be saved"
        with pytest.raises(AdapterError, match=message):
            toy_model(Stateful()).save_pretrained(tmp_path / "a")


class TestSharedWeights:
    def test_tables_tied_after_wrapping_are_tied_again(self, tmp_path):
        model = toy_model()
        towers = model.backbones.by_source
        towers["text"].mix.weight = towers["id"].mix.weight
        model.save_pretrained(tmp_path / "a")
        saved = load_file(tmp_path / "a" / "model.safetensors")
        assert "backbones.by_source.text.mix.weight" not in saved
        towers = ODMTWrapper.from_pretrained(tmp_path / "a", MyModel()).backbones.by_source
        assert towers["text"].mix.weight is towers["id"].mix.weight
        assert towers["image"].mix.weight is not towers["id"].mix.weight

    def test_views_of_one_memory_are_saved_apart(self, tmp_path):
        model = toy_model()
        large = torch.randn(16, 8)
        towers = model.backbones.by_source
        towers["id"].mix.weight = nn.Parameter(large[:8])
        towers["text"].mix.weight = nn.Parameter(large[8:])
        model.save_pretrained(tmp_path / "a")
        assert same(model, ODMTWrapper.from_pretrained(tmp_path / "a", MyModel()))

    def test_a_backbone_that_ties_what_differs_is_refused(self, tmp_path):
        class Two(MyModel):
            def __init__(self, tied):
                super().__init__()
                self.other = nn.Linear(8, 8)
                if tied:
                    self.other.weight = self.mix.weight

            def forward(self, inputs_embeds, attention_mask):
                return self.other(super().forward(inputs_embeds, attention_mask))

        toy_model(Two(tied=False)).save_pretrained(tmp_path / "a")
        with pytest.raises(
            AdapterError, match=r"ties .*other.weight to .*mix.weight, but they diff"
        ):
            ODMTWrapper.from_pretrained(tmp_path / "a", Two(tied=True))


class TestValuesThatAreNotFinite:
    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
    @pytest.mark.parametrize("name", ["model", "item_embeddings"])
    def test_are_refused_unless_asked_for(self, value, name, tmp_path):
        toy_model().save_pretrained(tmp_path / "a")
        file = tmp_path / "a" / f"{name}.safetensors"
        tensors = load_file(file)
        key = next(k for k in tensors if tensors[k].is_floating_point())
        tensors[key].view(-1)[-1] = value
        metadata = json.loads((tmp_path / "a" / "config.json").read_text())["save_id"]
        save_file(tensors, file, metadata={"save_id": metadata})
        with pytest.raises(
            AdapterError, match="holds NaN or infinite values: .* allow_non_finite=T"
        ):
            ODMTWrapper.from_pretrained(tmp_path / "a", MyModel())
        ODMTWrapper.from_pretrained(tmp_path / "a", MyModel(), allow_non_finite=True)

    def test_of_a_module_that_keeps_its_weights_in_a_way_of_its_own(self, tmp_path):
        class Own(MyModel):
            def __init__(self, value=0.0):
                super().__init__()
                self.held = [torch.full((3,), value)]

            def _save_to_state_dict(self, destination, prefix, keep_vars):
                super()._save_to_state_dict(destination, prefix, keep_vars)
                destination[prefix + "held"] = self.held[0]

            def _load_from_state_dict(self, state_dict, prefix, *rest):
                self.held[0] = state_dict.pop(prefix + "held", self.held[0])
                super()._load_from_state_dict(state_dict, prefix, *rest)

        toy_model(Own(2.0)).save_pretrained(tmp_path / "a")
        loaded = ODMTWrapper.from_pretrained(tmp_path / "a", Own())
        assert loaded.unwrap_backbone().held[0].tolist() == [2.0] * 3
        toy_model(Own(float("nan"))).save_pretrained(tmp_path / "b")
        with pytest.raises(AdapterError, match="held holds NaN or infinite values"):
            ODMTWrapper.from_pretrained(tmp_path / "b", Own())

    def test_are_usual_in_masks_of_backbones(self, tmp_path):
        class Masked(MyModel):
            def __init__(self):
                super().__init__()
                self.register_buffer("mask", torch.full((4, 4), -float("inf")).triu(1))

        model = toy_model(Masked())
        model.save_pretrained(tmp_path / "a")
        assert same(model, ODMTWrapper.from_pretrained(tmp_path / "a", Masked()))


@pytest.mark.parametrize(
    "item_ids",
    [
        [*"abcdefghijk", "\ud800"],  # not valid Unicode
        ["", " ", "\n", '"', "\\", "é", "日本", "\0", "a" * 300, "🛍", "null", "1"],
        [0, -1, 2**63, -(2**64), 10**300, 1, 2, 3, 4, 5, 6, "7"],
    ],
)
def test_any_string_or_integer_is_an_item_id(item_ids, tmp_path):
    model = ODMTWrapper(MyModel(), vocabulary=item_ids, config=ODMTConfig(fusion="id"))
    model.save_pretrained(tmp_path / "a")
    loaded = ODMTWrapper.from_pretrained(tmp_path / "a", MyModel())
    assert loaded.vocabulary == model.vocabulary
    assert [type(i) for i in loaded.vocabulary] == [type(i) for i in item_ids]


@pytest.mark.parametrize("item_id", ["a" * 400, 2**5000, True, 1.5, b"a"])
def test_other_item_ids_are_refused(item_id, tmp_path):
    model = ODMTWrapper(MyModel(), vocabulary=[item_id, "b"], config=ODMTConfig(fusion="id"))
    with pytest.raises(
        AdapterError, match="can be saved: use shorter|only strings and integers can"
    ):
        model.save_pretrained(tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_revision_of_a_folder_is_refused(tmp_path):
    toy_model().save_pretrained(tmp_path / "a")
    with pytest.raises(
        AdapterError, match="but revision='main' is only for a repository: leave out"
    ):
        ODMTWrapper.from_pretrained(str(tmp_path / "a"), MyModel(), revision="main")


def test_a_subfolder_of_a_folder(tmp_path):
    model = toy_model()
    model.save_pretrained(tmp_path / "a" / "b" / "c")
    assert same(model, ODMTWrapper.from_pretrained(tmp_path / "a", MyModel(), subfolder="b/c"))
    for subfolder in ("../a", "/tmp"):
        with pytest.raises(AdapterError, match="must be a relative path without"):
            ODMTWrapper.from_pretrained(tmp_path / "a", MyModel(), subfolder=subfolder)


def test_a_type_that_is_none(tmp_path):
    toy_model().save_pretrained(tmp_path)
    for dtype in ("float16", torch.int8, torch.complex64):
        with pytest.raises(TypeError, match="dtype=.* must be a floating-point type, such as"):
            ODMTWrapper.from_pretrained(tmp_path, MyModel(), dtype=dtype)


def test_loading_in_inference_mode(tmp_path):
    saved = toy_model()
    saved.save_pretrained(tmp_path)
    features = saved.item_features
    with torch.inference_mode():
        loaded = ODMTWrapper.from_pretrained(tmp_path, MyModel(), features)
        assert loaded.recommend([["item-1"]]) == saved.recommend([["item-1"]])
        with pytest.raises(ValueError, match=r"inference_mode\(\) cannot be trained: create the"):
            ODMTWrapper(MyModel(), features)
    loaded(torch.tensor([[1, 2, 3], [4, 5, 6]])).loss.backward()
