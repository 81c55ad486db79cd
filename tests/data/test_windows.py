"""Windows of whole histories: their coverage, their shift per epoch, and reproducibility."""

import itertools
import pickle
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, DistributedSampler

from odmt_sdk import Interactions, SequenceCollator, leave_one_out, time_split
from odmt_sdk.data.sequences import SequenceDataset


def dataset(lengths, length, **settings):
    """Create sequences of distinct rows, so that an item identifies its position."""
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    return SequenceDataset(
        np.arange(1, offsets[-1] + 1), offsets, max_seq_length=length, **settings
    )


def read(data):
    return [data[index]["item_ids"].tolist() for index in range(len(data))]


@given(
    lengths=st.lists(st.integers(0, 70), min_size=1, max_size=6),
    length=st.integers(1, 12),
    overlap=st.integers(1, 12),
    epoch=st.integers(0, 50),
    seed=st.integers(0, 2**40),
)
def test_every_event_is_covered_by_windows_of_the_promised_length(
    lengths, length, overlap, epoch, seed
):
    overlap = min(overlap, length)
    data = dataset(lengths, length, overlap=overlap, seed=seed)
    size = len(data)
    data.set_epoch(epoch)
    assert len(data) == size
    windows = read(data)
    predicted = Counter(row for window in windows for row in window[1:])
    start = 1
    for count in lengths:
        rows = range(start, start + count)
        start += count
        inside = [w for w in windows if w and w[0] in rows]
        assert all(w == list(range(w[0], w[0] + len(w))) and w[-1] in rows for w in inside)
        assert all(len(w) <= length + 1 for w in inside)
        assert all(len(w) >= 2 for w in inside if count >= 2)
        assert all(len(w) == length + 1 for w in inside[1:-1])  # only the ends are shorter
        assert sorted({row for w in inside for row in w}) == list(rows)
        for one, two in itertools.pairwise(inside):
            assert one[0] < two[0] or len(one) < length + 1
            assert one[-1] < two[-1]  # none is contained in its neighbour
            assert len(set(one) & set(two)) == overlap
        if overlap == 1:
            assert all(predicted[row] == 1 for row in rows[1:])
        assert all(predicted[row] >= 1 for row in rows[1:])


@pytest.mark.parametrize("count", range(22, 140, 7))
def test_windows_start_elsewhere_in_other_epochs(count):
    data = dataset([count], 20)
    seen = set()
    for epoch in range(40):
        data.set_epoch(epoch)
        seen.add(tuple(map(tuple, read(data))))
    assert len(seen) >= 8  # at least 10 offsets, and 40 draws cover most of them
    data.set_epoch(3)
    again = read(data)
    data.set_epoch(0)
    data.set_epoch(3)
    assert read(data) == again


def test_sequences_of_a_data_set_shift_apart_and_by_the_seed():
    data = dataset([95] * 30, 20)
    starts = {len(data[index]["item_ids"]) for index in range(0, len(data), len(data) // 30)}
    assert len(starts) > 5
    before = read(data)
    data.set_epoch(0, seed=1)
    assert read(data) != before
    data.set_epoch(0, seed=0)
    assert read(data) == before
    assert read(dataset([95] * 30, 20, seed=1)) != before


def test_few_more_windows_than_the_fewest():
    lengths = np.random.default_rng(0).integers(2, 400, 500)
    fewest = sum(-(-(count - 1) // 20) for count in lengths)
    assert fewest <= len(dataset(lengths, 20)) <= fewest + len(lengths)
    assert len(dataset([21] * 5, 20)) == 5  # a sequence that fits into one window is not cut


def test_short_sequences_stay_whole_in_every_epoch():
    data = dataset([5, 2, 4], 4)
    for epoch in range(3):
        data.set_epoch(epoch)
        assert read(data) == [[1, 2, 3, 4, 5], [6, 7], [8, 9, 10, 11]]


def test_the_latest_window_alone_by_name():
    data = dataset([9, 3], 4, windows="last")
    data.set_epoch(5)
    assert read(data) == [[5, 6, 7, 8, 9], [10, 11, 12]]


@pytest.mark.parametrize("copy", [lambda data: data, lambda data: pickle.loads(pickle.dumps(data))])
def test_workers_that_live_on_give_the_windows_of_the_epoch(copy):
    data = copy(dataset([50, 3, 80], 10))
    loader = DataLoader(
        data, 4, collate_fn=SequenceCollator(), num_workers=1, persistent_workers=True
    )
    for epoch in (0, 1, 2):
        data.set_epoch(epoch)
        batches = torch.cat([batch["item_ids"] for batch in loader])
        expected = SequenceCollator()([data[index] for index in range(len(data))])["item_ids"]
        assert torch.equal(batches, expected)


def test_memory_does_not_grow_with_windows():
    few, many = dataset([5000] * 20, 4000), dataset([5000] * 20, 2)
    assert len(many) > 1000 * len(few)
    assert abs(len(pickle.dumps(many)) - len(pickle.dumps(few))) < 100
    assert many[7]["item_ids"].untyped_storage().nbytes() == 3 * 8


def test_indices_behave_as_in_a_list():
    data = dataset([50, 3], 10)
    assert data[-1]["item_ids"].tolist() == [51, 52, 53]
    with pytest.raises(IndexError):
        data[len(data)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"windows": "first"}, "windows='first' must be one of"),
        ({"overlap": 0}, "overlap=0 must be a whole number in 1..4"),
        ({"overlap": 5}, "overlap=5 must be a whole number in 1..4, the max_seq_length"),
        ({"overlap": 2.0}, "overlap=2.0 must be a whole number"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        dataset([9], 4, **settings)


def test_splits_train_on_all_events_and_count_those():
    events = [(user, item, step) for user in range(3) for step, item in enumerate(range(user, 40))]
    users, items, times = zip(*events, strict=True)
    table = {"user_id": users, "item_id": items, "timestamp": times}
    interactions = Interactions.from_table(table)
    for split in (
        leave_one_out(interactions, max_seq_length=5),
        time_split(interactions, max_seq_length=5),
    ):
        rows, offsets = split.train.sequences()
        counts = np.bincount(rows, minlength=len(split.vocabulary) + 1)
        assert counts.tolist() == split.item_counts.tolist()
        predicted = [row for window in read(split.train) for row in window[1:]]
        assert len(predicted) == len(rows) - (len(offsets) - 1)
    for make in (leave_one_out, time_split):
        last = make(interactions, max_seq_length=5, windows="last").train
        assert len(last) == 3
        assert all(len(window) == 6 for window in read(last))
        twice = make(interactions, max_seq_length=5, overlap=3).train
        assert len(twice) > len(make(interactions, max_seq_length=5).train)


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_split_windows_evenly_and_read_the_same_epoch(ranks):
    data = [dataset([90, 3, 47, 20], 8) for _ in range(ranks)]  # each rank has its own dataset
    read_by = []
    for rank, own in enumerate(data):
        sampler = DistributedSampler(own, ranks, rank, seed=5)
        for epoch in (0, 3):
            own.set_epoch(epoch, seed=4)
            sampler.set_epoch(epoch)
            windows = [tuple(own[index]["item_ids"].tolist()) for index in sampler]
        read_by.append(windows)
    whole = dataset([90, 3, 47, 20], 8, seed=4)
    whole.set_epoch(3)
    assert {*itertools.chain(*read_by)} == {tuple(window) for window in read(whole)}
    assert len({len(windows) for windows in read_by}) == 1
