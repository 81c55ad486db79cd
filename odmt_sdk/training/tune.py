"""`tune`: a search for good settings with Optuna, on the validation set."""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from transformers.trainer_utils import TrainOutput
from typing_extensions import override

from odmt_sdk.data.splits import Split
from odmt_sdk.errors import missing_library
from odmt_sdk.evaluation.metrics import checked_cuts
from odmt_sdk.paths import user_path
from odmt_sdk.training.callbacks import StopWithoutProgress
from odmt_sdk.training.fit_arguments import check_metric, fit_arguments
from odmt_sdk.training.refusals import check_encoder_rate, uncompiled
from odmt_sdk.training.trainer import ODMTTrainer, is_not_finite

Space = Mapping[str, Any]

# name in a space -> attribute of the training arguments; all others are for `make_model`
TRAINING = {
    "learning_rate": "learning_rate",
    "weight_decay": "weight_decay",
    "max_grad_norm": "max_grad_norm",
    "warmup_steps": "warmup_steps",
    "batch_size": "per_device_train_batch_size",
}
RATES = ("backbone_learning_rate", "encoder_learning_rate")  # attributes of the trainer
STUDY, TRIALS, SPACE = "odmt-sdk", "trials", "space"


@dataclass(frozen=True)
class TuneResult:
    """The result of `tune`.

    Args:
        parameters: the best values, by the names of the space.
        value: the validation metric that they reach.
        metric: its name.
        trials: one entry per trial: "number", "state" ("complete", "pruned" or "fail"), "value" and
            "parameters".
        adapter: folder of the adapter of the best trial.
    """

    parameters: dict[str, Any]
    value: float
    metric: str
    trials: list[dict[str, Any]]
    adapter: Path


