"""Trainer callbacks: early stopping and progress output."""

import math
import time
from typing import Any

from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_callback import ProgressCallback, TrainerControl, TrainerState
from typing_extensions import override

from odmt_sdk.terminal import shows_bars

FINISHING_SHARE = 0.25  # of the learning rate, when full steps bring no progress any more
_SILENT = ("error", "critical")


class StopWithoutProgress(TrainerCallback):
    """Stops training when `metric_for_best_model` has not improved for a number of epochs.

    Before that, training goes on with a lower learning rate, until half as many epochs have passed
    without an improvement. (The scheduler `reduce_lr_on_plateau` of transformers has no warm-up.)
    In contrast to `EarlyStoppingCallback`, the patience is in epochs and
    not in evaluations.

    Args:
        epochs: number of epochs to wait for an improvement.
        finish_slowly: whether to lower the learning rate before stopping. Schedules that lower it
            anyway are left alone.
    """

    def __init__(self, epochs: float, *, finish_slowly: bool = True) -> None:
        self.epochs, self.finish_slowly = epochs, finish_slowly

    @override
    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        optimizer: Any = None,
        lr_scheduler: Any = None,
        **kwargs: Any,
    ) -> None:
        """Lower the learning rate, or stop, if the best evaluation is too many epochs ago."""
        constant = str(getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type))
        can_lower = constant.startswith("constant") and hasattr(lr_scheduler, "base_lrs")
        lowered, over = self._progress(state, f"eval_{deciding_metric(args)}", can_lower=can_lower)
        if over:
            control.should_training_stop = True
        elif lowered:
            groups = optimizer.param_groups
            lr_scheduler.base_lrs = [FINISHING_SHARE * group["initial_lr"] for group in groups]
            for group, base in zip(groups, lr_scheduler.base_lrs, strict=True):
                group["lr"] = min(group["lr"], base)

    def _progress(self, state: TrainerState, metric: str, *, can_lower: bool) -> tuple[bool, bool]:
        """Whether the learning rate is lowered, and whether training is over.

        It follows from the log alone, so that a resumed run continues alike.
        """
        best, best_epoch, lowered_at = -math.inf, 0.0, None
        for entry in state.log_history:
            if metric not in entry:
                continue
            epoch = entry.get("epoch", 0.0)
            if entry[metric] > best:
                best, best_epoch = entry[metric], epoch
            since = best_epoch if lowered_at is None else max(best_epoch, lowered_at)
            patience = self.epochs if lowered_at is None else math.ceil(self.epochs / 2)
            if epoch - since > patience - 1e-6:
                if lowered_at is not None or not (can_lower and self.finish_slowly):
                    return False, True
                lowered_at = epoch
        return lowered_at is not None, False


class EpochLines(ProgressCallback):
    """Prints one short line per evaluation and, in a terminal, shows a progress bar.

    Without evaluation during training, it prints one line per log of the loss. To print no lines,
    set `log_level="error"` in the training arguments, or call
    `trainer.remove_callback(EpochLines)`. To show no bar, set `disable_tqdm=True`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._loss: float | None = None
        self._began: tuple[float, float] | None = None  # start time and epoch

    @override
    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._loss, self._began = None, (time.monotonic(), state.epoch or 0.0)
        if shows_bars() and not args.disable_tqdm:
            # transformers does not type it
            super().on_train_begin(args, state, control, **kwargs)  # type: ignore[no-untyped-call]

    @override
    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.training_bar is not None:
            super().on_step_end(args, state, control, **kwargs)

    @override
    def on_prediction_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        eval_dataloader: Any = None,
        **kwargs: Any,
    ) -> None:
        """Do nothing, because `evaluate` has its own progress bar."""

    @override
    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if logs is None or "loss" not in logs:
            return
        self._loss = float(logs["loss"])
        if str(getattr(args.eval_strategy, "value", args.eval_strategy)) == "no":
            self._print(args, state, [self._epoch(args, state), f"loss {self._loss:.4f}"])

    @override
    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        metrics = kwargs.get("metrics") or {}
        wanted = deciding_metric(args) or next(
            (key[key.index("ndcg@") :] for key in metrics if "ndcg@" in key and "/" not in key), ""
        )
        found = next((key for key in metrics if wanted and key.endswith(f"_{wanted}")), None)
        if found is None:
            return
        name, value = found.removesuffix(f"_{wanted}"), float(metrics[found])
        measured = f"{wanted} {value:.4f}"
        if name != "eval" or not self._in_training(state):
            label = name.removeprefix("eval_") if name != "eval" else "validation"
            self._print(args, state, [label, measured])
            return
        parts = [self._epoch(args, state)]
        if self._loss is not None:
            parts.append(f"loss {self._loss:.4f}")
        parts.append(measured)
        best = best_entry(state, found)
        if best is not None:
            parts.append(f"best {best[found]:.4f} (epoch {best.get('epoch', 0.0):g})")
        lowered = _lowered_rate(kwargs.get("lr_scheduler"))
        if lowered is not None:
            parts.append(f"learning rate {lowered:g}")
        self._print(args, state, [*parts, *self._time_left(args, state)])

    @override
    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._began = None
        if self.training_bar is not None:
            super().on_train_end(args, state, control, **kwargs)

    def _in_training(self, state: TrainerState) -> bool:
        return self._began is not None and state.epoch is not None

    def _epoch(self, args: TrainingArguments, state: TrainerState) -> str:
        return f"epoch {round(state.epoch or 0.0, 2):g}/{state.num_train_epochs:g}"

    def _time_left(self, args: TrainingArguments, state: TrainerState) -> list[str]:
        if self._began is None:
            return []
        began, first = self._began
        done, total = (state.epoch or 0.0) - first, float(state.num_train_epochs)
        if state.max_steps > 0 and state.global_step:  # max_steps may end within an epoch
            total = (state.epoch or 0.0) * state.max_steps / state.global_step
        left = total - (state.epoch or 0.0)
        if done <= 0 or left <= 1e-6:
            return []
        return [f"at most {_duration((time.monotonic() - began) * left / done)} left"]

    def _print(self, args: TrainingArguments, state: TrainerState, parts: list[str]) -> None:
        if not state.is_world_process_zero or args.log_level in _SILENT:
            return
        line = "  ".join(parts)
        if self.training_bar is not None:
            self.training_bar.write(line)
        else:
            print(line, flush=True)


def deciding_metric(args: TrainingArguments) -> str:
    """Return the metric that selects the best checkpoint, without its prefix; "" = none."""
    return (args.metric_for_best_model or "").removeprefix("eval_")


def best_entry(state: TrainerState, metric: str) -> dict[str, float] | None:
    """Return the first log entry with the highest value of a metric; None if there is none."""
    entries = [entry for entry in state.log_history if metric in entry]
    return max(entries, key=lambda entry: entry[metric]) if entries else None


def _lowered_rate(lr_scheduler: Any) -> float | None:
    """The learning rate that `StopWithoutProgress` goes on with; None before it lowers the rate."""
    rates = getattr(lr_scheduler, "base_lrs", None)
    if not rates or rates[0] >= lr_scheduler.optimizer.param_groups[0]["initial_lr"]:
        return None
    return float(rates[0])


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
