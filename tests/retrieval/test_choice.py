"""Scores, similar items, streaming, the popularity prior and re-ranking."""

import numpy as np
import pytest
import torch
from toys import toy_features

from odmt_sdk import ItemVocabulary, ODMTWrapper, SASRec
from odmt_sdk.retrieval.popularity_prior import drawn_histories, log_popularity
from odmt_sdk.retrieval.recommend import recommend
from odmt_sdk.retrieval.rerank import MaximalMarginalRelevance


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return ODMTWrapper(SASRec(16, max_seq_length=6), toy_features()).eval()


@pytest.fixture(scope="module")
def histories(model):
    ids = list(model.vocabulary)
    return [ids[:3], ids[5:6], ids[2:11], [ids[1], ids[1]]]


def all_scores(model, histories):
    vectors = model.item_vectors()[1:]
    return model.encode_histories(histories) @ vectors.T


def test_vectors_have_the_scores_of_recommend(model, histories):
    scores = all_scores(model, histories)
    found = model.recommend(histories, k=5, exclude_seen=False)
    best = scores.topk(5)
    ids = list(model.vocabulary)
    assert found.item_ids == [[ids[column] for column in row] for row in best.indices.tolist()]
    np.testing.assert_allclose(found.scores, best.values, rtol=1e-4, atol=1e-5)


def test_score_of_chosen_items(model, histories):
    chosen = [list(model.vocabulary)[place] for place in (7, 0, 7)]
    found = model.score(histories, chosen)
    torch.testing.assert_close(found, all_scores(model, histories)[:, [7, 0, 7]])
    with pytest.raises(ValueError, match="'nope' is not among"):
        model.score(histories, ["nope"])


def test_a_stream_is_read_a_batch_at_a_time(model, histories):
    read = []

    def stream():
        for history in histories:
            read.append(history)
            yield history

    found = model.recommend_iter(stream(), k=3, batch_size=2)
    first = next(found)
    assert len(read) == 2
    items, scores = zip(first, *found, strict=True)
    expected = model.recommend(histories, k=3)
    assert list(items) == expected.item_ids
    for got, wanted in zip(scores, expected.scores, strict=True):
        assert got == pytest.approx(wanted, rel=1e-4, abs=1e-6)
    with pytest.raises(ValueError, match="history 2 is empty"):
        list(model.recommend_iter([*histories[:2], []], batch_size=2))


@pytest.mark.parametrize("source", [None, "id", "text"])
def test_similar_items_are_those_of_highest_cosine(model, source):
    catalogue = model.encode_catalogue()
    vectors = model.item_vectors()[1:] if source is None else catalogue[source][1:].float()
    cosines = torch.nn.functional.cosine_similarity(vectors[:, None], vectors, dim=2)
    cosines.fill_diagonal_(-torch.inf)
    ids = list(model.vocabulary)
    found = model.similar_items([ids[4], ids[0]], k=3, source=source)
    for row, items, scores in zip((4, 0), found.item_ids, found.scores, strict=True):
        best = cosines[row].topk(3)
        assert items == [ids[column] for column in best.indices.tolist()]
        assert scores == pytest.approx(best.values.tolist(), rel=1e-4)
    assert model.similar_items([], k=3).item_ids == []
    with pytest.raises(ValueError, match="source='sound' is unknown"):
        model.similar_items(ids[:1], source="sound")


@pytest.mark.parametrize("weight", [0.0, 0.5, 3.0])
def test_a_popularity_prior_equals_its_slow_twin(model, histories, weight):
    counts = torch.arange(model.num_items + 1).double() ** 2
    ids = list(model.vocabulary)
    scores = all_scores(model, histories).double()
    for row, length in enumerate((4, 1, 6, 2)):  # near to 3, 1, 9 and 2; 6 are read
        drawn = drawn_histories(counts, length)
        usual = all_scores(model, [[ids[place - 1] for place in rows] for rows in drawn])
        scores[row] -= usual.double().mean(0)
    scaled = (scores - scores.mean(1, keepdim=True)) / scores.std(1, correction=0, keepdim=True)
    logs = torch.log1p(counts[1:])
    prior = (logs - logs.mean()) / logs.std(correction=0)
    best = (scaled + weight * prior).topk(4)
    expected = [[ids[column] for column in row] for row in best.indices.tolist()]
    settings = {"k": 4, "exclude_seen": False, "popularity_weight": weight}
    assert model.recommend(histories, popularity=counts, **settings).item_ids == expected
    named = dict(zip(ids, counts[1:].tolist(), strict=True)) | {"stranger": 5.0}
    assert model.recommend(histories, popularity=named, **settings).item_ids == expected