def tune(
    make_model: Callable[..., Any],
    split: Split,
    space: Space,
    output_dir: str | Path,
    *,
    trials: int = 20,
    metric: str = "ndcg@10",
    epochs: float | None = None,
    patience: int | None = None,
    batch_size: int | None = None,
    learning_rate: float = 1e-3,
    backbone_learning_rate: float | None = None,
    encoder_learning_rate: float | None = None,
    warmup_steps: int | None = None,
    weight_decay: float = 0.1,
    max_grad_norm: float = 5.0,
    k: tuple[int, ...] = (5, 10, 20),
    exclude_seen: bool = True,
    seed: int = 0,
    prune: bool = True,
    storage: str | Path | None = None,
    timeout: float | None = None,
    **training_arguments: Any,
) -> TuneResult:
    """Search for the settings with the best validation metric, and keep the best adapter.

    Each trial trains as `fit` does, with early stopping. The test set is not used: evaluate the
    best adapter on it once. Every finished trial is stored. Run the same call again to continue
    after an interruption, or with a larger `trials` to add trials. The search is
    `transformers.Trainer.hyperparameter_search` with Optuna's TPE sampler.

    Args:
        make_model: creates a new model from the parameters of a trial that are not training
            settings: `make_model(num_layers=2, dropout=0.1)`.
        split: from `leave_one_out` or `time_split`, with the vocabulary of the model.
        space: name -> values to choose from, such as `[1, 2, 3]`, or a range such as
            `{"low": 1e-4, "high": 1e-2, "log": True}`; of integers if both ends are integers. The
            names "learning_rate", "backbone_learning_rate", "encoder_learning_rate",
            "weight_decay", "max_grad_norm", "warmup_steps" and "batch_size" are training settings;
            all others are arguments of `make_model`.
        output_dir: folder for the adapter of the best trial.
        trials: total number of trials, including those of earlier calls.
        metric: validation metric to maximize.
        epochs: maximum number of epochs of a trial, see `fit`.
        patience: epochs without an improvement after which a trial stops, see `fit`.
        batch_size: per device, see `fit`. This setting and the next six are not used if the space
            has them.
        learning_rate: see `fit`.
        backbone_learning_rate: see `fit`.
        encoder_learning_rate: see `fit`; not for models without trained encoders.
        warmup_steps: see `fit`.
        weight_decay: see `fit`.
        max_grad_norm: see `fit`.
        k: cut-offs of the metrics.
        exclude_seen: whether to exclude seen items in evaluation.
        seed: seed of the search and of every trial.
        prune: whether to stop a trial that, after the warm-up, is below the median of earlier
            trials at the same step.
        storage: SQLite file of the trials; None = "trials.db" in `output_dir`.
        timeout: seconds after which no new trial starts; None = no limit.
        **training_arguments: further `transformers.TrainingArguments`.

    Returns:
        The best parameters and all trials.

    Raises:
        ValueError: if the space is empty or not of this form, the metric is not computed, the space
            or an argument has a rate for encoders and the models have none to train, no trial was
            completed, or the stored trials belong to another space, metric or seed.
        TypeError: if `make_model` does not take a parameter of the space.
        ImportError: if Optuna or accelerate is not installed (`pip install odmt-sdk[tune]`).

    Examples:
        >>> result = tune(                                                      # doctest: +SKIP
        ...     lambda dropout: ODMTWrapper(SASRec(64, dropout=dropout), features),
        ...     split,
        ...     {"dropout": [0.1, 0.3], "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}},
        ...     "tuned", trials=20)
        >>> result.parameters, result.value                                     # doctest: +SKIP
        ({'dropout': 0.3, 'learning_rate': 0.0021}, 0.142)
    """
    try:
        import optuna
    except ImportError as error:
        raise missing_library("tune needs Optuna", error, "tune") from error
    if trials < 1:
        raise ValueError(f"trials={trials} must be at least 1")
    first = {name: _first(name, values) for name, values in space.items()}
    if not first:
        raise ValueError("space is empty: name at least one setting and its values")
    k = checked_cuts(k)
    of_training = {*TRAINING, *RATES}
    rates = {
        "backbone_learning_rate": first.get("backbone_learning_rate", backbone_learning_rate),
        "encoder_learning_rate": first.get("encoder_learning_rate", encoder_learning_rate),
    }
    folder = user_path(output_dir)
    file = folder / "trials.db" if storage is None else user_path(storage)

    def new_model(trial: Any = None) -> nn.Module:
        parameters = first if trial is None else _suggested(trial, space)
        model = make_model(**{n: v for n, v in parameters.items() if n not in of_training})
        uncompiled(model)
        return model  # type: ignore[no-any-return]

    model: Any = new_model()  # mistakes are found before anything is written
    if model.vocabulary != split.vocabulary:
        raise ValueError(
            "make_model creates a model with other items than the split: split the data with "
            "leave_one_out(..., vocabulary=features.vocabulary)"
        )
    check_metric(metric, k, model.sources)
    check_encoder_rate(rates["encoder_learning_rate"], model)
    training, waited = fit_arguments(
        split,
        folder / TRIALS,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        warmup_steps=warmup_steps,
        weight_decay=weight_decay,
        max_grad_norm=max_grad_norm,
        patience=patience,
        metric=metric,
        seed=seed,
        training_arguments={"log_level": "error", "disable_tqdm": True, **training_arguments},
    )
    folder.mkdir(parents=True, exist_ok=True)
    with _quiet(optuna):
        url = f"sqlite:///{file.absolute()}"
        study = optuna.create_study(
            study_name=STUDY, storage=url, load_if_exists=True, direction="maximize"
        )
        asked = json.dumps({"space": space, "metric": metric, "seed": seed}, default=list)
        if study.user_attrs.get(SPACE, asked) != asked:
            raise ValueError(
                f"{file} contains trials with another space, metric or seed: "
                f"{study.user_attrs[SPACE]}. Choose another folder, or delete the file"
            )
        study.set_user_attr(SPACE, asked)
        finished = [t for t in study.trials if t.state.name in ("COMPLETE", "PRUNED")]
        trainer = _TrialTrainer(
            model_init=new_model,
            args=training,
            train_dataset=split.train,
            eval_dataset=split.validation,
            callbacks=[StopWithoutProgress(waited)],
            k=k,
            exclude_seen=exclude_seen,
            item_counts=split.item_counts,
            **rates,
        )
        trainer.search = _Search(study, metric, folder, trials)
        if len(finished) < trials:
            try:
                trainer.hyperparameter_search(
                    hp_space=lambda trial: {
                        TRAINING[name]: value
                        for name, value in _suggested(trial, space).items()
                        if name in TRAINING
                    },
                    compute_objective=lambda metrics: metrics[f"eval_{metric}"],
                    n_trials=trials - len(finished),
                    direction="maximize",
                    backend="optuna",
                    study_name=STUDY,
                    storage=url,
                    load_if_exists=True,
                    # a sampler with the same seed would draw the first trials once more
                    sampler=optuna.samplers.TPESampler(seed=seed + len(study.trials)),
                    pruner=optuna.pruners.MedianPruner(n_warmup_steps=int(training.warmup_steps))
                    if prune
                    else optuna.pruners.NopPruner(),
                    timeout=timeout,
                )
            except ValueError:  # Optuna's, if there is no best trial
                if any(trial.state.name != "PRUNED" for trial in study.trials):
                    raise
        done = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
        if not done:
            raise ValueError(
                "no trial was completed: the loss became NaN or infinite in all trials, or "
                "timeout= was too short. Try smaller learning rates or fewer epochs"
            )
        best = study.best_trial
        listed = [
            {
                "number": trial.number,
                "state": trial.state.name.lower(),
                "value": trial.value,
                "parameters": dict(trial.params),
            }
            for trial in study.trials
        ]
    return TuneResult(dict(best.params), max(t.value or 0.0 for t in done), metric, listed, folder)


