"""The weights of sources in a model's scores: chosen on validation, used wherever items are scored,
and saved."""

import numpy as np
import pytest
import torch
from toys import MyModel, toy_features, toy_model, toy_split

from odmt_sdk import (
    Interactions,
    ODMTConfig,
    ODMTWrapper,
    SASRec,
    choose_source_weights,
    evaluate,
    export_user_encoder,
    fit,
    leave_one_out,
)
from odmt_sdk.demo.item_table import ItemTable
from odmt_sdk.demo.recommender import Recommender
from odmt_sdk.evaluation import rank_targets
from odmt_sdk.figures.score_contributions import contributions

HISTORIES = [["item-3", "item-1"], ["item-7"], ["item-2"] * 3 + ["item-9", "item-10"]]
WEIGHTS = {"id": 4.0, "text": 0.25, "image": 1.0}


@pytest.fixture
def model():
    return toy_model(SASRec(8, max_seq_length=6), max_seq_length=6).eval()


def knowing(model, queries, clarity):
    """Let each source know the targets; the larger its clarity, the less noise is in its scores."""
    noise = {source: torch.randn(len(queries), 13) for source in model.sources}
    known = torch.eye(13)[queries.targets]
    states = {source: known * clarity[source] + noise[source] for source in model.sources}
    done = [0]

    def encode(item_ids, *_, **__):
        start = done[0] % len(queries)
        done[0] += len(item_ids)
        return {source: rows[start : start + len(item_ids)] for source, rows in states.items()}

    model.encode_catalogue = lambda: {source: torch.eye(13) for source in model.sources}
    model.encode_sequences = encode


def many(users):
    drawn = np.random.default_rng(0).integers(0, 12, (users, 5))
    return leave_one_out(
        Interactions.from_sequences([[f"item-{i}" for i in history] for history in drawn]),
        vocabulary=toy_split().vocabulary,
    )


@pytest.mark.parametrize("clear", ["id", "text", "image"])
def test_an_accurate_source_gets_more_weight(model, clear):
    torch.manual_seed(0)
    split = many(2000)
    knowing(
        model, split.validation, {source: 3.0 if source == clear else 0.0 for source in WEIGHTS}
    )
    settings = {"k": (2,), "exclude_seen": False}
    before = evaluate(model, split.validation, **settings)["ndcg@2"]
    found = choose_source_weights(model, split, metric="ndcg@2", exclude_seen=False)
    assert found == model.source_weights
    assert all(found[clear] >= 4 * found[other] for other in WEIGHTS if other != clear)
    assert evaluate(model, split.validation, **settings)["ndcg@2"] > before + 0.05


@pytest.mark.parametrize("users", [1, 40, 2000])
def test_noise_leaves_weights_equal(model, users):
    torch.manual_seed(0)
    split = many(users)
    knowing(model, split.validation, dict.fromkeys(WEIGHTS, 1.0))
    model.source_weights = WEIGHTS
    assert set(choose_source_weights(model, split, exclude_seen=False).values()) == {1.0}
    assert model.config.source_weights is None


def test_every_way_to_score_uses_them(model, tmp_path):
    split, items = toy_split(), [f"item-{i}" for i in range(12)]
    plain = model.score(HISTORIES, items)
    explicit = model.score(HISTORIES, items, source_weights=WEIGHTS)
    model.source_weights = WEIGHTS
    scores = model.score(HISTORIES, items)
    assert torch.equal(scores, explicit)
    assert not torch.allclose(scores, plain)
    found = model.recommend(HISTORIES, k=12, exclude_seen=False)
    for ids, values, row in zip(found.item_ids, found.scores, scores, strict=True):
        assert ids == [items[i] for i in row.argsort(descending=True).tolist()]
        torch.testing.assert_close(torch.tensor(values), row.sort(descending=True).values)
    vectors = model.encode_histories(HISTORIES)
    torch.testing.assert_close(vectors @ model.item_vectors()[1:].T, scores)
    ranks = rank_targets(model, split.test, exclude_seen=False)["fused"]
    histories = [split.vocabulary.ids(query["seen_ids"].tolist()) for query in split.test]
    of_targets = model.score(histories, split.vocabulary.item_ids)
    for rank, row, target in zip(ranks, of_targets, split.test.targets, strict=True):
        assert int(rank) == 1 + int((row > row[target - 1]).sum())
    parts = contributions(model, HISTORIES[0], items)
    torch.testing.assert_close(sum(parts.parts.values()), parts.scores)
    torch.testing.assert_close(parts.scores, scores[0])
    for top_k in (None, 5):
        exported = export_user_encoder(
            model, tmp_path / f"{top_k}", format="torch_export", top_k=top_k
        )
        assert exported.recommend(HISTORIES, k=5)[0] == model.recommend(HISTORIES, 5).item_ids