def test_drawn_histories_are_as_popular_as_the_items():
    counts = torch.tensor([7.0, 0.0, 3.0, 1.0])  # entry 0 is padding
    rows = torch.stack(drawn_histories(counts, 32))
    assert rows.unique().tolist() == [2, 3]
    assert 0.7 < (rows == 2).double().mean() < 0.8
    assert rows.equal(torch.stack(drawn_histories(counts, 32)))
    nothing_known = torch.stack(drawn_histories(torch.zeros(4), 2))
    assert sorted(nothing_known.unique().tolist()) == [1, 2, 3]


def test_recommending_with_a_prior_does_not_depend_on_the_batch(model, histories):
    counts = torch.arange(model.num_items + 1).double()
    together = model.recommend(histories, k=4, popularity=counts)
    for index, history in enumerate(histories):
        alone = model.recommend([history], k=4, popularity=counts)
        assert alone.item_ids[0] == together.item_ids[index]


def test_log_popularity_is_standardized():
    prior = log_popularity(torch.tensor([5, 0, 1, 3]))
    assert prior[0] == 0
    torch.testing.assert_close(prior[1:].mean(), torch.tensor(0.0), atol=1e-6, rtol=0)
    assert log_popularity(torch.tensor([0, 2, 2])).tolist() == [0, 0, 0]  # all alike


def test_a_heavy_prior_recommends_what_is_popular(model, histories):
    ids = list(model.vocabulary)
    popular = {ids[3]: 1000, ids[9]: 100}
    found = model.recommend([[ids[0]]], k=2, popularity=popular, popularity_weight=100.0)
    assert found.item_ids == [[ids[3], ids[9]]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"popularity": torch.ones(3)}, r"popularity has shape \(3,\); it needs one count per row"),
        ({"popularity": {1: -1.0}}, "negative or not finite"),
        (
            {"popularity": {"1": 5, "2": 3}},
            r"2 item ids \(for example '1'\), but none of .*example 1",
        ),
        ({"rerank": lambda rows, _: rows + 100}, r"an index outside 0\.\.\d+, such as a row of an"),
        ({"rerank": lambda rows, _: rows * 0}, "an index twice for one user"),
        ({"rerank": lambda rows, _: rows[0]}, r"returned the shape \(12,\): return indices"),
        ({"popularity_weight": -1.0}, r"popularity_weight=-1\.0 must be at least 0"),
        ({"candidates": 0}, "candidates=0 must be"),
        ({"unknown": "guess"}, "unknown='guess' must be"),
    ],
)
def test_wrong_settings(model, histories, settings, message):
    with pytest.raises(ValueError, match=message):
        model.recommend(histories, **settings)


def test_a_reranker_that_returns_no_indices(model, histories):
    for returned, kind in ((lambda *_: None, "NoneType"), (lambda _, scores: scores, "float32")):
        with pytest.raises(TypeError, match=f"returned .*{kind}, not a tensor of integers"):
            model.recommend(histories, rerank=returned)


@pytest.mark.parametrize("size", [0, -1])
def test_wrong_sizes_of_batches(model, histories, size):
    for call in (lambda **given: model.score(histories, [1], **given),
                 lambda **given: model.encode_histories(histories, **given)):  # fmt: skip
        with pytest.raises(ValueError, match=f"batch_size={size} must be at least 1"):
            call(batch_size=size)


def test_scores_do_not_depend_on_autocast_or_the_default_type(model, histories):
    expected = model.score(histories, [1, 2])
    with torch.autocast("cpu", torch.bfloat16):
        assert model.score(histories, [1, 2]).dtype == torch.float32
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(model.score(histories, [1, 2]), expected)
    finally:
        torch.set_default_dtype(torch.float32)


def test_reranking_chooses_among_the_candidates(model, histories):
    vectors = model.encode_catalogue()["text"]
    none = MaximalMarginalRelevance(vectors, diversity=0.0)
    plain = model.recommend(histories, k=4)
    assert model.recommend(histories, k=4, rerank=none, candidates=8).item_ids == plain.item_ids

    def backwards(rows, scores):
        places = torch.arange(rows.shape[1]).flip(0)
        return places.expand_as(rows)

    deeper = model.recommend(histories, k=6, exclude_seen=False)
    turned = model.recommend(histories, k=4, exclude_seen=False, rerank=backwards, candidates=6)
    assert turned.item_ids == [items[::-1][:4] for items in deeper.item_ids]


def test_reranking_makes_lists_more_diverse(model, histories):
    from odmt_sdk.evaluation.beyond_accuracy import intra_list_diversity

    vectors = model.encode_catalogue()["text"]
    diversity = []
    for strength in (0.0, 0.9):
        rerank = MaximalMarginalRelevance(vectors, diversity=strength)
        found = model.recommend(histories[:2], k=4, rerank=rerank)
        rows = torch.tensor([model.vocabulary.rows(items) for items in found.item_ids])
        diversity.append(intra_list_diversity(rows, vectors))
    assert diversity[1] > diversity[0]


