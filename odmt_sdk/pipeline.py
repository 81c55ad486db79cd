"""From a split to a trained, evaluated and saved adapter in one call."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import EarlyStoppingCallback, TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from odmt_sdk.data.splits import Split
from odmt_sdk.training.lazy_adamw import LazyAdamW
from odmt_sdk.training.trainer import ODMTTrainer
from odmt_sdk.wrapper import ODMTWrapper


@dataclass
class FitResult:
    """What `fit` found.

    Args:
        validation: metrics of the best epoch on the validation targets.
        test: metrics of that epoch's weights on the test targets.
        history: the trainer's log, one entry per epoch of training and of validation.
        best_epoch: the epoch whose weights the model has now.
    """

    validation: dict[str, float]
    test: dict[str, float]
    history: list[dict[str, float]]
    best_epoch: float


def fit(
    model: ODMTWrapper,
    split: Split,
    output_dir: str | Path,
    *,
    epochs: float = 200,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    backbone_learning_rate: float | None = None,
    warmup_steps: int = 200,
    weight_decay: float = 0.1,
    max_grad_norm: float = 5.0,
    patience: int | None = None,
    metric: str = "ndcg@10",
    k: tuple[int, ...] = (5, 10, 20),
    seed: int = 0,
    resume: bool = False,
    callbacks: Sequence[TrainerCallback] = (),
    **training_arguments: Any,
) -> FitResult:
    """Train a model, keep its best epoch by validation, test once and save the adapter.

    The popularity for the logQ correction is counted in the training part. For anything this does
    not cover, use `ODMTTrainer` directly: this function is a dozen lines around it.

    Args:
        model: has items, and their features.
        split: from `leave_one_out`, with the model's vocabulary.
        output_dir: gets a checkpoint after every epoch, and in the end the adapter.
        epochs: at most so many; `patience` ends training sooner on most data.
        batch_size: sequences per step and device, and histories scored at once.
        learning_rate: of AdamW, constant after the warm-up.
        backbone_learning_rate: another one for the backbones, such as pretrained ones.
        warmup_steps: steps over which the learning rate rises from 0. Post-norm transformers need
            it: without it they tend to stay at recommending what is popular.
        weight_decay: of AdamW.
        max_grad_norm: gradients are clipped to this norm.
        patience: stop when `metric` has not risen for so many epochs; None = 5, and at least twice
            `warmup_steps` steps: on small data, whose epochs are short, models rest at
            recommending what is popular for long before they go on.
        metric: the validation metric that decides.
        k: cut-offs of the metrics.
        seed: of the order of the batches and of dropout.
        resume: continue from the last checkpoint in `output_dir`, if there is one.
        callbacks: more callbacks of the trainer; `on_evaluate` also gets the metrics per source.
        **training_arguments: any other of `transformers.TrainingArguments`, for example
            `bf16=True`, `report_to="tensorboard"`, `disable_tqdm=True`.

    Returns:
        Metrics and history; `model` has the weights of the best epoch.

    Raises:
        ValueError: if split and model have different vocabularies, or `metric` is not computed.
        ImportError: if accelerate is not installed (`pip install odmt-sdk[train]`).

    Examples:
        >>> result = fit(model, split, "my-adapter", epochs=20)      # doctest: +SKIP
        >>> result.test["ndcg@10"]                                   # doctest: +SKIP
        0.21
    """
    if model.vocabulary != split.vocabulary:
        raise ValueError(
            f"the model knows {model.num_items} items, the split {len(split.vocabulary)}, or in "
            "another order: split with leave_one_out(..., vocabulary=model.vocabulary)"
        )
    name, _, cut = metric.partition("@")
    if name not in ("hit_rate", "recall", "ndcg", "mrr") or cut not in map(str, k):
        raise ValueError(
            f"metric={metric!r} is not computed: choose hit_rate, recall, ndcg or mrr at one of "
            f"k={k}, for example 'ndcg@{k[0]}'"
        )
    model.set_item_popularity(split.item_counts)
    settings: dict[str, Any] = {
        "num_train_epochs": epochs,
        "per_device_train_batch_size": batch_size,
        "per_device_eval_batch_size": batch_size,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "max_grad_norm": max_grad_norm,
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": warmup_steps,
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
    optimizer = None
    if backbone_learning_rate is not None:
        groups = model.parameter_groups(
            learning_rate=learning_rate, backbone_learning_rate=backbone_learning_rate
        )
        optimizer = LazyAdamW(groups, weight_decay=weight_decay)
    training = TrainingArguments(output_dir=str(output_dir), **settings)
    if patience is None:
        per_step = training.train_batch_size * training.world_size
        per_step *= training.gradient_accumulation_steps
        steps_per_epoch = max(1, math.ceil(len(split.train) / per_step))
        patience = max(5, math.ceil(2 * warmup_steps / steps_per_epoch))
    trainer = ODMTTrainer(
        model=model,
        args=training,
        train_dataset=split.train,
        eval_dataset=split.validation,
        callbacks=[EarlyStoppingCallback(early_stopping_patience=patience), *callbacks],
        optimizers=(optimizer, None),
        k=k,
    )
    resumable = resume and Path(output_dir).is_dir() and get_last_checkpoint(str(output_dir))
    trainer.train(resume_from_checkpoint=resumable or None)
    history = trainer.state.log_history
    if not any(f"eval_{metric}" in entry for entry in history):
        trainer.evaluate()  # training was ended before it came to that
    best = max(
        (entry for entry in history if f"eval_{metric}" in entry),
        key=lambda entry: entry[f"eval_{metric}"],
    )
    trainer.remove_callback(EarlyStoppingCallback)  # it would look for a validation metric
    test = trainer.evaluate(split.test, metric_key_prefix="test")
    validation = _without_prefix(best, "eval_")
    model.card.results["validation"] = validation
    model.card.training.update(
        {
            "sequences": str(len(split.train)),
            "interactions": str(int(split.item_counts.sum())),
            "best epoch": f"{best['epoch']:g}",
            "batch size": str(batch_size),
            "learning rate": f"{learning_rate:g}",
        }
    )
    trainer.save_model()
    return FitResult(
        validation=validation,
        test=_without_prefix(test, "test_"),
        history=history,
        best_epoch=best["epoch"],
    )


def _without_prefix(metrics: dict[str, float], prefix: str) -> dict[str, float]:
    return {
        name.removeprefix(prefix): value
        for name, value in metrics.items()
        if name.startswith(prefix)
    }
