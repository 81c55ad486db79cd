"""The popularity and item-to-item baselines, compared with slow references and by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import toy_model, toy_split

from odmt_sdk import Interactions, evaluate, leave_one_out, time_split
from odmt_sdk.baselines import ItemToItem, Popularity

HISTORIES = st.lists(
    st.lists(st.integers(0, 6), min_size=1, max_size=9), min_size=2, max_size=6
).filter(lambda histories: any(len(history) >= 4 for history in histories))


def split_of(histories, **settings):
    return leave_one_out(Interactions.from_sequences(histories), **settings)


def slow_scores(split, training, history, backward=0.5, decay=0.7, penalty=0.3, max_distance=None):
    """Compute scores pair by pair; training and history are item ids."""
    counts = {item: sum(list(h).count(item) for h in training) for item in split.vocabulary}
    weights = dict.fromkeys(((a, b) for a in counts for b in counts), 0.0)
    for sequence in training:
        for i, a in enumerate(sequence):
            for j, b in enumerate(sequence[i + 1 :], i + 1):
                if max_distance is None or j - i <= max_distance:
                    weights[a, b] += 1 / (j - i) / counts[a] ** 0.5 / counts[b] ** penalty
                    weights[b, a] += backward / (j - i) / counts[b] ** 0.5 / counts[a] ** penalty
    return [
        sum(decay**ago * weights[a, b] for ago, a in enumerate(reversed(history[-20:])))
        for b in split.vocabulary
    ]


@given(HISTORIES, st.integers(1, 3), st.sampled_from([None, 1, 3]), st.sampled_from([0.3, 0, 0.5]))
def test_item_to_item_equals_its_slow_twin(histories, length, max_distance, penalty):
    split = split_of(histories, max_seq_length=length)
    training = [h[:-2] if len(h) >= 3 else h for h in histories]
    settings = {"max_distance": max_distance, "penalty": penalty}
    baseline = ItemToItem(split, **settings)
    seen = [history[:-1] for history in histories if len(history) >= 3]
    rows = [split.vocabulary.rows(history) for history in seen]
    longest = max(map(len, rows))
    for left in (False, True):  # padding on either side
        padded = [
            [0] * (longest - len(r)) + r if left else r + [0] * (longest - len(r)) for r in rows
        ]
        found = baseline.scores(torch.tensor(padded))
        for history, scores in zip(seen, found, strict=True):
            expected = slow_scores(split, training, history, **settings)
            assert scores[1:].tolist() == pytest.approx(expected)


def test_pairs_are_summed_in_pieces_to_the_same(monkeypatch):
    histories = np.random.default_rng(0).integers(0, 30, (20, 40)).tolist()
    split, rows = split_of(histories), torch.randint(0, 31, (6, 15))
    whole = ItemToItem(split).scores(rows)
    monkeypatch.setattr("odmt_sdk.baselines.PENDING_PAIRS", 50)
    torch.testing.assert_close(ItemToItem(split).scores(rows), whole)


def test_by_hand():
    split = split_of([list("abcxy"), list("bcxy")])
    near = ItemToItem(split)
    a, b, c = split.vocabulary.rows(list("abc"))
    scores = near.scores(torch.tensor([[b]]))[0]
    assert float(scores[c]) == pytest.approx(2 / (2**0.5 * 2**0.3))
    assert float(scores[a]) == pytest.approx(0.5 / (2**0.5 * 1**0.3))
    assert near.recommend([["b"]], k=2).item_ids == [["c", "a"]]
    assert near.recommend([["b"]], k=1, exclude_seen=False).item_ids == [["c"]]
    popular = Popularity(split)
    assert popular.recommend([["a"], ["b"]], k=5).item_ids == [list("bcxy"), list("caxy")]


def test_the_latest_twenty_items_of_a_history_are_read():
    split = split_of([list("abcdefxy")] * 3)
    long = [*"ab", *"c" * 20]
    found = ItemToItem(split, decay=1.0).scores(torch.tensor([split.vocabulary.rows(long)]))[0]
    expected = slow_scores(split, [list("abcdef")] * 3, long, decay=1.0)
    assert found[1:].tolist() == pytest.approx(expected)


def test_popularity_ranks_by_the_counts_of_the_split():
    split = split_of([list("aabcx"), list("abdyx"), list("cazxy")])
    found = Popularity(split)
    scores = found.scores(torch.zeros(2, 3, dtype=torch.long))
    assert scores.tolist() == [split.item_counts.tolist()] * 2


def test_metrics_are_those_of_a_model_that_scores_alike(monkeypatch):
    split = toy_split()
    baseline = Popularity(split)
    model = toy_model()
    monkeypatch.setattr(
        type(model), "encode_catalogue",
        lambda self: {name: split.item_counts[:, None].float() for name in self.sources},
    )  # fmt: skip
    monkeypatch.setattr(
        type(model), "encode_sequences",
        lambda self, ids, *_, **__: {name: torch.ones(len(ids), 1) for name in self.sources},
    )  # fmt: skip
    for exclude_seen in (True, False):
        expected = evaluate(
            model, split.test, k=(1, 5), per_source=False, exclude_seen=exclude_seen
        )
        assert baseline.evaluate(split.test, k=(1, 5), exclude_seen=exclude_seen) == expected


def test_counts_find_what_follows():
    circle = [[(user + step) % 12 for step in range(8)] for user in range(40)]
    split = split_of(circle)
    assert ItemToItem(split).evaluate(split.test, k=(1,))["hit_rate@1"] == 1.0
    assert ItemToItem(split).rank_targets(split.test).tolist() == [1] * 40


def test_whole_histories_count_whatever_the_windows():
    histories = [[*range(30)], [*range(5, 35)]]
    events = [(u, item, t) for u, history in enumerate(histories) for t, item in enumerate(history)]
    users, items, times = zip(*events, strict=True)
    interactions = Interactions.from_table({"user_id": users, "item_id": items, "timestamp": times})
    one, other = (
        ItemToItem(time_split(interactions, max_seq_length=length, windows=windows))
        for length, windows in ((3, "all"), (50, "last"))
    )
    rows = torch.arange(1, 31)[None]
    torch.testing.assert_close(one.scores(rows), other.scores(rows))


@pytest.mark.parametrize("k", [0, 5])
def test_errors(k):
    split = split_of([list("abcd")])
    with pytest.raises(ValueError, match=rf"k={k} must lie in 1..4, the number of items"):
        Popularity(split).recommend([["a"]], k=k)
    with pytest.raises(ValueError, match="max_distance=0 must be at least 1, or None for all"):
        ItemToItem(split, max_distance=0)


@pytest.mark.parametrize("make", [Popularity, ItemToItem])
def test_what_a_baseline_cannot_evaluate(make):
    split = split_of([list("abcd"), list("bcde")])
    baseline = make(split)
    with pytest.raises(ValueError, match="no targets to rank: evaluate on a RankingDataset"):
        baseline.evaluate(split.train)
    with pytest.raises(ValueError, match="row 1 is 'e' in the dataset and 'a' in the split"):
        baseline.evaluate(split_of([list("edcba")]).test)
    more = split_of([list("abcdefghij")]).test
    with pytest.raises(ValueError, match="item row 10, but the baseline counts 5 items"):
        baseline.evaluate(more)
    for k in (10, (2.5,), (True,)):
        with pytest.raises(TypeError, match="must be whole numbers, such as"):
            baseline.evaluate(split.test, k=k)
    with pytest.raises(TypeError, match="k=2.5 must be a whole number"):
        baseline.recommend([["a"]], k=2.5)


@pytest.mark.parametrize(
    "setting", [{"decay": float("nan")}, {"backward": -0.5}, {"penalty": -1.0}]
)
def test_weights_that_are_none(setting):
    with pytest.raises(ValueError, match="must be a number of at least 0"):
        ItemToItem(split_of([list("abcd")]), **setting)
