"""The training arguments that `fit` and `tune` use."""

import math
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from transformers import TrainingArguments

from odmt_sdk.config import whole_number
from odmt_sdk.data.splits import Split
from odmt_sdk.training.refusals import check_number
from odmt_sdk.training.schedule import (
    LARGEST_BATCH,
    LONGEST_WARMUP,
    default_batch_size,
    default_warmup_steps,
)
from odmt_sdk.training.trainer import metric_names


class FitArguments(NamedTuple):
    """The training settings of a run.

    Args:
        training: the arguments of the `Trainer`.
        patience: epochs without an improvement after which training stops.
    """

    training: TrainingArguments
    patience: int


def fit_arguments(
    split: Split,
    output_dir: Path,
    *,
    epochs: float | None,
    batch_size: int | None,
    learning_rate: float,
    warmup_steps: int | None,
    weight_decay: float,
    max_grad_norm: float,
    patience: int | None,
    metric: str,
    seed: int,
    training_arguments: dict[str, Any],
) -> FitArguments:
    """Choose the training arguments for a data set; see `odmt_sdk.fit` for the settings.

    Args:
        split: the data.
        output_dir: folder of the checkpoints.
        epochs: maximum number of epochs.
        batch_size: windows per step and device; histories per step of evaluation.
        learning_rate: learning rate of AdamW.
        warmup_steps: number of warm-up steps.
        weight_decay: weight decay of AdamW.
        max_grad_norm: maximum norm for gradient clipping.
        patience: epochs to wait for an improvement.
        metric: metric that selects the best epoch.
        seed: seed of the order of batches and of dropout.
        training_arguments: further `TrainingArguments`, which take precedence.

    Returns:
        The arguments, and the patience in epochs.

    Raises:
        ValueError: if an argument is given twice or out of range.
        TypeError: if a number is of another type.
    """
    _refuse_twice(training_arguments, epochs=epochs, batch_size=batch_size)
    if epochs is not None:
        check_number("epochs", epochs, above_zero=True, instead=", or None for 200")
    if batch_size is not None:
        batch_size = whole_number("batch_size", batch_size, instead=", or None for a default")
    for name, value in (
        ("learning_rate", learning_rate),
        ("weight_decay", weight_decay),
        ("max_grad_norm", max_grad_norm),
    ):
        check_number(name, value, instead="; 0 = no clipping" if "norm" in name else "")
    accumulated = training_arguments.get("gradient_accumulation_steps", 1)
    whole_number("gradient_accumulation_steps", accumulated)
    evaluation_batch = batch_size
    if batch_size is None:
        batch_size = default_batch_size(len(split.train), split.train.mean_predictions())
        evaluation_batch = LARGEST_BATCH
    settings: dict[str, Any] = {
        "num_train_epochs": 200 if epochs is None else epochs,
        "per_device_train_batch_size": batch_size,
        "per_device_eval_batch_size": evaluation_batch,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "max_grad_norm": max_grad_norm,
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": warmup_steps or 0,
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "logging_strategy": "epoch",
        "save_total_limit": 1,
        "load_best_model_at_end": True,
        "metric_for_best_model": f"eval_{metric}",
        "greater_is_better": True,
        "report_to": "none",
        "seed": seed,
        **training_arguments,
    }
    training = TrainingArguments(output_dir=str(output_dir), **settings)
    per_step = training.train_batch_size * training.world_size
    per_step *= training.gradient_accumulation_steps
    steps_per_epoch = max(1, math.ceil(len(split.train) / per_step))
    if patience is None:
        waited = LONGEST_WARMUP if warmup_steps is None else warmup_steps
        patience = max(5, math.ceil(2 * waited / steps_per_epoch))
    elif operator.index(patience) < 1:
        raise ValueError(f"patience={patience} must be at least 1 epoch, or None")
    if warmup_steps is None:
        training.warmup_steps = default_warmup_steps(steps_per_epoch)
    return FitArguments(training, patience)


def check_metric(metric: str, k: Sequence[int], sources: Sequence[str]) -> None:
    """Raise `ValueError` if the metric that selects the best epoch is not computed."""
    if metric not in metric_names(k, sources):
        raise ValueError(
            f"metric={metric!r} is not computed: choose hit_rate, recall, ndcg or mrr at one of "
            f"k={k}, for example 'ndcg@{k[0]}', or of one source of {list(sources)}, for "
            f"example '{sources[-1]}/ndcg@{k[0]}'"
        )


def _refuse_twice(training_arguments: dict[str, Any], **own: Any) -> None:
    """Raise if an argument of `fit` is also given by its name in `TrainingArguments`."""
    for theirs, ours in (
        ("num_train_epochs", "epochs"),
        ("per_device_train_batch_size", "batch_size"),
    ):
        if theirs in training_arguments and own[ours] is not None:
            raise ValueError(
                f"{theirs}={training_arguments[theirs]!r} and {ours}={own[ours]!r} are the same "
                f"setting: pass only {ours}"
            )
    for theirs, ours in (
        ("metric_for_best_model", "metric="),
        ("resume_from_checkpoint", "resume=True"),
    ):
        if theirs in training_arguments:
            raise ValueError(f"{theirs}= cannot be passed to fit: pass {ours}")
