"""`evaluate(..., beyond_accuracy=True)` and its groups, against lists made user by user."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Subset
from toys import toy_model, toy_split

from odmt_sdk import (
    Interactions,
    ODMTConfig,
    ODMTWrapper,
    SASRec,
    evaluate,
    leave_one_out,
    time_split,
)
from odmt_sdk.data.sequences import RankingDataset, TrainingCounts
from odmt_sdk.evaluation.evaluate import rank_targets
from odmt_sdk.evaluation.groups import popularity_groups
from odmt_sdk.evaluation.metrics import ranking_metrics
from odmt_sdk.evaluation.table import metrics_table
from odmt_sdk.vocabulary import ItemVocabulary

NAMES = ("coverage", "novelty", "diversity", "gini", "popularity", "serendipity")


def mean(values):
    values = list(values)
    return sum(values) / len(values)


@pytest.fixture
def split():
    """Forty users in a circle of twelve items, of which training leaves two cold."""
    rng = np.random.default_rng(3)
    rows = [
        (f"user-{user}", f"item-{item}", step)
        for user in range(40)
        for step, item in enumerate(rng.choice(10, 2 + user % 5, replace=False))
    ]
    rows += [(f"user-{user}", f"item-{10 + user % 2}", 99) for user in range(40)]
    users, items, times = zip(*rows, strict=True)
    table = {"user_id": users, "item_id": items, "timestamp": times}
    vocabulary = ItemVocabulary([f"item-{i}" for i in range(12)])
    return leave_one_out(
        Interactions.from_table(table), vocabulary=vocabulary, max_seq_length=6
    ), list(zip(users, items, times, strict=True))


def slow_metrics(model, dataset, events, k):
    """From `recommend`, item by item: every formula as the documentation writes it."""
    held_out = {}  # the last two events of a user
    trained = []
    for user in dict.fromkeys(user for user, _, _ in events):
        own = [item for name, item, _ in events if name == user]
        cut = len(own) - 2 if len(own) >= 3 else len(own)
        trained += [(user, item) for item in own[:cut]]
        held_out[user] = own[cut:]
    counts = {item: sum(other == item for _, other in trained) for item in model.vocabulary}
    owners = {item: len({u for u, other in trained if other == item}) for item in model.vocabulary}
    num_users = len({user for user, _ in trained})
    vectors = model.encode_catalogue()

    def content(a, b):
        a, b = model.vocabulary.rows([a, b])
        return mean(
            1
            - float(torch.cosine_similarity(vectors[s][a].double(), vectors[s][b].double(), dim=0))
            for s in model.sources
            if s != "id"
        )

    lists, targets = [], []
    for index in range(len(dataset)):
        example = dataset[index]
        history = model.vocabulary.ids(example["seen_ids"].tolist())
        lists.append(model.recommend([history], k=k).item_ids[0])
        targets.append(model.vocabulary.ids([example["target_ids"]])[0])
    size = len(model.vocabulary)
    exposure = [sum(item in shown for shown in lists) for item in model.vocabulary]
    falling = sorted(set(counts.values()), reverse=True)

    def surprise(rank, item):
        anyone = (size - falling.index(counts[item])) / size if counts[item] else 0.0
        return max((size + 1 - rank) / size - anyone, 0.0)

    return (
        {
            "coverage": mean(count > 0 for count in exposure),
            "novelty": mean(
                mean(-math.log2(max(1, owners[item]) / num_users) for item in shown)
                for shown in lists
            ),
            "diversity": mean(mean(content(a, b) for a, b in combinations(s, 2)) for s in lists),
            "gini": sum(abs(a - b) for a in exposure for b in exposure)
            / (2 * size * sum(exposure)),
            "popularity": mean(mean(counts[item] for item in shown) for shown in lists),
            "serendipity": mean(
                mean(surprise(rank, item) * (item == target) for rank, item in enumerate(shown, 1))
                for shown, target in zip(lists, targets, strict=True)
            ),
        },
        counts,
        lists,
        targets,
    )


@pytest.mark.parametrize("fusion", ["early_deep", "late"])
def test_metrics_equal_those_counted_by_hand(split, fusion):
    split, events = split
    model = toy_model(fusion=fusion).eval()
    found = evaluate(model, split.test, k=(3, 5), batch_size=7, beyond_accuracy=True)
    for k in (3, 5):
        expected, *_ = slow_metrics(model, split.test, events, k)
        assert {name: found[f"{name}@{k}"] for name in NAMES} == pytest.approx(expected, rel=1e-5)
    plain = evaluate(model, split.test, k=(3, 5))
    assert plain == {name: found[name] for name in plain}  # the ranking metrics stay as they were
    assert not any(name.split("@")[0] in NAMES for name in plain)


def test_groups_by_popularity_are_the_default(split):
    split, events = split
    model = toy_model().eval()
    found = evaluate(model, split.test, k=(4,), beyond_accuracy=True, per_source=False)
    _, counts, lists, targets = slow_metrics(model, split.test, events, 4)
    assert {item for item, count in counts.items() if not count} == {"item-10", "item-11"}
    assert found["cold/users"] == len(targets)  # each user's last item
    assert found["warm/users"] == found["popular/users"] == 0
    assert "warm/ndcg@4" not in found
    assert found["cold/ndcg@4"] == found["ndcg@4"]
    cold = mean(mean(not counts[item] for item in shown) for shown in lists)
    assert found["cold/share@4"] == pytest.approx(cold)
    shares = [found[f"{name}/share@4"] for name in ("cold", "warm", "popular")]
    assert sum(shares) == pytest.approx(1)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any))
def test_popularity_groups(counts):
    counts = torch.tensor([7, *counts])  # entry 0 is ignored
    groups = {n: set(m.nonzero()[:, 0].tolist()) for n, m in popularity_groups(counts).items()}
    of = {row: int(counts[row]) for row in range(1, len(counts))}
    assert groups["cold"] == {row for row, count in of.items() if not count}
    assert groups["cold"] | groups["warm"] | groups["popular"] == set(of)
    assert sum(map(len, groups.values())) == len(of)
    # a set of whole classes of equal counts, from the top, as small as it can be
    total, taken = sum(of.values()), 0
    expected = set()
    for count in sorted(set(of.values()), reverse=True):
        if taken * 2 >= total:
            break
        for row in (row for row, other in of.items() if other == count):
            expected.add(row)
            taken += count
    assert groups["popular"] == expected


def test_own_groups_of_items_and_users():
    split, model = toy_split(), toy_model().eval()
    users = split.test.user_ids[::3]
    mask = torch.zeros(13, dtype=torch.bool)
    mask[[0, 3, 4]] = True
    groups = {
        "two": {"items": ["item-2", "item-3"]},
        "rows": {"items": mask},
        "third": {"users": users},
        "queries": {"users": np.arange(40) % 3 == 0},
    }
    found = evaluate(model, split.test, k=(5,), beyond_accuracy=True, groups=groups)
    assert "cold/users" not in found
    names = [name for name in found if name.startswith("two/")]
    assert {name: found[name] for name in names} == {
        name: found[name.replace("two/", "rows/")] for name in names
    }
    part = evaluate(
        model, Subset(split.test, range(0, 40, 3)), k=(5,), beyond_accuracy=True, groups={}
    )
    for group in ("third", "queries"):
        assert found[f"{group}/users"] == 14
        inside = {n: v for n, v in part.items() if "/" not in n}
        assert {n: found[f"{group}/{n}"] for n in inside} == pytest.approx(inside)
    inside = mask[split.test.targets]
    ranks = rank_targets(model, split.test)["fused"][inside]
    assert found["two/ndcg@5"] == ranking_metrics(ranks, (5,))["ndcg@5"]
    only = evaluate(model, split.test, k=(5,), groups={"two": groups["two"]})
    assert "coverage@5" not in only
    assert "two/share@5" not in only
    assert only["two/ndcg@5"] == found["two/ndcg@5"]


def test_a_table_leaves_groups_out():
    found = evaluate(toy_model(), toy_split().test, k=(10, 20), beyond_accuracy=True)
    table = metrics_table({"toy": found})
    assert "text alone" in table
    assert "cold" not in table


def test_content_of_the_user_s_own_and_models_of_ids_alone():
    split, model = toy_split(), toy_model().eval()
    same = torch.ones(13, 2)
    found = evaluate(model, split.test, k=(5,), beyond_accuracy=True, content=same)
    assert found["diversity@5"] == pytest.approx(0, abs=1e-6)
    ids = ODMTWrapper(SASRec(8), vocabulary=split.vocabulary)
    assert "diversity@5" not in evaluate(ids, split.test, k=(5,), beyond_accuracy=True)
    assert "diversity@5" in evaluate(ids, split.test, k=(5,), beyond_accuracy=True, content=same)


def test_a_list_longer_than_the_catalogue():
    split, model = toy_split(), toy_model().eval()
    found = evaluate(model, split.test, k=(500,), beyond_accuracy=True)
    assert found["coverage@500"] == 1.0


@pytest.mark.parametrize("cut", [leave_one_out, time_split])
def test_training_counts_of_the_splits(split, cut):
    _, events = split
    users, items, times = zip(*events, strict=True)
    times = range(len(times)) if cut is time_split else times
    table = {"user_id": users, "item_id": items, "timestamp": list(times)}
    split = cut(Interactions.from_table(table))
    counts = split.test.training_counts
    assert counts is split.validation.training_counts
    assert counts.items.equal(split.item_counts)
    assert (counts.users <= counts.items).all()
    assert counts.num_users <= len(set(users))


@given(st.lists(st.lists(st.integers(1, 5), max_size=6), min_size=1, max_size=6))
def test_training_counts(sequences):
    rows = np.array([row for own in sequences for row in own], dtype=np.int64)
    offsets = np.cumsum([0, *map(len, sequences)])
    counts = TrainingCounts.of(rows, offsets, num_items=5)
    assert counts.items.tolist() == [sum(own.count(r) for own in sequences) for r in range(6)]
    assert counts.users.tolist() == [sum(r in own for own in sequences) for r in range(6)]
    assert counts.num_users == sum(map(bool, sequences))


def test_no_training_counts():
    dataset = RankingDataset(np.array([1, 2]), np.array([0, 2]), np.array([3]), ["ann"])
    with pytest.raises(ValueError, match="RankingDataset has no training_counts"):
        evaluate(toy_model(), dataset, beyond_accuracy=True)
    dataset.training_counts = TrainingCounts(torch.ones(5), torch.ones(5), 2)
    with pytest.raises(ValueError, match=r"has shape \(5,\), but the 12 items of the model"):
        evaluate(toy_model(), Subset(dataset, [0]), beyond_accuracy=True)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"text": {"items": ["item-1"]}}, "a group is named 'text'"),
        ({"a/b": {"items": ["item-1"]}}, "without a slash"),
        ({"new": ["item-1"]}, "must name its items or its users"),
        ({"new": {"items": ["item-1"], "users": []}}, "must name its items or its users"),
        ({"new": {"items": ["mug"]}}, "group 'new': .*mug"),
        ({"new": {"items": torch.ones(12, dtype=torch.bool)}}, r"shape \(12,\); it needs \(13,\)"),
        ({"few": {"users": ["bob"]}}, "1 users that are not in the dataset, such as 'bob'"),
        ({"few": {"users": np.ones(3, dtype=bool)}}, r"it needs \(40,\): one per query"),
        ([("few", {})], "must map names to groups"),
    ],
)
def test_bad_groups(groups, message):
    with pytest.raises(ValueError, match=message):
        evaluate(toy_model(), toy_split().test, groups=groups)


def test_bad_content():
    with pytest.raises(ValueError, match=r"content has shape \(3, 2\); it needs \(13, W\)"):
        evaluate(toy_model(), toy_split().test, beyond_accuracy=True, content=torch.ones(3, 2))


def test_booleans_in_a_list_are_a_mask_and_not_users():
    split = leave_one_out(Interactions.from_sequences([list("abcd"), list("bcda"), list("cdab")]))
    config = ODMTConfig(fusion="id")
    model = ODMTWrapper(SASRec(8), vocabulary=split.vocabulary, config=config)
    chosen = [False, True, True]  # users 0, 1, 2: True is not user 1
    for users in (chosen, np.array(chosen), torch.tensor(chosen), [1, 2]):
        found = evaluate(model, split.test, k=(2,), groups={"some": {"users": users}})
        assert found["some/users"] == 2
    with pytest.raises(ValueError, match="1 users that are not in the dataset, such as True"):
        evaluate(model, split.test, groups={"some": {"users": [True, 2]}})
    rows = [False, True, False, False, True]
    found = evaluate(model, split.test, k=(2,), groups={"some": {"items": rows}})
    assert found["some/users"] == sum(rows[target] for target in split.test.targets.tolist())
