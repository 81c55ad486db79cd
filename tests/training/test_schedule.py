"""The default batch size and warm-up."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import toy_model, toy_split
from transformers import TrainerCallback

from odmt_sdk import fit
from odmt_sdk.data import SequenceDataset
from odmt_sdk.training.schedule import default_batch_size, default_warmup_steps


@given(st.integers(1, 10**8), st.floats(0, 1000))
def test_batches_are_as_large_as_short_epochs_and_long_sequences_allow(sequences, length):
    size = default_batch_size(sequences, length)
    assert size in (16, 32, 64, 128)
    if size > 16:
        assert sequences / size >= 32
        assert size * length <= 2560
    if size < 128:
        assert sequences / (2 * size) < 32 or 2 * size * length > 2560


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=20),
    st.integers(1, 12),
    st.sampled_from(["all", "last"]),
)
def test_predictions_per_window_are_counted(lengths, longest, windows):
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    data = SequenceDataset(
        np.ones(offsets[-1], dtype=int), offsets, max_seq_length=longest, windows=windows
    )
    predicted = sum(max(len(data[index]["item_ids"]) - 1, 0) for index in range(len(data)))
    assert data.mean_predictions() == pytest.approx(predicted / len(data))


def test_histories_are_evaluated_in_larger_batches_than_trained_on(tmp_path):
    rates = Rates()
    fit(
        toy_model(), toy_split(), tmp_path, epochs=1, k=(5,), metric="ndcg@5", callbacks=[rates],
        disable_tqdm=True,
    )  # fmt: skip
    assert (rates.batch_size, rates.evaluated) == (16, 128)


@given(st.floats(0.1, 1e7))
def test_the_warm_up_is_an_epoch_and_never_long(steps):
    assert default_warmup_steps(steps) == min(200, math.ceil(steps))


class Rates(TrainerCallback):
    def __init__(self):
        self.batch_size, self.evaluated, self.rates = 0, 0, []

    def on_step_begin(self, args, state, control, lr_scheduler, **kwargs):
        self.batch_size = args.per_device_train_batch_size
        self.evaluated = args.per_device_eval_batch_size
        self.rates.append(lr_scheduler.get_last_lr()[0])


@pytest.mark.parametrize(
    ("settings", "batch_size", "rising"),
    [({}, 16, 3), ({"warmup_steps": 0}, 16, 0), ({"warmup_steps": 2, "batch_size": 8}, 8, 2)],
)
def test_fit_takes_them_where_none_are_given(settings, batch_size, rising, tmp_path):
    rates = Rates()
    fit(
        toy_model(), toy_split(), tmp_path, epochs=2, learning_rate=0.01, k=(5,), metric="ndcg@5",
        callbacks=[rates], disable_tqdm=True, **settings,
    )  # fmt: skip
    assert rates.batch_size == batch_size
    assert rates.rates[: rising + 1] == pytest.approx(
        [0.01 * step / rising for step in range(rising)] + [0.01] if rising else [0.01]
    )
