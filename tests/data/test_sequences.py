import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import Subset

from odmt_sdk.data.sequences import RankingDataset, SequenceDataset, check_same_rows
from odmt_sdk.vocabulary import ItemVocabulary

ROWS, OFFSETS = np.array([1, 2, 3, 4, 5, 6]), np.array([0, 4, 6])


def ranking(**changes):
    given = {"rows": ROWS, "offsets": OFFSETS, "targets": np.array([7, 8]), "user_ids": ["a", "b"]}
    return RankingDataset(**{**given, **changes}, max_seq_length=3)


def test_training_examples_are_the_latest_items():
    dataset = SequenceDataset(ROWS, OFFSETS, max_seq_length=2, windows="last")
    assert len(dataset) == 2
    assert [example["item_ids"].tolist() for example in dataset] == [[2, 3, 4], [5, 6]]
    assert dataset[0]["item_ids"].dtype == torch.int64


def test_queries_keep_what_was_seen():
    dataset = ranking()
    assert len(dataset) == 2
    assert dataset[0]["item_ids"].tolist() == [2, 3, 4]
    assert dataset[0]["seen_ids"].tolist() == [1, 2, 3, 4]
    assert dataset[0]["target_ids"] == 7
    assert dataset.targets.tolist() == [7, 8]
    assert dataset.targets.dtype == torch.int64
    assert dataset.user_ids == ("a", "b")


@pytest.mark.parametrize("dataset", [SequenceDataset(ROWS, OFFSETS), ranking()])
def test_indices_behave_as_in_a_list(dataset):
    assert dataset[-1]["item_ids"].tolist() == dataset[np.int64(1)]["item_ids"].tolist() == [5, 6]
    for index in (2, -3):
        with pytest.raises(IndexError):
            dataset[index]


def test_examples_do_not_share_memory_with_the_data_set():
    dataset = SequenceDataset(ROWS, OFFSETS)
    dataset[0]["item_ids"].zero_()
    assert dataset[0]["item_ids"].tolist() == [1, 2, 3, 4]
    assert ROWS.tolist() == [1, 2, 3, 4, 5, 6]


def test_an_example_travels_without_the_whole_data_set():
    many = SequenceDataset(np.arange(1, 100_001), np.arange(0, 100_001, 10))
    assert many[3]["item_ids"].untyped_storage().nbytes() == 10 * 8
    assert len(pickle.dumps(many[3])) < 2_000


def test_a_long_history_is_cut_before_it_is_an_example():
    one = SequenceDataset(np.arange(1, 100_001), np.array([0, 100_000]), max_seq_length=4)
    assert one[1]["item_ids"].untyped_storage().nbytes() == 5 * 8


@pytest.mark.parametrize("offsets", [[0, 4], [1, 6], [0, 5, 4, 6], [], [0, 7]])
def test_offsets_that_do_not_cut_up_the_rows(offsets):
    with pytest.raises(ValueError, match="offsets must increase from 0 to the number of rows, 6"):
        SequenceDataset(ROWS, np.array(offsets, dtype=np.int64))


@pytest.mark.parametrize("changes", [{"targets": np.array([7])}, {"user_ids": ["a"]}])
def test_queries_need_one_of_each(changes):
    with pytest.raises(ValueError, match=r"there are 2 histories, . targets and . users"):
        ranking(**changes)


def test_length_must_be_at_least_one():
    with pytest.raises(ValueError, match="max_seq_length=0 must be a whole number"):
        SequenceDataset(ROWS, OFFSETS, max_seq_length=0)


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ([0, 1, 2], ValueError, "rows hold 0, but rows of items lie in 1..N and 0 is padding"),
        ([-1, 1, 2], ValueError, "rows hold -1, .*number the items from 1"),
        ([1, 2, 2**32 + 1], ValueError, "rows hold 4294967297"),
        ([1.0, 1.7, 2.0], TypeError, "rows hold float64; they must be integers"),
        (["a", "b", "c"], TypeError, "rows hold <U1; they must be integers"),
        ([[1, 2], [3, 4], [5, 6]], ValueError, "rows have 2 dimensions instead of one"),
    ],
)
def test_rows_that_are_no_items(rows, error, message):
    with pytest.raises(error, match=message):
        SequenceDataset(np.array(rows), np.array([0, 3]))
    queries = np.array([1, 2]), np.array([0, 1, 1, 2])
    with pytest.raises(error, match=message.replace("rows h", "targets h")):
        RankingDataset(*queries, np.array(rows), "abc")


def test_settings_of_numpy_are_settings():
    dataset = SequenceDataset(ROWS, OFFSETS, max_seq_length=np.int64(3), overlap=np.int32(2))
    assert (dataset.max_seq_length, dataset.overlap) == (3, 2)


def test_rows_of_another_vocabulary_are_refused():
    ids = ["mug", "lamp", "hat", "cup", "pot", "pan"]
    datasets = (
        SequenceDataset(ROWS, OFFSETS, vocabulary=ItemVocabulary(ids)),
        RankingDataset(*(ROWS, OFFSETS, np.array([1, 2]), "ab"), vocabulary=ItemVocabulary(ids)),
    )
    for dataset in (*datasets, Subset(datasets[1], [0])):
        check_same_rows(dataset, ItemVocabulary(ids))
        check_same_rows(dataset, ItemVocabulary([*ids, "new"]))  # a catalogue that has grown
        check_same_rows(dataset, ItemVocabulary(range(1, 8)))  # rows, not items
        check_same_rows(dataset, None)
        with pytest.raises(ValueError, match="row 1 is 'mug' in the dataset and 'pan' in the mod"):
            check_same_rows(dataset, ItemVocabulary(ids[::-1]))
    numbers = SequenceDataset(ROWS, OFFSETS, vocabulary=ItemVocabulary([3, 1, 2, 4, 5, 6]))
    with pytest.raises(ValueError, match="row 1 is 3 in the dataset and 1 in the model"):
        check_same_rows(numbers, ItemVocabulary(range(1, 7)))
    check_same_rows(SequenceDataset(ROWS, OFFSETS), ItemVocabulary(ids))
