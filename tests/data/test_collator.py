import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from odmt_sdk.data.collator import SequenceCollator
from odmt_sdk.data.sequences import RankingDataset, SequenceDataset

OFFSETS = np.array([0, 4, 5, 7, 12])
TRAIN = SequenceDataset(np.arange(1, 13), OFFSETS, max_seq_length=3, windows="last")
QUERIES = RankingDataset(np.arange(1, 13), OFFSETS, np.arange(21, 25), "abcd", max_seq_length=3)


def test_pads_left_to_the_longest_of_the_batch():
    batch = SequenceCollator()([TRAIN[1], TRAIN[2]])
    assert batch["item_ids"].tolist() == [[0, 5], [6, 7]]
    assert batch["attention_mask"].tolist() == [[0, 1], [1, 1]]
    assert batch.keys() == {"item_ids", "attention_mask"}


def test_queries_bring_targets_and_seen_items():
    batch = SequenceCollator()([QUERIES[0], QUERIES[1]])
    assert batch["item_ids"].tolist() == [[2, 3, 4], [0, 0, 5]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]
    assert batch["target_ids"].tolist() == [21, 22]
    assert batch["seen_ids"].tolist() == [[1, 2, 3, 4], [5, 0, 0, 0]]
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}


@given(st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=6), min_size=1, max_size=5))
def test_equals_its_slow_twin(sequences):
    batch = SequenceCollator()([{"item_ids": sequence} for sequence in sequences])
    longest = max(map(len, sequences))
    for row, sequence in enumerate(sequences):
        gap = longest - len(sequence)
        assert batch["item_ids"][row].tolist() == [0] * gap + sequence
        assert batch["attention_mask"][row].tolist() == [0] * gap + [1] * len(sequence)


@pytest.mark.parametrize("dataset", [TRAIN, QUERIES], ids=["train", "queries"])
def test_worker_processes_give_the_same_batches(dataset):
    def batches(**settings):
        return list(DataLoader(dataset, batch_size=3, collate_fn=SequenceCollator(), **settings))

    alone, together = batches(), batches(num_workers=2)
    assert len(alone) == len(together) == 2
    for one, other in zip(alone, together, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_can_be_sent_to_workers_that_start_afresh():
    collate, dataset = pickle.loads(pickle.dumps((SequenceCollator(), QUERIES)))
    batch, expected = (
        collate([dataset[0], dataset[3]]),
        SequenceCollator()([QUERIES[0], QUERIES[3]]),
    )
    assert all(torch.equal(batch[key], expected[key]) for key in expected)


def test_examples_without_items():
    with pytest.raises(ValueError, match=r"no 'item_ids', only 'labels'; .*remove_unused_columns"):
        SequenceCollator()([{"labels": 1}])
    with pytest.raises(ValueError, match="no 'item_ids', only nothing"):
        SequenceCollator()([{}])


class Counting(torch.nn.Module):
    """Records the batches it receives."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.batches = []

    def forward(self, item_ids, attention_mask=None):
        self.batches.append((item_ids.clone(), attention_mask.clone()))
        return {"loss": self.weight**2, "logits": self.weight.expand(len(item_ids))}


@pytest.mark.parametrize("workers", [0, 2])
def test_trainer_passes_whole_batches_to_the_model(tmp_path, workers):
    pytest.importorskip("accelerate")
    from transformers import Trainer, TrainingArguments

    model = Counting()
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        per_device_train_batch_size=2,
        num_train_epochs=1,
        dataloader_num_workers=workers,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="no",
    )
    assert arguments.remove_unused_columns
    trainer = Trainer(
        model=model, args=arguments, train_dataset=TRAIN, data_collator=SequenceCollator()
    )
    trainer.train()
    seen = sorted(
        ids[mask.bool()].tolist()
        for batch in model.batches
        for ids, mask in zip(*batch, strict=True)
    )
    assert seen == [[1, 2, 3, 4], [5], [6, 7], [9, 10, 11, 12]]


def test_zeros_in_a_sequence_are_padding():
    batch = SequenceCollator()([{"item_ids": [4, 5, 0, 0]}, {"item_ids": [0, 0, 6]}])
    assert batch["item_ids"].tolist() == [[4, 5, 0, 0], [0, 0, 0, 6]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0, 0], [0, 0, 0, 1]]
