"""Item-to-item counts as a further source of a model's scores, from counting to the adapter."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from toys import MyModel, toy_features, toy_model, toy_split

from odmt_sdk import (
    AdapterError,
    Interactions,
    ItemFeatures,
    ODMTWrapper,
    SASRec,
    add_item_to_item,
    choose_source_weights,
    evaluate,
    export_user_encoder,
    fit,
    leave_one_out,
)
from odmt_sdk.baselines import ItemToItem
from odmt_sdk.batch import TableRecommender
from odmt_sdk.data import RankingDataset
from odmt_sdk.evaluation import rank_targets
from odmt_sdk.figures.score_contributions import contributions
from odmt_sdk.item_regression import regression_weights
from odmt_sdk.item_to_item import SHARES
from odmt_sdk.retrieval import ItemNeighbours
from odmt_sdk.retrieval.popularity_prior import drawn_histories, like_length

HISTORIES = [["item-3", "item-1"], ["item-7"], ["item-2"] * 3 + ["item-9", "item-10"]]


@pytest.fixture
def split():
    return toy_split()


@pytest.fixture
def model(split):
    made = toy_model(SASRec(8, max_seq_length=6), max_seq_length=6).eval()
    made.item_to_item = ItemToItem(split).neighbours(weight=0.8)
    return made


def dense(neighbours, histories):
    """Scores (B, N + 1) of all items."""
    scores = torch.zeros(len(histories), len(neighbours))
    neighbours.scores(histories).add_to_(scores, slice(None))
    return scores


@given(st.lists(st.lists(st.integers(0, 7), min_size=4, max_size=9), min_size=1, max_size=5))
def test_all_neighbours_score_as_the_baseline(histories):
    split = leave_one_out(Interactions.from_sequences(histories))
    counted = ItemToItem(split)
    rows = [torch.tensor(split.vocabulary.rows(history)) for history in histories]
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    expected = 2 * counted.scores(padded)[:, 1:].float()
    neighbours = counted.neighbours(k=100, weight=2)
    for given_as in (rows, padded, padded.flip(1).fliplr()):
        torch.testing.assert_close(dense(neighbours, given_as)[:, 1:], expected)


def test_the_best_neighbours_are_kept_and_the_latest_items_read():
    split = leave_one_out(Interactions.from_sequences([list("abcdexy"), list("abzxy")]))
    counted = ItemToItem(split)
    a = split.vocabulary.rows(["a"])[0]
    whole, two = counted.neighbours(k=50), counted.neighbours(k=2)
    best = counted.scores(torch.tensor([[a]]))[0].topk(2)
    assert sorted(two.rows[a].tolist()) == sorted(best.indices.tolist())
    torch.testing.assert_close(two.weights[a].double(), best.values)
    assert not two.weights[0].any()
    assert two.rows.shape == (len(split.vocabulary) + 1, 2)
    long = torch.full((1, 30), a)
    long[0, :10] = split.vocabulary.rows(["x"])[0]  # too long ago
    torch.testing.assert_close(dense(whole, long), dense(whole, long[:, 10:]))
    for k in (0, 1001):
        with pytest.raises(ValueError, match=rf"k={k} must lie in 1..1000"):
            counted.neighbours(k)


@given(st.lists(st.lists(st.integers(0, 7), min_size=4, max_size=9), min_size=1, max_size=9))
def test_regression_equals_one_ridge_regression_per_item(histories):
    split = leave_one_out(Interactions.from_sequences(histories))
    size = len(split.vocabulary) + 1
    has = torch.zeros(len(histories), size, dtype=torch.float64)
    for user, history in enumerate(histories):
        has[user, split.vocabulary.rows(history[:-2])] = 1
    found = regression_weights(split)
    for item in range(1, size):
        others = [row for row in range(1, size) if row != item]
        inputs, target = has[:, others], has[:, item]
        gram = inputs.T @ inputs + 10.0 * torch.eye(len(others))
        expected = torch.linalg.solve(gram, inputs.T @ target).clamp(min=0)
        torch.testing.assert_close(found[others, item].double(), expected, rtol=1e-3, atol=1e-6)
    assert not found.diagonal().any()
    assert not found[0].any()
    assert not found[:, 0].any()


@pytest.mark.parametrize("limit", ["MOST_ITEMS", "MOST_PAIRS"])
def test_large_data_get_counts_alone(split, limit, monkeypatch):
    model = toy_model()
    add_item_to_item(model, split)
    both = model.item_to_item
    monkeypatch.setattr(f"odmt_sdk.item_regression.{limit}", 1)
    add_item_to_item(model, split)
    alone = ItemToItem(split, max_distance=20).neighbours()
    assert torch.equal(model.item_to_item.rows, alone.rows)
    assert torch.equal(model.item_to_item.weights, alone.weights)
    assert not both.rows[both.weights == 0].any()
    # a third of the weights, as a whole, are those of the counts
    assert float(both.weights.sum()) == pytest.approx(3 * float(alone.weights.sum()), rel=0.05)
    with pytest.raises(ValueError, match="a regression of 12 items takes too long: there can be"):
        ItemToItem(split, regression=True)


@given(st.lists(st.lists(st.integers(0, 7), min_size=4, max_size=9), min_size=1, max_size=9))
def test_regression_and_counts_are_added(histories):
    split = leave_one_out(Interactions.from_sequences(histories))
    every = torch.arange(1, len(split.vocabulary) + 1)[:, None]
    counts, both = (ItemToItem(split, regression=on).scores(every) for on in (False, True))
    regression = regression_weights(split)[1:].double()
    if regression.any():
        regression *= 2 * counts.sum() / regression.sum()
    torch.testing.assert_close(both, counts + regression, rtol=1e-5, atol=1e-9)


def test_own_counts_are_added(split):
    model = toy_model()
    own = ItemToItem(split, backward=0.0)
    assert add_item_to_item(model, split, counts=own) > 0
    assert torch.equal(model.item_to_item.rows, own.neighbours().rows)
    other = ItemToItem(leave_one_out(Interactions.from_sequences([list("abcd")])))
    with pytest.raises(ValueError, match="counts are of 4 items, other than the 12 items of the"):
        add_item_to_item(model, split, counts=other)
    with pytest.raises(TypeError, match="counts is a ItemNeighbours, but it must be an ItemToItem"):
        add_item_to_item(model, split, counts=own.neighbours())


@given(st.lists(st.integers(0, 40), max_size=9), st.integers(1, 7))
def test_added_scores_of_blocks_and_of_chosen_rows(columns, width):
    generator = torch.Generator().manual_seed(len(columns))
    rows = torch.randint(0, 41, (41, 6), generator=generator, dtype=torch.int32)
    near = ItemNeighbours(rows, torch.rand(41, 6, generator=generator))
    histories = torch.randint(1, 41, (3, 4), generator=generator)
    whole, added = dense(near, histories), near.scores(histories)
    blocks = []
    for first in range(0, 41, width):
        block = torch.zeros(2, min(width, 41 - first))
        added.add_to_(block, slice(1, 3), first)
        blocks.append(block)
    torch.testing.assert_close(torch.cat(blocks, 1), whole[1:])
    if columns:
        torch.testing.assert_close(added.of_rows(torch.tensor(columns)), whole[:, columns])


def test_recommend_score_and_evaluate_agree(model, split):
    items = model.item_vectors()
    rows = [torch.tensor(split.vocabulary.rows(history)) for history in HISTORIES]
    expected = model.encode_histories(HISTORIES) @ items.T + dense(model.item_to_item, rows)
    scores = model.score(HISTORIES, [f"item-{i}" for i in range(12)], batch_size=2)
    torch.testing.assert_close(scores, expected[:, 1:])
    found = model.recommend(HISTORIES, k=12, exclude_seen=False, batch_size=2)
    for user, (ids, values) in enumerate(zip(found.item_ids, found.scores, strict=True)):
        order = expected[user, 1:].argsort(descending=True, stable=True)
        assert ids == [f"item-{i}" for i in order.tolist()]
        assert values == pytest.approx(expected[user, 1:][order].tolist(), rel=1e-4, abs=1e-5)
    among = [["item-5", "item-6"]] * 3
    assert set(model.recommend(HISTORIES, k=2, items=among).item_ids[0]) == {"item-5", "item-6"}
    queries = [split.test[i] for i in range(len(split.test))]
    seen = [query["seen_ids"].tolist() for query in queries]
    best = model.recommend([split.vocabulary.ids(history) for history in seen], k=12).item_ids
    targets = [split.vocabulary.ids([query["target_ids"]])[0] for query in queries]
    by_list = [ids.index(item) + 1 for ids, item in zip(best, targets, strict=True)]
    assert rank_targets(model, split.test)["fused"].tolist() == by_list


def test_weights_of_zero_and_of_much(model, split):
    alone, with_counts = toy_model(SASRec(8, max_seq_length=6), max_seq_length=6), model
    alone.load_state_dict(with_counts.state_dict())
    model.item_to_item_weight = 0
    assert evaluate(model, split.test) == evaluate(alone, split.test)
    assert model.recommend(HISTORIES) == alone.recommend(HISTORIES)
    model.item_to_item_weight = 1e6
    counted = ItemToItem(split).evaluate(split.test, k=(1, 3))
    assert evaluate(model, split.test, k=(1, 3), per_source=False) == counted


def test_with_a_popularity_prior(model):
    counts = torch.arange(13.0)
    items = [f"item-{i}" for i in range(12)]
    found = model.recommend(HISTORIES, k=12, exclude_seen=False, popularity=counts)
    scores = model.score(HISTORIES, items).double()
    model.item_to_item_weight = 0
    alone = model.score(HISTORIES, items).double()
    unusual = alone.clone()
    for row, history in enumerate(HISTORIES):
        drawn = drawn_histories(counts, like_length(len(history), model.max_seq_length))
        usual = model.score([[items[place - 1] for place in rows] for rows in drawn], items)
        unusual[row] -= usual.double().mean(0)
    spread = unusual.std(1, correction=0, keepdim=True)
    log = torch.log1p(counts[1:]).double()
    prior = (log - log.mean()) / log.std(correction=0)
    expected = (scores - alone + unusual) / spread + 4 * prior
    for ids, values in zip(found.item_ids, expected, strict=True):
        assert ids == [items[i] for i in values.argsort(descending=True).tolist()]


def test_the_weight_is_best_on_validation(split):
    model = toy_model()
    model.train()
    weight = add_item_to_item(model, split, metric="ndcg@2")
    assert model.training
    assert model.item_to_item_weight == weight > 0
    chosen = evaluate(model, split.validation, k=(2,))["ndcg@2"]
    for share in SHARES:
        model.item_to_item_weight = weight * share / 0.5
        assert evaluate(model, split.validation, k=(2,))["ndcg@2"] <= chosen
    random = np.random.default_rng(0).integers(0, 12, (30, 5))
    noise = leave_one_out(
        Interactions.from_sequences([[f"item-{i}" for i in history] for history in random]),
        vocabulary=split.vocabulary,
    )
    model.encode_catalogue = lambda: {s: torch.eye(13) for s in model.sources}  # knows the answer
    model.encode_sequences = lambda ids, *_, **__: {
        s: torch.eye(13)[noise.validation.targets[: len(ids)]] for s in model.sources
    }
    assert add_item_to_item(model, noise) == 0.0
    assert model.item_to_item is None
    assert model.item_to_item_weight == 0.0


@pytest.mark.parametrize(("between", "decay"), [(0, 0.7), (3, 0.9)])
def test_how_much_of_a_history_counts_is_chosen_on_validation(between, decay):
    """Item b follows from item a of the same number, with other items between them."""
    drawn = np.random.default_rng(0)
    histories = []
    for user in range(400):
        n, *others = drawn.integers(0, 8, 4)
        other = [f"other-{m}" for m in others]
        history = [f"a-{n}", *other[:between], f"b-{n}"]
        # half of the users show the pair in training, the others have b as validation target
        histories.append([*other[between:], *history, *other[: 2 if user % 2 else 1]])
    split = leave_one_out(Interactions.from_sequences(histories))
    ids = list(split.vocabulary)
    model = ODMTWrapper(MyModel(), toy_features(len(ids), item_ids=ids))
    assert add_item_to_item(model, split, metric="ndcg@2") > 0
    assert model.item_to_item.decay == decay


def test_errors(model, split):
    for weight in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=rf"weight={weight} must be at least 0 and finite"):
            model.item_to_item_weight = weight
    other = leave_one_out(Interactions.from_sequences([list("abcd")]))
    with pytest.raises(ValueError, match="counts are for 4 items, but the model has 12"):
        model.item_to_item = ItemToItem(other).neighbours()
    with pytest.raises(ValueError, match="the 12 items of the model and the 4 items of"):
        add_item_to_item(model, other)
    for metric in ("text/ndcg@10", "ndcg", "auc@10"):
        with pytest.raises(ValueError, match=rf"metric='{metric}' must be hit_rate, recall"):
            add_item_to_item(model, split, metric=metric)
    nothing = RankingDataset([], [0], [], [])
    none = dataclasses.replace(split, validation=nothing)
    for choose in (add_item_to_item, choose_source_weights):
        with pytest.raises(ValueError, match="validation is empty: there is no user"):
            choose(model, none)
    model.item_to_item = None
    model.item_to_item_weight = 0
    with pytest.raises(ValueError, match="item_to_item_weight=1 has no effect"):
        model.item_to_item_weight = 1
    rows, weights = torch.zeros(3, 2, dtype=torch.int32), torch.zeros(3, 2)
    for change, message in (
        ({"rows": rows.long()}, "rows have dtype torch.int64"),
        ({"rows": rows[:, :1]}, r"rows \(3, 1\) and weights \(3, 2\) must both"),
        ({"rows": rows + 3}, r"a neighbour has row 3, outside 0\.\.2"),
        ({"weights": weights - 1}, "must be finite and at least 0"),
        ({"decay": 0.0}, "decay=0.0 must be above 0"),
    ):
        with pytest.raises(ValueError, match=message):
            ItemNeighbours(**{"rows": rows, "weights": weights, **change})


def test_saved_and_loaded(model, tmp_path):
    model.save_pretrained(tmp_path / "whole")
    again = ODMTWrapper.from_pretrained(tmp_path / "whole")
    assert again.item_to_item_weight == 0.8
    assert again.item_to_item.decay == 0.7
    assert torch.equal(again.item_to_item.rows, model.item_to_item.rows)
    assert again.recommend(HISTORIES) == model.recommend(HISTORIES)
    again.item_to_item = None
    again.save_pretrained(tmp_path / "whole")
    assert not (tmp_path / "whole" / "item_to_item.safetensors").exists()
    assert ODMTWrapper.from_pretrained(tmp_path / "whole").item_to_item is None
    model.save_pretrained(tmp_path / "content", content_only=True)
    assert not (tmp_path / "content" / "item_to_item.safetensors").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": torch.zeros(5, 2, dtype=torch.int32)}, r"counts have shape \(5, 2\)"),
        ({"rows": torch.full((13, 10), 13, dtype=torch.int32)}, "a neighbour has row 13"),
        ({"weights": torch.full((13, 10), torch.nan)}, "must be finite and at least 0"),
        ({"weights": torch.zeros(13, 3)}, "have another shape than the rows"),
        ({"weight": torch.tensor(-1.0, dtype=torch.float64)}, "weight=-1.0 must be at least 0"),
        ({"decay": torch.tensor(torch.nan, dtype=torch.float64)}, "decay=nan must be above 0"),
        ({"decay": torch.tensor(0.7)}, "are not rows, weights, decay, weight"),
        ({"more": torch.zeros(1)}, "are not rows, weights, decay, weight"),
    ],
)
def test_damaged_counts_are_refused(model, tmp_path, change, message):
    assert model.item_to_item.rows.shape == (13, 10)
    model.save_pretrained(tmp_path)
    path = tmp_path / "item_to_item.safetensors"
    tensors = {**load_file(path), **change}
    save_id = json.loads((tmp_path / "config.json").read_text())["save_id"]
    save_file(tensors, path, metadata={"save_id": save_id})
    with pytest.raises(AdapterError, match=f"is damaged: .*{message}"):
        ODMTWrapper.from_pretrained(tmp_path)


def test_new_items_have_no_neighbours(model):
    before = model.recommend(HISTORIES, items=[f"item-{i}" for i in range(12)])
    new = toy_features(2, item_ids=["new-0", "new-1"], seed=1)
    model.add_items(ItemFeatures(new.vocabulary, {name: new[name] for name in new.modalities}))
    assert len(model.item_to_item) == 15
    assert model.item_to_item_weight == 0.8
    assert model.recommend(HISTORIES, items=[f"item-{i}" for i in range(12)]) == before
    assert len(model.recommend([["new-0"]]).item_ids[0]) == 10


def test_fit_counts_by_default(split, tmp_path):
    settings = {"epochs": 1, "disable_tqdm": True, "log_level": "error", "use_cpu": True}
    model = toy_model()
    result = fit(model, split, tmp_path / "counts", k=(2, 10), metric="text/ndcg@2", **settings)
    assert model.item_to_item_weight > 0
    assert result.validation["ndcg@2"] == evaluate(model, split.validation, k=(2,))["ndcg@2"]
    assert result.test["ndcg@2"] == evaluate(model, split.test, k=(2,))["ndcg@2"]
    assert "text/ndcg@2" in result.validation
    again = ODMTWrapper.from_pretrained(tmp_path / "counts", MyModel())
    assert again.item_to_item_weight == model.item_to_item_weight
    plain = toy_model()
    fit(plain, split, tmp_path / "plain", item_to_item=False, **settings)
    assert plain.item_to_item is None


@pytest.mark.parametrize("top_k", [None, 5])
@pytest.mark.parametrize("format", ["torch_export", "onnx"])
def test_exports_recommend_with_counts(model, tmp_path, top_k, format):
    if format == "onnx":
        for library in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(library)
    encoder = export_user_encoder(model, tmp_path, top_k=top_k, format=format)
    items, scores = encoder.recommend(HISTORIES, k=5)
    found = model.recommend(HISTORIES, k=5)
    assert items == found.item_ids
    for mine, theirs in zip(scores, found.scores, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-3, abs=1e-4)
    model.item_to_item = None
    encoder = export_user_encoder(model, tmp_path, top_k=top_k, format=format)
    assert encoder.recommend(HISTORIES, k=5)[0] == model.recommend(HISTORIES, k=5).item_ids
    assert not (tmp_path / "item_to_item.npz").exists()


def test_an_export_with_counts_refuses_an_index(model, tmp_path):
    encoder = export_user_encoder(model, tmp_path / "encoder")
    index = SimpleNamespace(settings=encoder.settings)
    with pytest.raises(ValueError, match="adds item-to-item counts to the scores, but an index"):
        encoder.recommend(HISTORIES, index=index)


def test_batches_recommend_with_counts(model):
    pa = pytest.importorskip("pyarrow")
    expected = model.recommend(HISTORIES, k=4).item_ids
    table = pa.table({"user_id": [1, 2, 3], "item_ids": HISTORIES})
    assert TableRecommender(model, k=4)(table).column("item_ids").to_pylist() == expected
    model.item_to_item_weight = 0.0
    assert model.recommend(HISTORIES, k=4).item_ids != expected


def test_an_index_says_that_it_lacks_the_counts(model, tmp_path):
    pytest.importorskip("faiss")
    with pytest.warns(UserWarning, match="lacks the item-to-item counts of this model"):
        model.export_index(tmp_path)


def test_contributions_add_up(model):
    items = [f"item-{i}" for i in range(12)]
    found = contributions(model, HISTORIES[0], items)
    assert list(found.parts) == [*model.sources, "item_to_item"]
    assert "item_to_item" in found.ranks
    torch.testing.assert_close(found.scores, model.score(HISTORIES[:1], items)[0])
    torch.testing.assert_close(sum(found.parts.values()), found.scores)