@dataclass
class _Search:
    """The shared state of the trials of a search.

    Args:
        study: the Optuna study.
        metric: validation metric to maximize.
        folder: where the best adapter is saved.
        trials: number of trials in all.
    """

    study: Any
    metric: str
    folder: Path
    trials: int

    def best(self) -> Any | None:
        """The best trial so far, or None."""
        done = [trial for trial in self.study.trials if trial.state.name == "COMPLETE"]
        return max(done, key=lambda trial: trial.value) if done else None

    def say(self, trial: Any, outcome: str) -> None:
        """Print the line of a trial."""
        values = ", ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in trial.params.items()
        )
        print(f"trial {trial.number + 1}/{self.trials}  {outcome}  {values}", flush=True)


class _TrialTrainer(ODMTTrainer):
    """Keeps the adapter of the best trial, and no checkpoints of the others."""

    search: _Search
    objective: float | None

    @override
    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """Train one trial; see `ODMTTrainer`."""
        import optuna

        search = self.search
        if self.model is None:  # released after the previous trial
            self.model = self.model_wrapped = self.call_model_init()
        try:
            output = super().train(None, trial, ignore_keys_for_eval)
        except optuna.TrialPruned:
            search.say(trial, "stopped, below the median")
            raise
        except ValueError as error:
            if not is_not_finite(error):
                raise
            search.say(trial, "diverged")
            raise optuna.TrialPruned() from error
        finally:
            shutil.rmtree(search.folder / TRIALS, ignore_errors=True)
        name = f"eval_{search.metric}"
        value = max(entry[name] for entry in self.state.log_history if name in entry)
        self.objective = value  # of the best epoch, which the model's weights come from
        before = search.best()
        if before is None or value > before.value:
            self._wrapper.save_pretrained(search.folder)
            before = None
        beside = "" if before is None else f"  best {before.value:.4f} (trial {before.number + 1})"
        search.say(trial, f"{search.metric} {value:.4f}{beside}")
        return output

    @override
    def call_model_init(self, trial: Any = None) -> nn.Module:
        """Create the model of a trial, set the popularity of its items, and take over its rates."""
        model = super().call_model_init(trial)
        for name in RATES:
            if trial is not None and name in trial.params:
                setattr(self, name, trial.params[name])
        if self.item_counts is not None and not getattr(model, "popularity_is_set", True):
            model.set_item_popularity(self.item_counts)  # type: ignore[operator]
        return model


def _first(name: str, values: Any) -> Any:
    """Check the values of a name, and return one of them."""
    if isinstance(values, Mapping):
        unknown = sorted(set(values) - {"low", "high", "log"})
        numbers = [values.get(end) for end in ("low", "high")]
        if unknown or not all(
            isinstance(number, int | float) and not isinstance(number, bool) for number in numbers
        ):
            raise ValueError(
                f"space[{name!r}]={dict(values)} must have the numbers low and high, and may have "
                "log"
            )
        low, high = values["low"], values["high"]
        if not low < high or (values.get("log") and low <= 0):
            raise ValueError(
                f"space[{name!r}]={dict(values)} must have low below high, and above 0 with log"
            )
        return low
    if not isinstance(values, list | tuple) or not values:
        raise ValueError(
            f"space[{name!r}]={values!r} must be a list of values to choose from, or a range such "
            'as {"low": 0.001, "high": 0.1, "log": True}'
        )
    return values[0]


def _suggested(trial: Any, space: Space) -> dict[str, Any]:
    """Ask Optuna for the parameters of a trial, in the order of the space."""
    found = {}
    for name, values in space.items():
        if not isinstance(values, Mapping):
            found[name] = trial.suggest_categorical(name, list(values))
            continue
        ends = values["low"], values["high"]
        suggest = trial.suggest_int if set(map(type, ends)) == {int} else trial.suggest_float
        found[name] = suggest(name, *ends, log=bool(values.get("log", False)))
    return found


@contextlib.contextmanager
def _quiet(optuna: Any) -> Iterator[None]:
    """Silence Optuna's log; this package prints one line per trial."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
