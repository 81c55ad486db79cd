import sys
import time

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Subset
from transformers.utils import logging

from odmt_sdk import Interactions, ODMTConfig, ODMTWrapper, SASRec, leave_one_out
from odmt_sdk.data.sequences import RankingDataset, SequenceDataset
from odmt_sdk.evaluation import evaluate as evaluate_module
from odmt_sdk.evaluation.evaluate import evaluate, rank_targets
from odmt_sdk.evaluation.metrics import ranking_metrics
from odmt_sdk.retrieval.top_k import top_k_rows
from odmt_sdk.vocabulary import ItemVocabulary

NUM_ITEMS = 40


class TinyModel(nn.Module):
    """A model with two sources; a user is the mean of the items, times a matrix per source."""

    sources = ("id", "text")
    num_items = NUM_ITEMS
    device = torch.device("cpu")

    def __init__(self):
        super().__init__()
        self.tables = nn.ModuleDict({s: nn.Embedding(NUM_ITEMS + 1, 6) for s in self.sources})
        self.mixers = nn.ModuleDict({s: nn.Linear(6, 6, bias=False) for s in self.sources})
        self.dropout = nn.Dropout(0.5)
        self.batches = []

    def encode_catalogue(self):
        return {source: self.tables[source].weight for source in self.sources}

    def encode_sequences(self, item_ids, attention_mask=None, item_embeddings=None):
        assert not torch.is_grad_enabled()
        assert not any(module.training for module in self.modules())
        self.batches.append(len(item_ids))
        encoded = {}
        for source in self.sources:
            read = self.dropout(item_embeddings[source][item_ids]) * attention_mask[..., None]
            mean = read.sum(1) / attention_mask.sum(1, keepdim=True)
            encoded[source] = self.mixers[source](mean)
        return encoded


@pytest.fixture
def model():
    return TinyModel()


@pytest.fixture
def dataset():
    """30 users with 1 to 9 items; a model reads the last 5; some targets have been seen."""
    lengths = np.random.randint(1, 10, 30)
    rows = np.random.randint(1, NUM_ITEMS + 1, lengths.sum())
    offsets = np.concatenate([[0], lengths.cumsum()])
    targets = np.random.randint(1, NUM_ITEMS + 1, 30)
    targets[::4] = rows[offsets[:-1][::4]]
    return RankingDataset(rows, offsets, targets, list(range(30)), max_seq_length=5)


def slow_ranks(model, dataset, exclude_seen=True):
    """Rank user by user in float64, from the definition of the score."""
    ranks = {"fused": [], "id": [], "text": []}
    tables = {s: model.tables[s].weight.double() for s in model.sources}
    for example in (dataset[index] for index in range(len(dataset))):
        scores = {
            s: tables[s] @ model.mixers[s].weight.double() @ tables[s][example["item_ids"]].mean(0)
            for s in model.sources
        }
        scores["fused"] = (scores["id"] + scores["text"]) / 2
        target = example["target_ids"]
        barred = {0, *(example["seen_ids"].tolist() if exclude_seen else [])} - {target}
        rivals = [row for row in range(NUM_ITEMS + 1) if row not in barred]
        for name in ranks:
            ranks[name].append(sum(bool(scores[name][r] >= scores[name][target]) for r in rivals))
    return ranks


