"""Trains, evaluates and saves an adapter in one call."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from transformers import EarlyStoppingCallback, TrainerCallback

from odmt_sdk.baselines import ItemToItem, Popularity
from odmt_sdk.data.splits import Split
from odmt_sdk.evaluation.evaluate import evaluate
from odmt_sdk.evaluation.metrics import checked_cuts
from odmt_sdk.evaluation.table import metrics_table
from odmt_sdk.item_to_item import (
    MAX_DISTANCE,
    add_item_to_item,
    check_same_items,
    item_to_item_counts,
)
from odmt_sdk.paths import user_path
from odmt_sdk.saving.folder import check_target
from odmt_sdk.saving.item_ids import check_item_ids
from odmt_sdk.source_weights import choose_source_weights
from odmt_sdk.training.callbacks import StopWithoutProgress
from odmt_sdk.training.fit_arguments import check_metric, fit_arguments
from odmt_sdk.training.refusals import uncompiled
from odmt_sdk.training.trainer import ODMTTrainer
from odmt_sdk.wrapper import ODMTWrapper

MOST_SCORES = 300_000_000  # seconds of work, not minutes


@dataclass
class FitResult:
    """The result of `fit`.

    Args:
        validation: validation metrics of the best epoch, with item-to-item counts if the model got
            them.
        test: test metrics of the same model.
        history: the log of the trainer, with one training and one validation entry per epoch.
        best_epoch: number of epochs trained when the best validation result was measured; the
            model has the weights of that point.
        comparison: validation metrics by name: "this model", "popularity", and the "item-to-item
            counts" that `item_to_item=True` adds, alone. The last two are left out where they would
            take long.
    """

    validation: dict[str, float]
    test: dict[str, float]
    history: list[dict[str, float]]
    best_epoch: float
    comparison: dict[str, dict[str, float]] = field(default_factory=dict)


def fit(
    model: ODMTWrapper,
    split: Split,
    output_dir: str | Path,
    *,
    epochs: float | None = None,
    batch_size: int | None = None,
    learning_rate: float = 1e-3,
    backbone_learning_rate: float | None = None,
    encoder_learning_rate: float | None = None,
    warmup_steps: int | None = None,
    weight_decay: float = 0.1,
    max_grad_norm: float = 5.0,
    patience: int | None = None,
    finish_slowly: bool = True,
    metric: str = "ndcg@10",
    k: tuple[int, ...] = (5, 10, 20),
    exclude_seen: bool = True,
    weigh_sources: bool = True,
    item_to_item: bool = True,
    seed: int = 0,
    resume: bool = False,
    callbacks: Sequence[TrainerCallback] = (),
    compare: bool = True,
    **training_arguments: Any,
) -> FitResult:
    """Train a model with early stopping, evaluate its best epoch and save the adapter.

    The item popularity for the logQ correction is counted in the training set, unless
    `model.set_item_popularity` was called before. Invalid arguments raise before training starts.
    If the loss becomes NaN or infinite, training stops with an error, and the best adapter so far
    is saved. Use `ODMTTrainer` directly for more control.

    Every epoch prints one short line with the loss, the metric, the best value so far and the
    remaining time. At the end, a table compares the validation metrics, fused and of each source,
    with the counting baselines. Pass `log_level="error"` to print no lines and `disable_tqdm=True`
    to show no progress bar.

    Args:
        model: the model, with items and their features; or `torch.compile(model)` in a single
            process.
        split: from `leave_one_out` or `time_split`, with the vocabulary of the model.
        output_dir: folder for a checkpoint after every epoch and for the final adapter.
        epochs: maximum number of epochs, None = 200. With most data, `patience` stops training
            earlier.
        batch_size: training windows per step, and histories scored at once in evaluation, both per
            device; None = 128. In training, None is reduced to as little as 16 if an epoch would
            have fewer than 32 steps or a step more than 2,560 predictions.
        learning_rate: learning rate of AdamW; constant after the warm-up, see `finish_slowly`.
        backbone_learning_rate: a separate learning rate for the backbones, for example to fine-tune
            pretrained ones; None = `learning_rate`. Weight decay, optimizer and schedule are the
            same for all weights.
        encoder_learning_rate: the same for content encoders that are trained, see `TrainableText`.
        warmup_steps: number of steps over which the learning rate rises from 0; None = one epoch,
            but at most 200 steps. Post-norm transformers need a warm-up; without it they tend to
            plateau at the popularity baseline.
        weight_decay: weight decay of AdamW.
        max_grad_norm: maximum norm for gradient clipping.
        patience: number of epochs without an improvement of `metric` after which training finishes.
            None = 5 epochs, or more on small data, whose epochs are short: at least 400 steps, or
            2 * `warmup_steps` if given. On small data, models stay on a plateau at the popularity
            baseline for several epochs.
        finish_slowly: whether training goes on with a quarter of the learning rate then, until half
            as many epochs bring no improvement again. Large steps keep a model with many
            interactions per item away from its best weights. False = stop at once. Schedules of
            your own, `lr_scheduler_type="cosine"` for example, are not changed.
        metric: validation metric that selects the best epoch, such as "ndcg@10", or "text/ndcg@10"
            for a single source.
        k: cut-offs of the metrics; a cut-off above the number of items covers the whole catalogue.
        exclude_seen: whether to exclude items the user has already seen in evaluation, except the
            target.
        weigh_sources: whether to choose, after training, how much each source counts in the scores,
            by validation; see `choose_source_weights`. False = the weights of `model.config`.
        item_to_item: whether to count, after training, which items follow each other in the
            training sequences, and to add these counts to the scores with the weight that is best
            on validation; see `add_item_to_item`. A weight of 0 leaves them out.
        seed: seed of the order of batches and of dropout.
        resume: whether to continue from the last checkpoint of this run in `output_dir`, if there
            is one. A checkpoint with other data, another model or other settings raises an error,
            but `epochs` may differ. If False, training starts from scratch and ignores existing
            checkpoints.
        callbacks: additional callbacks of the trainer; `on_evaluate` also gets per-source metrics.
        compare: whether to compare the validation metrics at the end with popularity and
            item-to-item counts, and to print the table.
        **training_arguments: further `transformers.TrainingArguments`, for example `bf16=True`,
            `report_to="tensorboard"` or `disable_tqdm=True`.

    Returns:
        Metrics and history; `model` has the weights of the best epoch.

    Raises:
        ValueError: if the vocabularies of split and model differ, `metric` is not computed, an
            argument would have no effect or is given twice, `resume` finds another run, or the loss
            becomes NaN or infinite.
        TypeError: if the model is wrapped in `nn.DataParallel`, or a compiled model is trained in
            several processes.
        AdapterError: if an item id cannot be saved, or `output_dir` is a file, holds something else
            than an adapter, or is not writable.
        ImportError: if accelerate is not installed (`pip install odmt-sdk[train]`).

    Examples:
        >>> result = fit(model, split, "my-adapter", epochs=20)      # doctest: +SKIP
        >>> result.test["ndcg@10"]                                   # doctest: +SKIP
        0.21
    """
    compiled, model = model, uncompiled(model)
    check_same_items(model, split)
    k = checked_cuts(k)
    check_metric(metric, k, model.sources)
    output_dir = user_path(output_dir)
    check_item_ids(split.vocabulary.item_ids)
    check_target(output_dir)
    training, patience = fit_arguments(
        split,
        output_dir,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        warmup_steps=warmup_steps,
        weight_decay=weight_decay,
        max_grad_norm=max_grad_norm,
        patience=patience,
        metric=metric,
        seed=seed,
        training_arguments=training_arguments,
    )
    trainer = ODMTTrainer(
        model=compiled,
        args=training,
        train_dataset=split.train,
        eval_dataset=split.validation,
        callbacks=[StopWithoutProgress(patience, finish_slowly=finish_slowly), *callbacks],
        k=k,
        exclude_seen=exclude_seen,
        backbone_learning_rate=backbone_learning_rate,
        encoder_learning_rate=encoder_learning_rate,
        item_counts=split.item_counts,
    )
    if weigh_sources:  # epochs are compared with equal weights and without counts
        model.source_weights = None
    if item_to_item:
        model.item_to_item = None
    trainer.train(resume_from_checkpoint=resume and trainer.last_checkpoint() is not None)
    history = trainer.state.log_history
    evaluated = [entry for entry in history if f"eval_{metric}" in entry]
    if not evaluated:  # a callback stopped training before the first evaluation
        trainer.evaluate()
        evaluated = history[-1:]
    best = evaluated[-1]
    if training.load_best_model_at_end:
        best = max(evaluated, key=lambda entry: entry[f"eval_{metric}"])
    trainer.remove_callback(EarlyStoppingCallback)  # it would fail without a validation metric
    validation = _without_prefix(best, "eval_")
    ranking: dict[str, Any] = {"exclude_seen": exclude_seen, "batch_size": training.eval_batch_size}
    chosen_by = metric.rpartition("/")[2]
    shown = trainer.is_world_process_zero() and training.log_level not in ("error", "critical")
    if shown and (weigh_sources or item_to_item):
        print("choosing the weights of sources and counts on validation", flush=True)
    weighed = weigh_sources and choose_source_weights(model, split, metric=chosen_by, **ranking)
    counts = item_to_item_counts(split) if item_to_item else None
    counted = item_to_item and add_item_to_item(
        model, split, counts=counts, metric=chosen_by, **ranking
    )
    if counted or (weighed and len(set(weighed.values())) > 1):
        shared: dict[str, Any] = {"per_source": False, "progress": False, "distributed": True}
        validation |= evaluate(model, split.validation, k=k, **shared, **ranking)
    test = trainer.evaluate(split.test, metric_key_prefix="test")
    model.card.results["validation"] = validation
    model.card.training.update(
        {
            "sequences": str(len(split.train)),
            "interactions": str(int(split.item_counts.sum())),
            "best epoch": f"{best['epoch']:g}",
            "batch size": str(trainer._train_batch_size),
            "learning rate": f"{learning_rate:g}",
            "weights of sources": ", ".join(f"{n} {w:g}" for n, w in model.source_weights.items()),
            "item-to-item weight": f"{model.item_to_item_weight:.3g}",
        }
    )
    trainer.save_model()
    comparison = {}
    if compare and trainer.is_world_process_zero():
        comparison = _compared(validation, split, counts, k, exclude_seen)
        if shown:
            cut = metric.rpartition("@")[2]  # cut-off of the metric that selected the epoch
            table = metrics_table(comparison, metrics=[f"hit_rate@{cut}", f"ndcg@{cut}"])
            print(f"validation of epoch {best['epoch']:g}:\n{table}", flush=True)
    return FitResult(
        validation=validation,
        test=_without_prefix(test, "test_"),
        history=history,
        best_epoch=best["epoch"],
        comparison=comparison,
    )


def _compared(
    validation: dict[str, float],
    split: Split,
    counts: ItemToItem | None,
    k: tuple[int, ...],
    exclude_seen: bool,
) -> dict[str, dict[str, float]]:
    """Validation metrics of the model and of the baselines of counts, where these are quick."""
    found = {"this model": validation}
    longest = min(int(np.diff(split.train.sequences()[1]).max()), MAX_DISTANCE)
    if (
        len(split.validation) * len(split.vocabulary) <= MOST_SCORES
        and int(split.item_counts.sum()) * longest <= MOST_SCORES
    ):
        for name, baseline in (
            ("popularity", Popularity(split)),
            ("item-to-item counts", counts or item_to_item_counts(split)),
        ):
            found[name] = baseline.evaluate(split.validation, k=k, exclude_seen=exclude_seen)
    return found


def _without_prefix(metrics: dict[str, float], prefix: str) -> dict[str, float]:
    return {
        name.removeprefix(prefix): value
        for name, value in metrics.items()
        if name.startswith(prefix)
    }