@pytest.mark.parametrize("library", ["faiss", "usearch", "hnswlib"])
def test_an_exported_index_recommends_the_same(model, histories, library, tmp_path):
    pytest.importorskip(library, reason=f"needs odmt-sdk[{library}]")
    from odmt_sdk.indexes import ItemIndex

    model.export_index(tmp_path / "index", library=library)
    index = ItemIndex.open(tmp_path / "index", fingerprint=model.catalogue_fingerprint())
    found, scores = index.search(model.encode_histories(histories), k=5, exclude=histories)
    expected = model.recommend(histories, k=5)
    assert found == expected.item_ids
    for got, wanted in zip(scores, expected.scores, strict=True):
        assert got == pytest.approx(wanted, rel=1e-4, abs=1e-5)


WEIGHTS = {"id": 0.0, "text": 2.5}  # image keeps weight 1


def weighted_scores(model, histories, weights):
    """A slow twin: one source and one history at a time."""
    weights = {**dict.fromkeys(model.sources, 1.0), **weights}
    items = model.encode_catalogue()
    scores = torch.zeros(len(histories), model.num_items)
    for user, history in enumerate(histories):
        rows = torch.tensor([model.vocabulary.rows(history)])
        states = model.encode_sequences(rows, item_embeddings=items)
        for source, weight in weights.items():
            scores[user] += weight * (items[source][1:] @ states[source][0]).detach()
    return scores / sum(weights.values())


def test_weights_of_sources_equal_a_slow_twin(model, histories):
    expected = weighted_scores(model, histories, WEIGHTS)
    found = model.score(histories, list(model.vocabulary), source_weights=WEIGHTS)
    torch.testing.assert_close(found, expected)
    settings = {"k": 4, "exclude_seen": False, "source_weights": WEIGHTS}
    best = expected.topk(4)
    ids = list(model.vocabulary)
    recommended = model.recommend(histories, **settings)
    assert recommended.item_ids == [[ids[place] for place in row] for row in best.indices.tolist()]
    streamed = model.recommend_iter(iter(histories), **settings)
    assert [items for items, _ in streamed] == recommended.item_ids


@pytest.mark.parametrize("weights", [{}, {"id": 1.0}, dict.fromkeys(("id", "text", "image"), 2.0)])
def test_equal_weights_change_nothing(model, histories, weights):
    assert model.recommend(histories, source_weights=weights) == model.recommend(histories)


class WholeNumbers(torch.nn.Module):
    """A model whose vectors are whole numbers, so that equal scores are exactly equal."""

    sources, max_seq_length, num_items, device = ("id", "text"), 5, 4, torch.device("cpu")
    vocabulary = ItemVocabulary(["a", "b", "c", "d"])

    def encode_catalogue(self):
        by_id, by_text = [[0.0], [1.0], [2.0], [3.0], [4.0]], [[0.0], [5.0], [7.0], [7.0], [7.0]]
        return {"id": torch.tensor(by_id), "text": torch.tensor(by_text)}

    def encode_sequences(self, item_ids, attention_mask=None, item_embeddings=None):
        return dict.fromkeys(self.sources, torch.ones(len(item_ids), 1))


def test_items_that_tie_by_the_weighted_sources_come_in_the_order_of_the_catalogue():
    model, settings = WholeNumbers(), {"k": 3, "exclude_seen": False}
    by_text = recommend(model, model.vocabulary, [["a"]], source_weights={"id": 0}, **settings)
    assert by_text == ([["b", "c", "d"]], [[7.0, 7.0, 7.0]])
    both = recommend(model, model.vocabulary, [["a"]], source_weights={"id": 3}, **settings)
    assert both == ([["d", "c", "b"]], [[19 / 4, 16 / 4, 13 / 4]])


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ({"sound": 1.0}, ValueError, r"names 'sound', but the sources are \['id', 'text', 'image'"),
        ({"id": -0.5}, ValueError, r"source_weights\['id'\]=-0.5 must be finite and at least 0"),
        ({"id": float("nan")}, ValueError, "must be finite"),
        ({"id": float("inf")}, ValueError, "must be finite"),
        (dict.fromkeys(("id", "text", "image"), 0), ValueError, "leaves no source: give at least"),
        ({"id": "much"}, TypeError, "must be a number, at least 0"),
        ({"id": True}, TypeError, "must be a number"),
        ([1, 2, 3], TypeError, "source_weights is a list, but it must map sources to weights"),
    ],
)
def test_wrong_weights_of_sources(model, histories, weights, error, message):
    for call in (model.recommend, model.encode_histories):
        with pytest.raises(error, match=message):
            call(histories, source_weights=weights)
    with pytest.raises(error, match=message):
        model.score(histories, list(model.vocabulary)[:2], source_weights=weights)
