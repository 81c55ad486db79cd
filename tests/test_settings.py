"""Settings have a single source: a change takes effect and is saved, or is rejected."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from toys import MyModel, toy_features

from odmt_sdk import ODMTConfig, ODMTWrapper, OnlineDistillationMixin
from odmt_sdk.config import LIVE_SETTINGS, TRAINING_SETTINGS
from odmt_sdk.losses.teaching import TeachingEdge

ITEM_IDS = torch.tensor([[3, 1, 2], [4, 5, 6]])
OTHER = {  # another value of every setting
    "hidden_size": 16,
    "max_seq_length": 1,
    "fusion": "sum",
    "num_layers": 1,
    "num_heads": 4,
    "id_visibility": "mutual",
    "token_norm": False,
    "shortcut": False,
    "dropout": 0.5,
    "layer_norm_eps": 1e-3,
    "initial_length": 1.0,
    "modality_dropout": 0.5,
    "id_dropout": 0.5,
    "prefix_augmentation": False,
    "share_backbone": True,
    "scale_inputs": False,
    "project_backbone": True,
    "allow_future": True,
    "teaching_graph": "paper",
    "distillation_temperature": 0.5,
    "distillation_weight": 0.0,
    "distillation_warmup_epochs": 3.0,
    "detach_teacher": False,
    "logq_correction": False,
    "item_chunk_size": 2,
    "loss_chunk_size": 2,
    "sparse_id_gradients": True,
    "gather_candidates": True,
    "source_weights": (("id", 2.0),),
}


def make(**settings) -> ODMTWrapper:
    torch.manual_seed(0)
    config = ODMTConfig(dropout=0.0, **settings)
    model = ODMTWrapper(MyModel(), toy_features(), config, hidden_size=8, check=False)
    return model.set_item_popularity(torch.arange(13))


def loss(model: ODMTWrapper) -> tuple[float, float, int]:
    output = model(ITEM_IDS, epoch=1.0)
    weight = output.losses["distillation_weight"]
    return float(output.loss.detach()), float(weight), len(output.labels)


def test_there_is_another_value_of_every_setting():
    assert set(OTHER) == {field.name for field in dataclasses.fields(ODMTConfig)}
    assert set(LIVE_SETTINGS) < set(OTHER)


@pytest.mark.parametrize("name", LIVE_SETTINGS)
def test_a_live_setting_acts_at_once_and_is_saved(name, tmp_path):
    model, value = make(), OTHER[name]
    setattr(model.config, name, value)
    assert loss(model) == loss(make(**{name: value}))
    same_loss = (
        "prefix_augmentation",
        "gather_candidates",
        "detach_teacher",
        "source_weights",
    )
    if name not in (*same_loss, "item_chunk_size", "loss_chunk_size"):
        assert loss(model) != loss(make())
    if name == "loss_chunk_size":
        assert model(ITEM_IDS).logits == {}
    model.save_pretrained(tmp_path / "saved")
    loaded = ODMTWrapper.from_pretrained(tmp_path / "saved", backbone=MyModel())
    assert getattr(loaded.config, name) == value


@pytest.mark.parametrize("name", sorted(set(OTHER) - set(LIVE_SETTINGS)))
def test_what_the_layers_were_built_with_is_refused(name):
    model = make()
    before = getattr(model.config, name)
    way_out = "make a new model with"
    if name in TRAINING_SETTINGS:
        way_out = "from_pretrained.*training_settings"
    with pytest.raises(ValueError, match=f"{name}=.* cannot replace {name}=.*{way_out}"):
        setattr(model.config, name, OTHER[name])
    assert getattr(model.config, name) == before
    setattr(model.config, name, before)  # the same value is allowed


def test_the_model_and_its_config_say_the_same():
    model = make()
    model.distillation_weight = 0.7
    assert model.config.distillation_weight == 0.7
    model.config.teaching_graph = "mutual"
    assert model.teaching_graph == "mutual"
    model.max_seq_length = 2
    assert model.config.max_seq_length == model.max_seq_length == 2
    model.config.max_seq_length = None
    assert model.max_seq_length == 50
    with pytest.raises(ValueError, match="distillation_weight=-1 must be at least 0"):
        model.distillation_weight = -1
    model.config = dataclasses.replace(model.config, distillation_weight=0.1)
    assert model.distillation_weight == 0.1
    with pytest.raises(ValueError, match="num_layers=1 cannot replace num_layers=2"):
        model.config = ODMTConfig(num_layers=1, distillation_weight=0.9, dropout=0.0)
    assert model.distillation_weight == 0.1  # unchanged


def test_models_do_not_share_settings():
    config = ODMTConfig()
    one, two = (ODMTWrapper(MyModel(), toy_features(), config, check=False) for _ in range(2))
    twin = copy.deepcopy(one)
    one.config.distillation_weight = 0.0
    config.num_layers = 3  # for a third model
    assert config.distillation_weight == two.distillation_weight == twin.distillation_weight == 0.2
    assert one.config.num_layers == 2
    with pytest.raises(ValueError, match="cannot replace"):
        twin.config.num_layers = 3


def test_one_set_of_defaults():
    for name in vars(OnlineDistillationMixin)["__annotations__"]:
        assert getattr(OnlineDistillationMixin, name) == getattr(ODMTConfig(), name), name


def test_without_an_epoch_distillation_has_its_full_weight():
    output = make()(ITEM_IDS)
    assert output.losses["distillation_weight"] == torch.tensor(0.2)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"teaching_graph": "papr"}, ValueError, "teaching_graph='papr' is not registered; known"),
        ({"fusion": "odtm"}, ValueError, "fusion='odtm' is not registered; known are"),
        ({"fusion": "only"}, ValueError, "fusion='only' is not registered; known are"),
        (
            {"teaching_graph": (("text", ("audio",)),)},
            ValueError,
            r"unknown: \['audio'\]",
        ),
    ],
)
def test_unknown_names_are_refused_when_the_model_is_made(settings, error, message):
    with pytest.raises(error, match=message):
        ODMTWrapper(MyModel(), toy_features(), ODMTConfig(**settings), check=False)
    if "audio" not in message:
        with pytest.raises(error, match=message):
            ODMTWrapper(MyModel(), config=ODMTConfig(**settings))  # before the backbone is probed


def test_edges_as_a_teaching_graph_are_saved(tmp_path):
    graph = [TeachingEdge("text", ("id",)), ("image", ["id", "text"])]
    model = make(teaching_graph=graph)
    assert "distillation/id" not in model(ITEM_IDS).losses
    model.save_pretrained(tmp_path / "saved")
    loaded = ODMTWrapper.from_pretrained(tmp_path / "saved", backbone=MyModel())
    assert loaded.config.teaching_graph == model.config.teaching_graph
    assert loaded.config.teaching_graph == (("text", ("id",)), ("image", ("id", "text")))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_layers": 2.0}, "num_layers=2.0 must be a whole number of at least 1"),
        ({"num_heads": True}, "num_heads=True must be a whole number"),
        ({"hidden_size": "8"}, "hidden_size='8' must be a whole number"),
        ({"dropout": "0.1"}, "dropout='0.1' must be a number"),
        ({"detach_teacher": "false"}, "detach_teacher='false' must be True or False"),
        ({"share_backbone": 1}, "share_backbone=1 must be True or False"),
        ({"fusion": None}, "fusion=None must be the name of a registered fusion"),
        ({"teaching_graph": [("text", "id")]}, "teaching_graph=.* must be the name"),
        ({"teaching_graph": [("text", ())]}, "teaching_graph=.* must be the name"),
    ],
)
def test_values_of_the_wrong_type(settings, message):
    with pytest.raises(TypeError, match=message):
        ODMTConfig(**settings)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_cannot_be_saved(value):
    with pytest.raises(ValueError, match=f"distillation_weight={value} must be finite"):
        ODMTConfig(distillation_weight=value)


def test_a_misspelt_setting_is_refused_on_assignment():
    config = ODMTConfig()
    with pytest.raises(AttributeError, match="'distilation_weight'; did you mean 'distillation_w"):
        config.distilation_weight = 0.0
    config.use_cache = False  # other libraries may add their own settings
    assert config == ODMTConfig()


def test_numpy_numbers_become_plain_ones():
    config = ODMTConfig(
        hidden_size=np.int64(8),
        num_layers=np.int32(1),
        dropout=np.float32(0.5),
        distillation_weight=np.float64(0.25),
        shortcut=np.bool_(False),
        loss_chunk_size=torch.tensor(4),
    )
    assert all(
        type(value) in (int, float, bool, str, type(None)) for value in config.to_dict().values()
    )
    assert (config.hidden_size, config.dropout, config.loss_chunk_size) == (8, 0.5, 4)