def test_sources_that_are_not_named_keep_the_weight_of_the_model(model):
    items = ["item-4", "item-5"]
    model.source_weights = {"id": 4.0}
    both = model.score(HISTORIES, items, source_weights={"id": 4.0, "text": 0.0})
    assert torch.equal(model.score(HISTORIES, items, source_weights={"text": 0.0}), both)
    model.source_weights = None
    assert model.source_weights == dict.fromkeys(model.sources, 1.0)


def test_they_are_saved_unless_the_items_are_others(model, tmp_path):
    model.source_weights = WEIGHTS
    model.save_pretrained(tmp_path / "whole")
    loaded = ODMTWrapper.from_pretrained(tmp_path / "whole")
    assert loaded.source_weights == WEIGHTS
    assert loaded.recommend(HISTORIES).item_ids == model.recommend(HISTORIES).item_ids
    others = toy_features(9, item_ids=[f"other-{i}" for i in range(9)])
    started = ODMTWrapper.from_pretrained(tmp_path / "whole", item_features=others, transfer=True)
    assert started.config.source_weights is None
    model.save_pretrained(tmp_path / "content", content_only=True)
    started = ODMTWrapper.from_pretrained(tmp_path / "content", item_features=others, transfer=True)
    assert started.config.source_weights is None
    assert model.source_weights == WEIGHTS  # saving changed nothing


def test_a_state_dict_tells_of_them(model):
    model.source_weights = WEIGHTS
    other = toy_model(SASRec(8, max_seq_length=6), max_seq_length=6)
    with pytest.warns(UserWarning, match="weighed its sources by .*4.0.*set model.source_weights"):
        other.load_state_dict(model.state_dict())
    other.source_weights = WEIGHTS
    other.load_state_dict(model.state_dict())


def test_fit_chooses_them(tmp_path, monkeypatch):
    model, split = toy_model(max_seq_length=6), toy_split()
    settings = {"epochs": 1, "disable_tqdm": True, "log_level": "error", "item_to_item": False}

    def choose(model, split, **_):
        assert set(model.source_weights.values()) == {1.0}  # during training
        model.source_weights = WEIGHTS
        return model.source_weights

    monkeypatch.setattr("odmt_sdk.pipeline.choose_source_weights", choose)
    model.source_weights = {"id": 2.0}
    result = fit(model, split, tmp_path / "run", **settings)
    assert model.source_weights == WEIGHTS
    assert model.card.training["weights of sources"] == "id 4, text 0.25, image 1"
    again = evaluate(model, split.validation, k=(5, 10, 20), progress=False)
    assert result.validation["ndcg@10"] == pytest.approx(again["ndcg@10"])
    assert ODMTWrapper.from_pretrained(tmp_path / "run", MyModel()).source_weights == WEIGHTS
    model.source_weights = {"id": 2.0}
    fit(model, split, tmp_path / "other", weigh_sources=False, **settings)
    assert model.source_weights == {"id": 2.0, "text": 1.0, "image": 1.0}


def test_the_demo_starts_with_them(model):
    demo = Recommender(model, ItemTable(model.vocabulary))

    def found(**weights):
        return [card.row for card in demo.recommend([4, 2], k=10, **weights)]

    equal = found()
    model.source_weights = WEIGHTS
    ids = model.recommend([model.vocabulary.ids([4, 2])], k=10).item_ids[0]
    assert found() == model.vocabulary.rows(ids) != equal
    assert found(weights=dict.fromkeys(WEIGHTS, 1.0)) == equal


def test_errors(model):
    for wrong, error, said in (
        ({"id": -1}, ValueError, "source_weights=-1 must be at least 0"),
        ({"id": "much"}, TypeError, "source_weights='much' must be a number"),
        ({"id": float("nan")}, ValueError, "must be finite"),
        ("id", TypeError, "source_weights='id' must map sources to numbers"),
        ([1.0, 2.0], TypeError, "must map sources to numbers"),
    ):
        with pytest.raises(error, match=said):
            ODMTConfig(source_weights=wrong)
    with pytest.raises(ValueError, match="source_weights names 'audio', but the sources are"):
        toy_model(source_weights={"audio": 2.0})
    with pytest.raises(ValueError, match="leaves no source"):
        model.source_weights = dict.fromkeys(WEIGHTS, 0.0)
    with pytest.raises(ValueError, match="metric='text/ndcg@10' must be"):
        choose_source_weights(model, toy_split(), metric="text/ndcg@10")
