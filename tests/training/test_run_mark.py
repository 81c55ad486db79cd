"""Checkpoints record their run, and only this run resumes from them."""

import contextlib
import json
import shutil

import pytest
from toys import toy_model, toy_split
from transformers import TrainerCallback, TrainingArguments

from odmt_sdk import ODMTTrainer, fit
from odmt_sdk.training.run_mark import MARK, RunMark

QUIET = {"disable_tqdm": True, "use_cpu": True, "log_level": "error", "warmup_steps": 0}


class InterruptAt(TrainerCallback):
    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch_begin(self, args, state, control, **kwargs):
        if state.epoch >= self.epoch:
            raise KeyboardInterrupt


class Begun(TrainerCallback):
    """Records the step at which training started."""

    def on_train_begin(self, args, state, control, **kwargs):
        self.step = state.global_step


def run(path, split, *, model=None, stop=None, resume=False, **settings):
    begun = Begun()
    callbacks = [begun] if stop is None else [begun, InterruptAt(stop)]
    settings = {"epochs": 3, "batch_size": 8, "patience": 99, **settings}
    with contextlib.suppress(KeyboardInterrupt):
        fit(
            model or toy_model(), split, path, resume=resume, callbacks=callbacks, k=(5,),
            metric="ndcg@5", **settings, **QUIET,
        )  # fmt: skip
    return begun.step


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An output folder with the checkpoint of a finished run."""
    path = tmp_path_factory.mktemp("finished")
    run(path, toy_split())
    return path


def copy_of(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"split": toy_split(num_users=39)}, "other training data"),
        ({"learning_rate": 3e-3}, "learning_rate 0.001, here 0.003"),
        ({"batch_size": 4}, "per_device_train_batch_size 8, here 4"),
        ({"seed": 1}, "seed 0, here 1"),
        ({"backbone_learning_rate": 1e-4}, "backbone_learning_rate None, here 0.0001"),
        ({"model": "one layer"}, "other shapes of the model's weights"),
        ({"model": "weight"}, "distillation_weight 0.2, here 0"),
    ],
)
def test_another_run_is_not_resumed(finished, other, message, tmp_path):
    folder = copy_of(finished, tmp_path)
    models = {"one layer": toy_model(num_layers=1), "weight": toy_model(distillation_weight=0.0)}
    other = {"split": toy_split(), **other, "model": models.get(other.get("model"))}
    split = other.pop("split")
    with pytest.raises(
        ValueError, match=f"checkpoint-.*belongs to another run.*{message}"
    ) as error:
        run(folder, split, resume=True, **other)
    assert "start again without resuming" in str(error.value)


def test_a_longer_run_is_the_same_run(finished, tmp_path):
    assert run(copy_of(finished, tmp_path), toy_split(), resume=True, epochs=5) == 15


def test_old_checkpoints_are_not_those_of_a_new_run(finished, tmp_path):
    """A new, interrupted run with the same data and settings does not use old checkpoints."""
    for stop, begins_at in ((1, 5), (0, 0)):
        folder = copy_of(finished, tmp_path / str(stop))
        assert run(folder, toy_split(), stop=stop) == 0
        assert run(folder, toy_split(), resume=True) == begins_at


def test_interrupted_twice(tmp_path):
    split = toy_split()
    assert run(tmp_path, split, stop=1) == 0
    assert run(tmp_path, split, stop=2, resume=True) == 5
    assert run(tmp_path, split, resume=True) == 10


def test_checkpoints_without_a_mark(finished, tmp_path):
    folder = copy_of(finished, tmp_path)
    for mark in folder.rglob(MARK):
        mark.unlink()
    with pytest.raises(ValueError, match="does not record which run it belongs to"):
        run(folder, toy_split(), resume=True)


@pytest.mark.parametrize("content", ["", "[1]", '{"run": 1, "about": {}}', "[" * 10_000, "\x00"])
def test_damaged_marks_count_as_none(content, tmp_path):
    (tmp_path / MARK).write_text(content)
    assert RunMark.read(tmp_path) is None


def test_the_trainer_resumes_its_own_run_only(finished, tmp_path):
    folder = copy_of(finished, tmp_path)
    args = TrainingArguments(str(folder), report_to="none", **QUIET)
    split = toy_split()
    training = ODMTTrainer(toy_model(), args, train_dataset=split.train)
    with pytest.raises(ValueError, match="belongs to another run"):
        training.train(resume_from_checkpoint=True)
    empty = TrainingArguments(str(tmp_path / "empty"), report_to="none", **QUIET)
    with pytest.raises(ValueError, match="has no checkpoint of this run to resume from"):
        ODMTTrainer(toy_model(), empty, train_dataset=split.train).train(True)


def test_a_mark_is_plain_json(finished):
    (checkpoint,) = finished.glob("checkpoint-*")
    marks = [json.loads((folder / MARK).read_text()) for folder in (finished, checkpoint)]
    assert marks[0] == marks[1]
    assert set(marks[0]) == {"run", "about"}
