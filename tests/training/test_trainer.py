"""Training with transformers.Trainer."""

import math
import os
import signal
import time

import pytest
import torch
from toys import MyModel, toy_features, toy_model, toy_split
from transformers import Trainer, TrainerCallback, TrainingArguments

from odmt_sdk import ODMTConfig, ODMTTrainer, ODMTWrapper, SequenceCollator, fit
from odmt_sdk.losses.distillation import warmup_weight


def arguments(path, **settings):
    return TrainingArguments(
        output_dir=str(path),
        **{
            "per_device_train_batch_size": 8,
            "num_train_epochs": 2,
            "learning_rate": 1e-2,
            "report_to": "none",
            "disable_tqdm": True,
            "use_cpu": True,
            "logging_strategy": "epoch",
            **settings,
        },
    )


def trainer(path, split, model=None, **settings):
    return ODMTTrainer(
        model=model or toy_model(dropout=0.0),
        args=arguments(path, **settings),
        train_dataset=split.train,
        eval_dataset=split.validation,
        k=(1, 5),
    )


def test_the_plain_trainer_does_not_empty_the_batch(tmp_path):
    model, split = toy_model(), toy_split()
    before = model.item_encoder.id_embedding.weight.detach().clone()
    Trainer(
        model=model,
        args=arguments(tmp_path, max_steps=3),
        train_dataset=split.train,
        data_collator=SequenceCollator(),
    ).train()
    assert not torch.equal(before, model.item_encoder.id_embedding.weight)


def test_it_learns_and_evaluates(tmp_path):
    split = toy_split()
    training = trainer(tmp_path, split, num_train_epochs=15, eval_strategy="epoch")
    before = training.evaluate()
    training.train()
    after = training.evaluate()
    assert after["eval_hit_rate@1"] > 0.8 > before["eval_hit_rate@1"]
    assert {f"eval_{s}/ndcg@5" for s in ("id", "text", "image")} < set(after)
    assert [e["epoch"] for e in training.state.log_history if "eval_ndcg@5" in e][:2] == [1, 2]


def test_the_model_is_told_the_epoch(tmp_path):
    model = toy_model(distillation_weight=0.5, distillation_warmup_epochs=4)
    split = toy_split()
    training = trainer(tmp_path, split, model, num_train_epochs=3, logging_strategy="steps")
    training.args.logging_steps = 1
    training.train()
    steps = len(split.train) // 8
    for step, entry in enumerate(e for e in training.state.log_history if "loss" in e):
        expected = warmup_weight(step / steps, weight=0.5, warmup_epochs=4)
        assert entry["distillation_weight"] == pytest.approx(expected, rel=1e-5)
        parts = [v for n, v in entry.items() if n.startswith("cross_entropy/")]
        distilled = [v for n, v in entry.items() if n.startswith("distillation/")]
        total = sum(parts) + entry["distillation_weight"] * sum(distilled)
        assert entry["loss"] == pytest.approx(total, rel=1e-3)


def test_checkpoints_are_adapters(tmp_path):
    split = toy_split()
    training = trainer(tmp_path, split, save_strategy="epoch", num_train_epochs=1)
    training.train()
    (checkpoint,) = tmp_path.glob("checkpoint-*")
    loaded = ODMTWrapper.from_pretrained(checkpoint, backbone=MyModel())
    histories = [["item-1", "item-2"]]
    assert loaded.recommend(histories, k=3) == training.model.eval().recommend(histories, k=3)
    assert not list(tmp_path.rglob("training_args.bin"))


