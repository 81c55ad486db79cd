"""Rejects models that cannot be trained, and arguments of `transformers.Trainer` without effect."""

import math
from collections.abc import Mapping
from typing import Any, SupportsFloat

from torch import nn
from transformers import TrainingArguments

from odmt_sdk.evaluation.evaluate import refuse_parallel

# The Trainer's own evaluation loop is not used, because no logits of the catalogue are computed.
_RANKED = (
    "evaluation ranks the whole catalogue and has no predictions for it. `evaluate` returns all "
    "metrics, `rank_targets` the rank of every target; leave it out"
)

# argument -> values that are accepted, and why others are rejected
_ARGUMENTS: dict[str, tuple[tuple[Any, ...], str]] = {
    "label_smoothing_factor": (
        (None, 0),
        "the model computes its own loss over the items of the batch. For softer targets, set "
        "ODMTConfig(distillation_weight=...)",
    ),
    "neftune_noise_alpha": (
        (None, 0),
        "it adds noise to a table of word embeddings. Set ODMTConfig(dropout=..., id_dropout=...)",
    ),
    "use_liger_kernel": (
        (None, False),
        "it patches language models of transformers. Patch the backbone before wrapping it",
    ),
    "use_cache": ((None, False), "training has no cache of keys and values; leave it out"),
    "bf16_full_eval": ((None, False), "evaluation scores in the type of the weights; leave it out"),
    "fp16_full_eval": ((None, False), "evaluation scores in the type of the weights; leave it out"),
    "label_names": ((None, []), "the labels are the next items of the sequences; leave it out"),
    "include_for_metrics": ((None, []), _RANKED),
    "batch_eval_metrics": ((None, False), _RANKED),
    "prediction_loss_only": ((None, False), _RANKED),
    "eval_accumulation_steps": ((None,), _RANKED),
    "eval_use_gather_object": ((None, False), _RANKED),
    "eval_do_concat_batches": ((None, True), _RANKED),
    "length_column_name": (
        (None, "length"),
        "group_by_length takes the lengths of the sequences themselves; leave it out",
    ),
}
_STRATEGIES = ("random", "sequential", "group_by_length")

_TRAINER: dict[str, str] = {
    "compute_metrics": (
        "evaluation ranks the whole catalogue and has no predictions for it. For metrics of your "
        "own override ODMTTrainer.evaluate, or take the ranks of `rank_targets`"
    ),
    "preprocess_logits_for_metrics": _RANKED,
    "compute_loss_func": (
        "the model computes its own loss. For another one override ODMTTrainer.compute_loss"
    ),
    "processing_class": "item ids need no tokenizer, and none is saved with an adapter",
}


def check_arguments(args: TrainingArguments, trainer_arguments: Mapping[str, Any]) -> None:
    """Raise for arguments that would silently have no effect.

    Args:
        args: the training arguments.
        trainer_arguments: keyword arguments of the Trainer.

    Raises:
        ValueError: if there is such an argument; the message names an alternative.
    """
    for name, reason in _TRAINER.items():
        if trainer_arguments.get(name) is not None:
            raise ValueError(f"{name}= does nothing in ODMT training: {reason}")
    for name, (harmless, reason) in _ARGUMENTS.items():
        value = getattr(args, name, None)
        if value not in harmless:
            raise ValueError(f"{name}={value!r} does nothing in ODMT training: {reason}")
    strategy = str(getattr(args, "train_sampling_strategy", "random")).lower().rsplit(".", 1)[-1]
    if strategy not in _STRATEGIES:
        raise ValueError(
            f"train_sampling_strategy={strategy!r} does nothing in ODMT training: choose one of "
            f"{_STRATEGIES}"
        )
    metric = args.metric_for_best_model
    if args.greater_is_better is False and metric is not None and not metric.endswith("loss"):
        raise ValueError(
            "greater_is_better=False would keep the worst epoch, because higher is better for "
            "every ranking metric: leave it out"
        )


def check_number(name: str, value: Any, *, above_zero: bool = False, instead: str = "") -> None:
    """Raise unless a setting is a finite number of at least 0.

    Args:
        name: name of the setting in messages.
        value: its value.
        above_zero: whether it must be greater than 0.
        instead: what else is allowed, as text for the message.

    Raises:
        TypeError: if it is not a number.
        ValueError: if it is negative, NaN or infinite, or 0 where that is not allowed.
    """
    rule = ("greater than 0" if above_zero else "at least 0") + instead
    number = isinstance(value, SupportsFloat) and not isinstance(value, str | bytes | bool)
    if not number:
        raise TypeError(f"{name}={value!r} must be a number {rule}")
    plain = float(value)
    if not math.isfinite(plain) or plain < 0 or (above_zero and plain == 0):
        raise ValueError(f"{name}={value} must be a finite number {rule}")


def uncompiled(model: Any) -> Any:
    """Return the model itself in place of the wrapper that `torch.compile` puts around it.

    Args:
        model: the model to train.

    Returns:
        The model without that wrapper.

    Raises:
        TypeError: if the model is in a wrapper that passes on only `forward`; the message says what
            to pass instead.
    """
    refuse_parallel(model)
    inside = getattr(model, "_orig_mod", None) if isinstance(model, nn.Module) else None
    return inside if isinstance(inside, nn.Module) else model


def check_encoder_rate(rate: float | None, model: Any) -> None:
    """Raise if there is a learning rate for content encoders, but none to train.

    Args:
        rate: the learning rate, if there is one.
        model: the model.

    Raises:
        ValueError: if there are none.
    """
    if rate is not None and not len(getattr(model, "encoders", ())):
        raise ValueError(
            f"encoder_learning_rate={rate:g} is for trained content encoders, but the model has "
            "none: leave it out, or create the model with encoders="
        )
