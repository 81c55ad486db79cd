"""`transformers.Trainer` for ODMT models, with ranking metrics and adapter checkpoints."""

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn
from torch.utils.data import Dataset, Sampler
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import PredictionOutput, TrainOutput
from typing_extensions import override

from odmt_sdk.data.collator import SequenceCollator
from odmt_sdk.data.sequences import RankingDataset, SequenceDataset, check_same_rows
from odmt_sdk.evaluation.evaluate import evaluate
from odmt_sdk.evaluation.metrics import METRICS, checked_cuts
from odmt_sdk.evaluation.ranks import NonFiniteScoreError
from odmt_sdk.outputs import ODMTOutput
from odmt_sdk.processes import gather_tensors, is_distributed
from odmt_sdk.saving.item_ids import check_item_ids
from odmt_sdk.training.adapter_trainer import AdapterTrainer
from odmt_sdk.training.callbacks import EpochLines, deciding_metric
from odmt_sdk.training.lazy_adamw import LazyAdamW, clips_sparse_gradients
from odmt_sdk.training.refusals import (
    check_arguments,
    check_encoder_rate,
    check_number,
    uncompiled,
)
from odmt_sdk.training.run_mark import RunMark, find_checkpoint

_CALLER = 3  # stacklevel of the caller of `train`, from one of its helpers