def check_same_weights(model, other):
    for (name, a), b in zip(model.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


class StopAt(TrainerCallback):
    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.epoch >= self.epoch


def test_resuming_is_the_same_as_never_stopping(tmp_path):
    split = toy_split()

    def start(name, callbacks=()):
        torch.manual_seed(1)
        training = trainer(
            tmp_path / name, split, num_train_epochs=4, save_strategy="epoch", eval_strategy="epoch"
        )
        for callback in callbacks:
            training.add_callback(callback)
        return training

    whole = start("whole")
    whole.train()
    start("resumed", [StopAt(2)]).train()
    resumed = start("resumed")
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == whole.state.global_step
    check_same_weights(whole.model, resumed.model)


class Windows(TrainerCallback):
    """Records the training data at the first step of each epoch."""

    def __init__(self, data):
        self.data, self.seen = data, []

    def on_step_begin(self, args, state, control, **kwargs):
        if float(state.epoch).is_integer():
            self.seen.append([row["item_ids"].tolist() for row in self.data])


@pytest.mark.parametrize("workers", [0, 1])
def test_every_epoch_has_windows_of_its_own_and_a_seed_repeats_them(tmp_path, workers):
    def seen(**settings):
        split = toy_split(num_users=8, max_seq_length=2)
        training = trainer(tmp_path, split, num_train_epochs=3, **settings)
        windows = Windows(split.train)
        training.add_callback(windows)
        training.train()
        return windows.seen

    first = seen(seed=1)
    assert len(first) == 3
    assert first[0] != first[1] != first[2] != first[0]
    settings = {"dataloader_num_workers": workers, "dataloader_persistent_workers": workers > 0}
    assert seen(seed=1, **settings) == first
    assert seen(seed=2) != first
    assert seen(seed=1, data_seed=2) == seen(seed=2)


@pytest.mark.parametrize("max_seq_length", [2, 6])
def test_resuming_in_the_middle_of_an_epoch_goes_on_to_the_bit(tmp_path, max_seq_length):
    def start(name):
        torch.manual_seed(1)
        split = toy_split(max_seq_length=max_seq_length)
        return trainer(tmp_path / name, split, save_strategy="steps", save_steps=3, max_steps=14)

    whole = start("whole")
    whole.train()
    steps = 40 * (3 if max_seq_length == 2 else 1) / 8
    assert whole.state.epoch == pytest.approx(14 / steps)
    resumed = start("resumed")
    resumed.add_callback(StopAtStep(7))
    resumed.train()
    resumed = start("resumed")
    resumed.train(resume_from_checkpoint=True)
    check_same_weights(whole.model, resumed.model)


class StopAtStep(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step >= self.step


class Preempted(TrainerCallback):
    """Sends the signal that a cluster sends before preempting a machine."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.3)  # a thread handles the request


def test_preemption_saves_and_training_continues_to_the_bit(tmp_path):
    split = toy_split()

    def start(name):
        torch.manual_seed(1)
        return trainer(
            tmp_path / name, split, toy_model(), num_train_epochs=3, save_strategy="no",
            lr_scheduler_type="cosine", enable_jit_checkpoint=True,
        )  # fmt: skip

    whole = start("whole")
    whole.train()
    interrupted = start("resumed")
    for callback in interrupted.callback_handler.callbacks:
        if hasattr(callback, "jit_manager"):
            callback.jit_manager.kill_wait = 0.05
    interrupted.add_callback(Preempted(step=7))  # in the middle of the second epoch
    interrupted.train()
    assert interrupted.state.global_step < whole.state.global_step
    resumed = start("resumed")
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == whole.state.global_step
    check_same_weights(whole.model, resumed.model)


def test_several_evaluation_sets(tmp_path):
    split = toy_split()
    metrics = trainer(tmp_path, split).evaluate({"a": split.validation, "b": split.test})
    assert {"eval_a_ndcg@5", "eval_b_ndcg@5"} < set(metrics)
    training = ODMTTrainer(model=toy_model(), args=arguments(tmp_path), train_dataset=split.train)
    with pytest.raises(ValueError, match="no eval_dataset: pass one here or to ODMTTrainer"):
        training.evaluate()


class TestFit:
    def test_from_a_split_to_an_adapter(self, tmp_path):
        model, split = toy_model(dropout=0.0), toy_split()
        result = fit(
            model, split, tmp_path / "out", epochs=12, batch_size=8, learning_rate=1e-2,
            warmup_steps=0, k=(1, 5), metric="ndcg@5", disable_tqdm=True,
        )  # fmt: skip
        assert result.test["hit_rate@1"] > 0.8
        best = max(e["eval_ndcg@5"] for e in result.history if "eval_ndcg@5" in e)
        assert result.validation["ndcg@5"] == best
        loaded = ODMTWrapper.from_pretrained(tmp_path / "out", backbone=MyModel())
        histories = [["item-1", "item-2"]]
        assert loaded.recommend(histories, k=3) == model.eval().recommend(histories, k=3)
        counted = (split.item_counts[1:] / split.item_counts[1:].sum()).log()
        torch.testing.assert_close(model.item_log_probability[1:], counted.float())

    def test_the_best_epoch_is_kept_and_training_stops_early(self, tmp_path):
        split = toy_split()
        result = fit(
            toy_model(), split, tmp_path, epochs=50, batch_size=8, learning_rate=0.3,
            warmup_steps=0, patience=2, k=(1, 5), metric="hit_rate@1", disable_tqdm=True,
            finish_slowly=False,
        )  # fmt: skip
        scores = [e["eval_hit_rate@1"] for e in result.history if "eval_hit_rate@1" in e]
        assert len(scores) < 50
        assert scores.index(max(scores)) == len(scores) - 3
        assert result.best_epoch == len(scores) - 2

    @pytest.mark.parametrize(("warmup_steps", "epochs"), [(0, 6), (9, 7)])
    def test_by_default_it_waits_five_epochs_or_twice_the_warmup(
        self, warmup_steps, epochs, tmp_path
    ):
        split = toy_split()  # 3 steps per epoch
        result = fit(
            toy_model(), split, tmp_path, epochs=50, learning_rate=0.0, k=(5,), metric="ndcg@5",
            warmup_steps=warmup_steps, batch_size=math.ceil(len(split.train) / 3),
            finish_slowly=False, disable_tqdm=True,
        )  # fmt: skip
        assert sum("eval_ndcg@5" in entry for entry in result.history) == epochs

    def test_resume(self, tmp_path):
        split = toy_split()

        def run(epochs, resume):
            return fit(
                toy_model(), split, tmp_path, epochs=epochs, batch_size=8, k=(5,),
                metric="ndcg@5", resume=resume, disable_tqdm=True,
            )  # fmt: skip

        run(2, resume=True)  # no checkpoint yet
        history = run(4, resume=True).history
        assert [e["epoch"] for e in history if "eval_ndcg@5" in e] == [1, 2, 3, 4]

    def test_training_that_ends_before_the_first_evaluation(self, tmp_path):
        result = fit(
            toy_model(), toy_split(), tmp_path, batch_size=8, k=(5,), metric="ndcg@5",
            max_steps=1, eval_strategy="steps", eval_steps=9, save_strategy="no",
            load_best_model_at_end=False, disable_tqdm=True,
        )  # fmt: skip
        assert set(result.validation) >= {"ndcg@5", "hit_rate@5"}

    def test_errors(self, tmp_path):
        split = toy_split()
        other = ODMTWrapper(MyModel(), toy_features(), ODMTConfig())
        with pytest.raises(ValueError, match="the 12 items of the model and the 12 items of the s"):
            fit(other, split, tmp_path)
        for metric in ("ndcg@7", "auc@10", "ndcg"):
            with pytest.raises(ValueError, match=f"metric='{metric}' is not computed"):
                fit(toy_model(), split, tmp_path, metric=metric)


def test_the_loss_of_a_batch_is_finite_under_autocast():
    model = toy_model()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(torch.tensor([[1, 2, 3], [4, 5, 6]])).loss
    loss.backward()
    assert math.isfinite(loss.item())
