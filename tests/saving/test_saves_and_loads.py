"""Every adapter that can be saved loads unchanged; others are rejected before writing."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from toys import MyModel, toy_features, toy_model

from odmt_sdk import AdapterError, GRU4Rec, ODMTConfig, ODMTWrapper
from odmt_sdk.losses.teaching import TeachingEdge
from odmt_sdk.saving.card_details import CardDetails

text = st.text(st.characters() | st.sampled_from(["\ud800", "|", "`", "\n", ":", "#"]), max_size=30)
number = st.integers() | st.floats() | st.floats(width=32).map(np.float32) | st.booleans()
scalar = number | st.integers(-9, 9).map(np.int64) | st.none() | text | st.just([1]) | st.just(1j)
cards = st.fixed_dictionaries(
    {},
    optional={
        "title": text | st.none() | st.integers(),
        "description": text | st.integers(0, 3).map(lambda n: "x, " * 10**n * 40),
        "dataset": text,
        "dataset_id": text,
        "license": text | st.just("mit"),
        "language": text | st.lists(text, max_size=3) | st.just(["en", "de"]) | st.just({1, 2}),
        "training": st.dictionaries(text | st.integers(), scalar, max_size=3),
        "results": st.dictionaries(
            text | st.sampled_from(["test", "validation"]),
            st.dictionaries(text | st.sampled_from(["ndcg@10", "id/ndcg@10"]), scalar, max_size=3)
            | number,
            max_size=2,
        ),
        "limits": text,
    },
)
sources = st.sampled_from(["id", "text", "image"])
edges = st.lists(
    st.tuples(sources, st.lists(sources, min_size=1, max_size=3).map(tuple)), max_size=2
).map(tuple)
configs = st.fixed_dictionaries(
    {},
    optional={
        "num_layers": st.integers(1, 2) | st.just(np.int64(1)) | st.just(80),
        "dropout": st.floats(0, 0.9) | st.just(np.float32(0.5)),
        "distillation_weight": st.floats(0, 1e300) | st.integers(0, 2**40),
        "item_chunk_size": st.integers(1, 2**40) | st.none(),
        "teaching_graph": edges | st.just("paper") | edges.map(list),
        "share_backbone": st.booleans(),
    },
)
ids = st.lists(text | st.integers(), min_size=2, max_size=4, unique=True)
provenance = st.dictionaries(st.sampled_from(["encoder", "seed", "x"]), scalar, max_size=3)


def same(one, other):
    """Compare values; NaN equals NaN, and NumPy numbers equal plain ones."""
    if isinstance(one, dict):
        return set(one) == set(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    both = isinstance(one, float | np.floating) and isinstance(other, float | np.floating)
    return one == other or (both and math.isnan(one) and math.isnan(other))


@settings(deadline=None, max_examples=40)
@given(card=cards, config=configs, item_ids=ids, about=provenance)
def test_whatever_saves_loads(card, config, item_ids, about, tmp_path_factory):
    folder = tmp_path_factory.mktemp("any") / "a"
    features = toy_features(len(item_ids), item_ids)
    features = features.select(features.vocabulary)
    features.provenance = {"text": about}
    model = ODMTWrapper(GRU4Rec(8), features, ODMTConfig(**config))
    model.card = CardDetails(**card)
    try:
        model.save_pretrained(folder, item_embeddings=False)
    except AdapterError as error:
        assert "cannot save" in str(error)  # noqa: PT017
        assert not folder.exists()
        return
    loaded = ODMTWrapper.from_pretrained(folder)
    full = dataclasses.replace(model.config, hidden_size=8, max_seq_length=50)
    assert same(full.to_dict(), loaded.config.to_dict())
    assert same(vars(model.card), vars(loaded.card))
    assert same(features.provenance, loaded.feature_provenance)
    assert loaded.vocabulary == model.vocabulary
    for name, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name
    loaded.save_pretrained(folder, item_embeddings=False)  # save again


@pytest.mark.parametrize(
    ("card", "message"),
    [
        (
            {"training": {"epochs": [3]}},
            "card.training.epochs must be a text or a number",
        ),
        ({"training": {3: "a"}}, "card.training: its key 3 is a int; keys must be texts"),
        (
            {"training": {"loss": math.nan}},
            "card.training.loss=nan: give a finite number",
        ),
        ({"results": {"ndcg@10": 0.5}}, "card.results.ndcg@10 must be an object"),
        ({"results": {"test": {"ndcg@10": "x"}}}, "card.results.test.ndcg@10='x' must be a number"),
        ({"limits": "x" * 200_000}, "card.limits has 200000 characters, more than"),
        ({"title": 3}, "card.title must be a text"),
        ({"language": {"en"}}, "card.language: it is a set"),
    ],
)
def test_what_cannot_be_saved_is_named(card, message, tmp_path):
    model = toy_model()
    model.card = CardDetails(**card)
    with pytest.raises(AdapterError, match=f"cannot save .*{message}"):
        model.save_pretrained(tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_cards_of_other_kinds(tmp_path):
    model = toy_model()
    model.card.author = "me"
    with pytest.raises(AdapterError, match=r"card has the unknown keys \['author'\]"):
        model.save_pretrained(tmp_path / "a")
    model.card = {"title": "x"}
    with pytest.raises(AdapterError, match="cannot save model.card: it is a dict, not a CardDetai"):
        model.save_pretrained(tmp_path / "a")


def test_teaching_graphs_of_edges(tmp_path):
    graph = (TeachingEdge("text", ("id",)), ("id", ("text", "image")))
    model = toy_model(teaching_graph=graph)
    model.save_pretrained(tmp_path / "a")
    features = model.item_features
    loaded = ODMTWrapper.from_pretrained(tmp_path / "a", MyModel(), features)
    assert loaded.config.teaching_graph == graph
    rows = torch.tensor([[1, 2, 3], [4, 5, 6]])
    assert torch.equal(loaded(rows).loss, model.eval()(rows).loss)


class Holding(MyModel):
    def __init__(self, tensor):
        super().__init__()
        self.register_buffer("held", tensor)


STORED = [torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.complex64]
STORED += [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]


@pytest.mark.parametrize("dtype", STORED)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3)])
@pytest.mark.filterwarnings("ignore:Holding")
def test_weights_of_all_types(dtype, shape, tmp_path):
    value = (torch.arange(math.prod(shape)).reshape(shape) % 2).to(dtype)
    toy_model(Holding(value)).save_pretrained(tmp_path / "a")
    loaded = ODMTWrapper.from_pretrained(tmp_path / "a", Holding(value.clone()))
    held = loaded.backbones.by_source["id"].held
    assert held.dtype == dtype
    assert torch.equal(held.float(), value.float()) or dtype is torch.complex64


@pytest.mark.filterwarnings("ignore:Holding")
def test_another_type_leaves_complex_values_complex(tmp_path):
    value = torch.tensor([1 + 2j])
    toy_model(Holding(value)).save_pretrained(tmp_path / "a")
    backbone = Holding(torch.tensor([0j]))
    loaded = ODMTWrapper.from_pretrained(tmp_path / "a", backbone, dtype=torch.bfloat16)
    assert torch.equal(loaded.backbones.by_source["id"].held, value)
    assert {p.dtype for p in loaded.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.zeros(2, dtype=torch.complex128), "torch.complex128 is no type of a safetensors"),
        (torch.zeros([1] * 17), "it has 17 dimensions, more than 16"),
        (torch.eye(2).to_sparse(), "make it a dense one"),
        (torch.zeros(2, device="meta"), "it is on the meta device and has no values"),
    ],
)
def test_tensors_that_files_cannot_hold(tensor, message, tmp_path):
    model = toy_model()
    state = {**model.state_dict(), "backbones.by_source.id.held": tensor}
    with pytest.raises(AdapterError, match=f"cannot save backbones.by_source.id.held: .*{message}"):
        model.save_pretrained(tmp_path / "a", state_dict=state)
    assert not (tmp_path / "a").exists()


def test_ids_alone_of_a_width_that_no_heads_divide(tmp_path):
    model = ODMTWrapper(GRU4Rec(5), vocabulary=[1, 2], config=ODMTConfig(fusion="id"))
    model.save_pretrained(tmp_path / "a")
    assert ODMTWrapper.from_pretrained(tmp_path / "a").recommend([[1]], k=1).item_ids == [[2]]


def test_too_many_files(tmp_path):
    model = toy_model(nn.GRU(8, 8))
    many = {f"x{i}": torch.zeros(2) for i in range(300)}
    with pytest.raises(AdapterError, match="max_shard_size=.* makes .* files, more than 200"):
        model.save_pretrained(tmp_path / "a", max_shard_size=8, state_dict=many)
    assert not (tmp_path / "a").exists()