class ODMTTrainer(AdapterTrainer):
    """Trains an `ODMTWrapper` with `transformers.Trainer`.

    In addition to the `Trainer`, it

    - counts the popularity of items in the training data, unless `model.set_item_popularity` was
      called before;
    - passes the epoch to the model, for the warm-up of distillation;
    - shifts the windows of a `SequenceDataset` in every epoch, seeded by `data_seed` or `seed`;
    - evaluates by ranking the full catalogue (`eval_ndcg@10` and so on; use
      `metric_for_best_model="ndcg@10"`);
    - logs the parts of the loss;
    - saves checkpoints as adapters, which `from_pretrained` can load, and with `push_to_hub=True`
      pushes the adapter with its metrics in the model card.

    Arguments of the `Trainer` that would have no effect are rejected: `compute_metrics` and others
    of its evaluation loop, label smoothing, and arguments specific to language models. `predict` is
    not supported.

    Args:
        model: the model, or `torch.compile(model)` in a single process; None = created by
            `model_init`.
        args: the `TrainingArguments`.
        k: cut-offs of the ranking metrics.
        exclude_seen: whether to exclude items the user has already seen in evaluation, except the
            target.
        backbone_learning_rate: a separate learning rate for the backbones, for example to fine-tune
            pretrained ones; None = the learning rate of `args`. Optimizer, weight decay and
            schedule are always those of `args`.
        encoder_learning_rate: the same for content encoders that are trained, see `TrainableText`.
        item_counts: (N + 1,) number of training interactions of each row, such as
            `split.item_counts`; None = counted in `train_dataset`.
        **kwargs: arguments of `transformers.Trainer`. `train_dataset` is a `SequenceDataset`,
            `eval_dataset` is a `RankingDataset`, and `data_collator` defaults to
            `SequenceCollator()`.

    Raises:
        ValueError: if an argument would have no effect, training and evaluation data are confused,
            `metric_for_best_model` is not computed, a learning rate is negative or not finite,
            `backbone_learning_rate` or `encoder_learning_rate` is given together with an optimizer,
            or the latter to a model without trained encoders.
        TypeError: if the model is wrapped in `nn.DataParallel`, a compiled model is trained in
            several processes, or a k is not an integer.
        AdapterError: if checkpoints are to be saved and an item id cannot be saved.

    Examples:
        >>> trainer = ODMTTrainer(model, args, train_dataset=split.train,     # doctest: +SKIP
        ...                       eval_dataset=split.validation)
        >>> trainer.train()                                                   # doctest: +SKIP
        >>> trainer.evaluate(split.test, metric_key_prefix="test")            # doctest: +SKIP
    """

    def __init__(
        self,
        model: Any = None,
        args: TrainingArguments | None = None,
        *positional: Any,
        k: Sequence[int] = (5, 10, 20),
        exclude_seen: bool = True,
        backbone_learning_rate: float | None = None,
        encoder_learning_rate: float | None = None,
        item_counts: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> None:
        self.k = checked_cuts(k)
        self.exclude_seen = exclude_seen
        self.backbone_learning_rate = backbone_learning_rate
        self.encoder_learning_rate = encoder_learning_rate
        self.item_counts = item_counts
        compiled, model = model, uncompiled(model)
        args = TrainingArguments(output_dir="tmp_trainer") if args is None else args
        check_arguments(args, kwargs)
        rates = {
            "backbone_learning_rate": backbone_learning_rate,
            "encoder_learning_rate": encoder_learning_rate,
        }
        for name, rate in rates.items():
            if rate is not None:
                check_number(name, rate, instead=", or None for that of the training arguments")
            if rate is not None and kwargs.get("optimizers", (None,))[0] is not None:
                raise ValueError(
                    f"{name}= applies only to an optimizer that the trainer creates: with "
                    "optimizers=, create your optimizer with model.parameter_groups"
                )
        if compiled is not model and args.world_size > 1:
            raise TypeError(
                f"a model compiled with torch.compile cannot be trained in {args.world_size} "
                "processes: pass the model itself, and torch_compile=True as a training argument"
            )
        _use_one_device(args)
        if args.device.type == "cpu":
            args.dataloader_pin_memory = False  # torch warns about pinned memory without a GPU
        if not positional:
            kwargs.setdefault("data_collator", SequenceCollator())
        super().__init__(model, args, *positional, **kwargs)
        check_encoder_rate(encoder_learning_rate, self._wrapper)
        self._check_metric()
        self._check_ids()
        self._check_kinds()
        self._check_size()
        self._check_clipping()
        # replace the Trainer's output, which prints whole dictionaries of metrics
        shown = self.callback_handler.callbacks[-1]
        if type(shown) in (PrinterCallback, ProgressCallback):
            self.callback_handler.callbacks[-1] = EpochLines()
        self.add_callback(_DrawWindows(self))
        self._part_sums: dict[str, torch.Tensor] = {}
        self._part_steps = 0
        self._mark: RunMark | None = None
        self._compiled = None if compiled is model else compiled

    @override
    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """Train; see `transformers.Trainer`.

        Args:
            resume_from_checkpoint: True = the last checkpoint of this run in the output folder; a
                path = that checkpoint, even if it belongs to another run.
            trial: the trial of a hyperparameter search.
            ignore_keys_for_eval: not used.

        Returns:
            The output of the `Trainer`.

        Raises:
            ValueError: if `resume_from_checkpoint=True` and there is no checkpoint, or it belongs
                to another run; if the data are empty or do not match the model, or all weights are
                frozen; or if the loss becomes NaN or infinite.
        """
        self._look_at_data()
        folder = Path(str(self.args.output_dir))
        mark = self._described()
        if resume_from_checkpoint is True:
            found = find_checkpoint(folder, mark)
            if found is None:
                raise ValueError(f"{str(folder)!r} has no checkpoint of this run to resume from")
            resume_from_checkpoint, mark = str(found[0]), found[1]
        else:
            of_path = RunMark.read(Path(resume_from_checkpoint)) if resume_from_checkpoint else None
            same = of_path is not None and not mark.differences(of_path)
            mark = of_path if of_path is not None and same else mark.begun()
        if self.args.should_save:
            mark.write(folder)
        self._mark = mark
        self._part_sums, self._part_steps = {}, 0
        try:
            return super().train(resume_from_checkpoint or None, trial, ignore_keys_for_eval)
        except _NotFiniteError as error:
            raise ValueError(f"{error}. {self._keep_best()}") from error.__cause__

    def last_checkpoint(self) -> Path | None:
        """Find the last checkpoint of this run in the output folder.

        Returns:
            The folder, or None if there is no checkpoint.

        Raises:
            ValueError: if the checkpoints there belong to another run.
        """
        found = find_checkpoint(Path(str(self.args.output_dir)), self._described())
        return None if found is None else found[0]

    @override
    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Create the optimizer, with `LazyAdamW` as AdamW; see `transformers.Trainer`."""
        if self.optimizer is not None:
            return self.optimizer
        name = str(getattr(self.args.optim, "value", self.args.optim))
        if self.optimizer_cls_and_kwargs is None and name in ("adamw_torch", "adamw_torch_fused"):
            _, settings = self.get_optimizer_cls_and_kwargs(self.args)
            self.optimizer_cls_and_kwargs = LazyAdamW, settings
        optimizer = super().create_optimizer(*(() if model is None else (model,)))
        for part, rate in (
            ("backbones", self.backbone_learning_rate),
            ("encoders", self.encoder_learning_rate),
        ):
            if rate is not None:
                weights = getattr(self._wrapper, part).parameters()
                _set_apart(optimizer, {id(weight) for weight in weights}, rate)
        return optimizer

    @override
    def compute_loss(
        self,
        model: nn.Module,
        inputs: Mapping[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, ODMTOutput]:
        """Compute the model's loss at the current epoch; see `transformers.Trainer`."""
        run = model if self._compiled is None else self._compiled
        output = run(**inputs, epoch=self.state.epoch or 0.0)
        parts = {name: value.detach() for name, value in output.losses.items()}
        if not _everywhere(output.loss.detach().isfinite().all()):
            raise _NotFiniteError(self._not_finite(parts, float(output.loss.detach())))
        for name, value in parts.items():
            self._part_sums[name] = self._part_sums.get(name, 0.0) + value
        self._part_steps += 1
        return (output.loss, output) if return_outputs else output.loss

    @override
    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log also the parts of the loss; see `transformers.Trainer`.

        They are averaged over the steps since the last log and over all processes, like the loss.
        """
        if "loss" in logs and self._part_steps:
            names = sorted(self._part_sums)
            means = torch.stack([self._part_sums[name].float() for name in names])
            means = means / self._part_steps
            if is_distributed():
                means = torch.stack(gather_tensors(means)).mean(0)
            logs.update(zip(names, means.tolist(), strict=True))
            self._part_sums, self._part_steps = {}, 0
        super().log(logs, start_time)

    @override
    def evaluate(
        self,
        eval_dataset: Dataset[Any] | Mapping[str, Dataset[Any]] | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Rank the full catalogue for every query of a `RankingDataset`.

        Args:
            eval_dataset: a `RankingDataset`, or several by name; None = the trainer's own.
            ignore_keys: not used.
            metric_key_prefix: prefix of the metric names.

        Returns:
            `<prefix>_hit_rate@10`, ... for the mean of the sources' scores, and
            `<prefix>_<source>/hit_rate@10`, ... for each source; values in 0..1.

        Raises:
            ValueError: if there is no data set, or a score is NaN or infinite.
        """
        eval_dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        if eval_dataset is None:
            raise ValueError("no eval_dataset: pass one here or to ODMTTrainer")
        if isinstance(eval_dataset, Mapping):
            parts = (
                self.evaluate(dataset, metric_key_prefix=f"{metric_key_prefix}_{name}")
                for name, dataset in eval_dataset.items()
            )
            return {name: value for part in parts for name, value in part.items()}
        try:
            found = evaluate(
                self._wrapper,
                eval_dataset,
                k=self.k,
                batch_size=self.args.eval_batch_size,
                exclude_seen=self.exclude_seen,
                progress=not self.args.disable_tqdm,
                distributed=True,
            )
        except NonFiniteScoreError as error:
            if not self.is_in_train:
                raise
            raise _NotFiniteError(self._weights_not_finite()) from error
        self.record(metric_key_prefix, found)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in found.items()}
        # keep the log line short: per-source metrics are only returned and put in the history
        self.log({name: value for name, value in metrics.items() if "/" not in name})
        self.state.log_history[-1].update(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    @override
    def predict(
        self,
        test_dataset: Dataset[Any],
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "test",
    ) -> PredictionOutput:
        """Not supported, because the Trainer would collect logits of the items of each batch.

        Args:
            test_dataset: not used.
            ignore_keys: not used.
            metric_key_prefix: not used.

        Raises:
            TypeError: always; the message says what to call instead.
        """
        raise TypeError(
            "ODMTTrainer has no predict: call trainer.evaluate(dataset, metric_key_prefix='test') "
            "for metrics, rank_targets(model, dataset) for the rank of each target, or "
            "model.recommend(histories, k=10) for items"
        )

    @override
    def _get_train_sampler(self, train_dataset: Dataset[Any] | None = None) -> Sampler[Any] | None:
        data: Any = self.train_dataset if train_dataset is None else train_dataset
        if not _groups_by_length(self.args) or not hasattr(data, "__len__"):
            return super()._get_train_sampler(*(() if train_dataset is None else (train_dataset,)))
        lengths = [len(data[index]["item_ids"]) for index in range(len(data))]
        size = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return LengthGroupedSampler(size, lengths=lengths)

    @override
    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        if not _everywhere(self._first_bad_weight() is None):
            raise _NotFiniteError(self._weights_not_finite())
        folder = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
        if self.args.should_save and self._mark is not None:
            self._mark.write(folder)
        super()._save_checkpoint(model, trial)

    @property
    def _wrapper(self) -> Any:
        return self.accelerator.unwrap_model(self.model)

    def _described(self) -> RunMark:
        """Return the mark of a run with the current data, model and settings."""
        datasets = {"training data": self.train_dataset, "validation data": self.eval_dataset}
        settings: dict[str, Any] = {"backbone_learning_rate": self.backbone_learning_rate}
        for name, encoder in getattr(self._wrapper, "encoders", {}).items():
            settings[f"LoRA of {name}"] = getattr(encoder, "lora_settings", None)
            settings["encoder_learning_rate"] = self.encoder_learning_rate
        return RunMark.of(self._wrapper, self.args, datasets, settings)

    def _check_metric(self) -> None:
        """Raise if the metric is not computed, unless a subclass overrides `evaluate`."""
        wanted = deciding_metric(self.args)
        decides = self.args.load_best_model_at_end or self.args.metric_for_best_model is not None
        if not decides or type(self).evaluate is not ODMTTrainer.evaluate:
            return
        sets = self.eval_dataset
        prefixes = [f"{name}_" for name in sets] if isinstance(sets, Mapping) else [""]
        allowed = {
            f"{prefix}{name}"
            for prefix in prefixes
            for name in metric_names(self.k, self._wrapper.sources)
        }
        if wanted not in allowed:
            example, source = f"{prefixes[0]}ndcg@{self.k[0]}", self._wrapper.sources[-1]
            raise ValueError(
                f"metric_for_best_model={self.args.metric_for_best_model!r} is not computed: "
                f"choose {', '.join(METRICS)} at one of k={self.k}, of all sources or of one, for "
                f"example {example!r} or '{prefixes[0]}{source}/ndcg@{self.k[0]}'"
            )

    def _check_ids(self) -> None:
        """Raise before training if an item id cannot be saved."""
        strategy = str(getattr(self.args.save_strategy, "value", self.args.save_strategy))
        vocabulary = getattr(self._wrapper, "vocabulary", None)
        if vocabulary is not None and (strategy != "no" or self.args.push_to_hub):
            check_item_ids(vocabulary.item_ids)

    def _evaluation_sets(self) -> list[Any]:
        """The evaluation data, of which there may be several by name."""
        sets = self.eval_dataset
        return list(sets.values()) if isinstance(sets, Mapping) else [sets]

    def _check_kinds(self) -> None:
        """Raise before training if training and evaluation data are confused."""
        if isinstance(self.train_dataset, RankingDataset):
            raise ValueError(
                "train_dataset is a RankingDataset, whose sequences lack the items to predict: "
                "pass a SequenceDataset, such as split.train"
            )
        own = type(self).evaluate is not ODMTTrainer.evaluate
        if not own and any(isinstance(data, SequenceDataset) for data in self._evaluation_sets()):
            raise ValueError(
                "eval_dataset is a SequenceDataset, which has no targets to rank: pass a "
                "RankingDataset, such as split.validation"
            )

    def _check_size(self) -> None:
        """Raise if `dataloader_drop_last` leaves no batch."""
        if self.train_dataset is None or not hasattr(self.train_dataset, "__len__"):
            return
        size, number = self.args.train_batch_size, len(self.train_dataset)
        if self.args.dataloader_drop_last and number < size * self.args.world_size:
            raise ValueError(
                f"dataloader_drop_last=True leaves no batch: there are {number} sequences, and a "
                f"step takes {size * self.args.world_size}. Leave it out, or take smaller batches"
            )

    def _check_clipping(self) -> None:
        """Raise before training if torch cannot clip sparse gradients."""
        sparse = getattr(getattr(self._wrapper, "config", None), "sparse_id_gradients", False)
        if sparse and (self.args.max_grad_norm or 0) > 0 and not clips_sparse_gradients():
            raise ValueError(
                f"max_grad_norm={self.args.max_grad_norm:g} cannot clip the sparse gradients of "
                f"sparse_id_gradients=True with torch {torch.__version__}: upgrade torch, or set "
                "max_grad_norm=0"
            )

    def _look_at_data(self) -> None:
        """Count the items in the training data, and check that the data match the model."""
        model, data = self._wrapper, self.train_dataset
        if data is None or not hasattr(model, "set_item_popularity"):
            return
        if hasattr(data, "__len__") and not len(data):
            raise ValueError("the training data are empty: pass at least one sequence of two items")
        if not any(weight.requires_grad for weight in model.parameters()):
            raise ValueError(
                "all weights of the model are frozen, so nothing would be trained: unfreeze some, "
                "for example with model.item_encoder.requires_grad_(True)"
            )
        for dataset in (data, *self._evaluation_sets()):
            check_same_rows(dataset, getattr(model, "vocabulary", None))
        counts = _count_items(data, model.num_items)
        if counts is not None and len(counts) > model.num_items + 1:
            raise ValueError(
                f"the training data have item row {len(counts) - 1}, but the model has "
                f"{model.num_items} items: split the data with the model's vocabulary, "
                "leave_one_out(..., vocabulary=model.vocabulary)"
            )
        counts = counts if self.item_counts is None else self.item_counts
        if not model.popularity_is_set and counts is not None:
            model.set_item_popularity(counts)
            model.popularity_is_set = False  # not set by the user: recount for other data
        elif not model.popularity_is_set:
            warnings.warn(
                "the items of a stream cannot be counted before training, so all items count as "
                "equally popular: call model.set_item_popularity(counts)",
                UserWarning,
                stacklevel=_CALLER,
            )
        message = _length_warning(data, model.max_seq_length)
        if message is not None:
            warnings.warn(message, UserWarning, stacklevel=_CALLER)

    def _not_finite(self, parts: Mapping[str, torch.Tensor], loss: float) -> str:
        """Describe which part of the loss is NaN or infinite."""
        bad = [name for name, value in parts.items() if not math.isfinite(float(value))]
        named = ", ".join(f"{name}={float(parts[name]):g}" for name in bad)
        where = f"the loss is {loss:g}" + (f" ({named})" if named else "")
        if math.isfinite(loss):
            where = "the loss of another process is NaN or infinite"
        return f"{where} at step {self.state.global_step + 1}, with {self._rates()}"

    def _weights_not_finite(self) -> str:
        name = self._first_bad_weight()
        what = "the scores are" if name is None else f"the weights {name} are"
        return f"{what} NaN or infinite after step {self.state.global_step}, with {self._rates()}"

    def _first_bad_weight(self) -> str | None:
        for name, weight in self._wrapper.named_parameters():
            values = weight.detach()
            values = values.to_local() if hasattr(values, "to_local") else values  # FSDP
            if values.is_floating_point() and not bool(values.isfinite().all()):
                return str(name)
        return None

    def _rates(self) -> str:
        optimizer: Any = self.optimizer  # made by now
        rates = dict.fromkeys(f"{float(group['lr']):g}" for group in optimizer.param_groups)
        return f"learning rate {' and '.join(rates)}"

    def _keep_best(self) -> str:
        """After a failure, load and save the best weights; return advice for the user."""
        advice = "Lower the learning rate, warm up for longer, or clip gradients (max_grad_norm=1)"
        if self.state.best_model_checkpoint is None:
            return f"No evaluated checkpoint has been saved. {advice}"
        step = self.state.best_global_step
        self._load_best_model()
        self.save_model()
        return (
            f"The best adapter so far, from step {step}, is in {str(self.args.output_dir)!r}, and "
            f"the model has its weights. {advice}"
        )


def is_not_finite(error: Exception) -> bool:
    """Whether training has stopped because the loss, a weight or a score is NaN or infinite.

    Args:
        error: what `ODMTTrainer.train` raised.

    Returns:
        Whether it is that.
    """
    return isinstance(error.__context__, _NotFiniteError)


class _NotFiniteError(Exception):
    """Raised within training for NaN or infinite values; caught by `train`."""


def metric_names(k: Sequence[int], sources: Sequence[str]) -> list[str]:
    """List the metrics that evaluation computes.

    Args:
        k: the cut-offs.
        sources: the sources of the model.

    Returns:
        Names such as "ndcg@10" and "text/ndcg@10".
    """
    fused = [f"{name}@{cut}" for cut in k for name in METRICS]
    return [*fused, *(f"{source}/{name}" for source in sources for name in fused)]


def _use_one_device(args: TrainingArguments) -> None:
    """Use a single device if this process sees several."""
    if args.n_gpu > 1:
        warnings.warn(
            f"{args.n_gpu} GPUs are visible, but this process trains on one of them. To use all, "
            f"start the script with torchrun --nproc_per_node={args.n_gpu} or accelerate launch",
            UserWarning,
            stacklevel=_CALLER,
        )
        args._n_gpu = 1


def _set_apart(optimizer: torch.optim.Optimizer, ids: set[int], rate: float) -> None:
    """Set another learning rate for weights given by `id`; parameter groups are split."""
    for group in list(optimizer.param_groups):
        apart = [weight for weight in group["params"] if id(weight) in ids]
        others = [weight for weight in group["params"] if id(weight) not in ids]
        if apart and others:
            group["params"] = others
            optimizer.add_param_group({**group, "params": apart, "lr": rate})
        elif apart:
            group["lr"] = rate


def _everywhere(condition: torch.Tensor | bool) -> bool:
    """Check whether a condition holds on all processes; all of them must call this."""
    if not is_distributed():
        return bool(condition)
    if not isinstance(condition, torch.Tensor):
        gpu = distributed.get_backend() == "nccl"
        condition = torch.tensor(condition, device="cuda" if gpu else "cpu")
    flag = condition.to(torch.int32)
    distributed.all_reduce(flag, distributed.ReduceOp.MIN)
    return bool(flag)


def _groups_by_length(args: TrainingArguments) -> bool:
    strategy = getattr(args, "train_sampling_strategy", None)
    by_strategy = str(getattr(strategy, "value", strategy)) == "group_by_length"
    return by_strategy or bool(getattr(args, "group_by_length", False))


def _count_items(data: Any, num_items: int) -> torch.Tensor | None:
    """Count each row in the training data, (N + 1,) or longer; None for an iterable dataset."""
    if isinstance(data, SequenceDataset):
        rows = torch.from_numpy(data.sequences()[0])
        return torch.bincount(rows, minlength=num_items + 1)
    if not hasattr(data, "__len__") or not hasattr(data, "__getitem__"):
        return None
    counts = torch.zeros(num_items + 1, dtype=torch.int64)
    for index in range(len(data)):
        rows = torch.as_tensor(data[index]["item_ids"])
        found = torch.bincount(rows, minlength=len(counts))
        counts = found + torch.nn.functional.pad(counts, (0, len(found) - len(counts)))
    counts[0] = 0  # padding
    return counts


def _length_warning(data: Any, longest: int) -> str | None:
    """Return a warning if the training data were cut to another length than the model reads."""
    cut = getattr(data, "max_seq_length", None)
    if not isinstance(data, SequenceDataset) or cut is None or cut == longest:
        return None
    least = min(cut, longest) + 1  # shorter sequences are not affected
    lengths = data.sequences()[1][1:] - data.sequences()[1][:-1]
    if not (lengths > least).any():
        return None
    advice = f"split with max_seq_length={longest}, or set ODMTConfig(max_seq_length={cut})"
    if cut < longest:
        return (
            f"the training sequences are cut to {cut} positions, but the model reads {longest}: "
            f"in recommending, it uses positions that were never trained; {advice}"
        )
    return (
        f"the training sequences have up to {cut} positions, but the model reads the latest "
        f"{longest}: earlier items are not used in training; {advice}"
    )


class _DrawWindows(TrainerCallback):
    """Sets the epoch and seed of the training data and of its order at the start of each epoch.

    Accelerate sets the epoch of the data too, but not in a distributed run, and it does not set the
    seed. transformers 5.0 does not set the epoch of the order after resuming within an epoch.
    """

    def __init__(self, trainer: ODMTTrainer) -> None:
        self._trainer = trainer

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        batches = getattr(kwargs.get("train_dataloader"), "batch_sampler", None)
        order: Any = getattr(batches, "sampler", None)
        if hasattr(order, "set_epoch"):
            order.set_epoch(int(state.epoch or 0))
        data = self._trainer.train_dataset
        if isinstance(data, SequenceDataset):
            seed = args.seed if args.data_seed is None else args.data_seed
            data.set_epoch(int(state.epoch or 0), seed=seed)