@pytest.mark.parametrize("exclude_seen", [True, False])
@pytest.mark.parametrize("batch_size", [1, 7, 256])
def test_ranks_equal_the_loop_over_users(model, dataset, exclude_seen, batch_size):
    ranks = rank_targets(model, dataset, batch_size=batch_size, exclude_seen=exclude_seen)
    expected = slow_ranks(model, dataset, exclude_seen)
    assert {name: found.tolist() for name, found in ranks.items()} == expected
    assert all(found.dtype is torch.int64 for found in ranks.values())
    assert len(model.batches) == -(-len(dataset) // batch_size)


def test_metrics_are_those_of_the_ranks(model, dataset):
    metrics = evaluate(model, dataset, k=(3, 10), batch_size=8)
    expected = slow_ranks(model, dataset)
    fused = ranking_metrics(torch.tensor(expected.pop("fused")), (3, 10))
    by_source = {
        f"{source}/{name}": value
        for source, ranks in expected.items()
        for name, value in ranking_metrics(torch.tensor(ranks), (3, 10)).items()
    }
    assert metrics == pytest.approx(fused | by_source)
    assert list(metrics)[:4] == ["hit_rate@3", "recall@3", "ndcg@3", "mrr@3"]
    assert len(metrics) == 3 * 2 * 4


def test_without_the_sources(model, dataset):
    assert set(rank_targets(model, dataset, per_source=False)) == {"fused"}
    alone = evaluate(model, dataset, per_source=False)
    metrics = evaluate(model, dataset)
    assert set(alone) == {name for name in metrics if "/" not in name}
    assert alone == {name: metrics[name] for name in alone}


def test_a_target_is_recommended_exactly_when_it_ranks_that_high(model, dataset):
    k = 10
    examples = [dataset[index] for index in range(len(dataset))]
    batch = evaluate_module.SequenceCollator()(examples)
    items = torch.cat([model.tables[s].weight for s in model.sources], dim=1)
    model.eval()
    with torch.no_grad():
        encoded = model.encode_sequences(
            batch["item_ids"], batch["attention_mask"], model.encode_catalogue()
        )
    queries = torch.cat([encoded[s] for s in model.sources], dim=1) / 2
    seen_before = [
        [row for row in example["seen_ids"].tolist() if row != example["target_ids"]]
        for example in examples
    ]
    _, rows = top_k_rows(queries, items, k, excluded=seen_before)
    found = (rows == batch["target_ids"][:, None]).any(1)
    assert found.any()
    assert not found.all()
    assert found.equal(rank_targets(model, dataset)["fused"] <= k)


def test_a_part_of_the_users(model, dataset):
    chosen = [3, 29, 11]
    whole, part = rank_targets(model, dataset), rank_targets(model, Subset(dataset, chosen))
    assert all(part[name].equal(whole[name][chosen]) for name in whole)


def test_half_precision_is_ranked_in_float32(model, dataset):
    """The scores of items 1 and 2 differ by less than half precision can represent."""
    for table in model.tables.values():
        table.weight.data.fill_(1.0)
        table.weight.data[2, 0] = 1.0 - 2**-8
    for mixer in model.mixers.values():
        mixer.weight.data = torch.eye(6)
    examples = [{"item_ids": [3], "target_ids": 1, "seen_ids": [3]}]
    assert rank_targets(model, examples)["fused"].tolist() == [NUM_ITEMS - 2]
    assert rank_targets(model.bfloat16(), examples)["fused"].tolist() == [NUM_ITEMS - 2]


@pytest.mark.parametrize("training", [True, False])
def test_every_part_keeps_its_mode(model, dataset, training):
    model.train(training)
    model.mixers["text"].train(not training)
    before = [module.training for module in model.modules()]
    evaluate(model, dataset)
    assert [module.training for module in model.modules()] == before


def test_the_mode_is_kept_when_evaluation_fails(model, dataset):
    model.mixers["text"].weight.data[2, 3] = torch.nan
    with pytest.raises(ValueError, match="scores item row 1 with nan"):
        evaluate(model, dataset)
    assert model.training
    assert all(module.training for module in model.modules())


def test_leaving_eval_mode_goes_through_the_model(model, dataset, monkeypatch):
    """A model's `train` may do more than set flags, for example clear a cache."""
    calls = []
    train = model.train
    monkeypatch.setattr(model, "train", lambda mode=True: (calls.append(mode), train(mode))[1])
    evaluate(model, dataset)
    assert calls == [False, True]


def test_progress_is_shown_when_it_takes_long(model, dataset, monkeypatch, capsys):
    encode = model.encode_sequences

    def encode_slowly(*args, **kwargs):
        time.sleep(0.15)  # tqdm draws every 0.1 seconds
        return encode(*args, **kwargs)

    model.encode_sequences = encode_slowly
    logging.enable_progress_bar()
    evaluate(model, dataset, batch_size=10)
    assert "Evaluating" not in capsys.readouterr().err
    monkeypatch.setattr(evaluate_module, "PROGRESS_DELAY_SECONDS", 0.1)
    evaluate(model, dataset, batch_size=10, progress=False)
    assert "Evaluating" not in capsys.readouterr().err
    evaluate(model, dataset, batch_size=10)
    assert "Evaluating" not in capsys.readouterr().err  # stderr is not a terminal
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    evaluate(model, dataset, batch_size=10)
    assert "Evaluating" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"k": (10, 0)}, r"k=\(10, 0\) must have at least one cut-off, and none below 1"),
        ({"k": ()}, r"k=\(\) must have"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_bad_arguments(model, dataset, arguments, match):
    with pytest.raises(ValueError, match=match):
        evaluate(model, dataset, **arguments)
    assert model.batches == []


def test_empty_dataset(model, dataset):
    with pytest.raises(ValueError, match="the dataset is empty"):
        evaluate(model, Subset(dataset, []))


def test_dataset_for_training(model):
    dataset = SequenceDataset(np.array([1, 2, 3]), np.array([0, 3]))
    with pytest.raises(ValueError, match="has no target_ids and no seen_ids"):
        evaluate(model, dataset)


def test_dataset_without_seen_items(model):
    examples = [{"item_ids": [1, 2], "target_ids": 3}]
    with pytest.raises(ValueError, match="has no seen_ids"):
        rank_targets(model, examples)
    assert rank_targets(model, examples, exclude_seen=False)["fused"].shape == (1,)


@pytest.mark.parametrize(("rows", "target"), [([1, 41, 2], 3), ([1, 2, 3], 41)])
def test_dataset_of_another_catalogue(model, rows, target):
    dataset = RankingDataset(np.array(rows), np.array([0, 3]), np.array([target]), ["ann"])
    with pytest.raises(ValueError, match="has item row 41, but the model has 40 items"):
        evaluate(model, dataset)
    assert model.batches == []


def test_source_named_like_the_mean(model, dataset):
    model.sources = ("id", "fused")
    with pytest.raises(ValueError, match="a source is named 'fused'"):
        evaluate(model, dataset)


def test_a_split_of_another_vocabulary_is_refused():
    histories = [list("abcde"), list("bcdea"), list("cdeab")]
    split = leave_one_out(Interactions.from_sequences(histories))
    backwards = ItemVocabulary(split.vocabulary.item_ids[::-1])
    model = ODMTWrapper(SASRec(8), vocabulary=backwards, config=ODMTConfig(fusion="id"))
    with pytest.raises(ValueError, match=r"row 1 is 'a' .*vocabulary=model.vocabulary"):
        evaluate(model, split.test)
    with pytest.raises(TypeError, match=r"dataset is a Split: .* such as split\.test"):
        evaluate(model, split)
    again = leave_one_out(Interactions.from_sequences(histories), vocabulary=model.vocabulary)
    assert evaluate(model, again.test, k=(5,))["hit_rate@5"] == 1
