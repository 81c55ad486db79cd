"""The default batch size and warm-up."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import toy_model, toy_split
from transformers import TrainerCallback

from odmt_sdk import fit
from odmt_sdk.training.schedule import default_batch_size, default_warmup_steps


@given(st.integers(1, 10**8))
def test_batches_are_as_large_as_leaves_an_epoch_its_steps(sequences):
    size = default_batch_size(sequences)
    assert size in (16, 32, 64, 128)
    if size > 16:
        assert sequences / size >= 32
    if size < 128:
        assert sequences / (2 * size) < 32


@given(st.floats(0.1, 1e7))
def test_the_warm_up_is_an_epoch_and_never_long(steps):
    assert default_warmup_steps(steps) == min(200, math.ceil(steps))


class Rates(TrainerCallback):
    def __init__(self):
        self.batch_size, self.rates = 0, []

    def on_step_begin(self, args, state, control, lr_scheduler, **kwargs):
        self.batch_size = args.per_device_train_batch_size
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
