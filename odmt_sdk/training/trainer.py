"""`transformers.Trainer` for ODMT models: epochs, ranking metrics and adapter checkpoints."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset
from typing_extensions import override

from odmt_sdk.data.collator import SequenceCollator
from odmt_sdk.evaluation.evaluate import evaluate
from odmt_sdk.outputs import ODMTOutput
from odmt_sdk.training.adapter_trainer import AdapterTrainer
from odmt_sdk.training.lazy_adamw import LazyAdamW


class ODMTTrainer(AdapterTrainer):
    """Trains an `ODMTWrapper`; every feature of `transformers.Trainer` is there.

    It tells the model the epoch, so that distillation warms up; evaluates by ranking the full
    catalogue (`eval_ndcg@10` and so on, which `metric_for_best_model="ndcg@10"` refers to); logs
    the parts of the loss; and writes checkpoints that are adapters `from_pretrained` reads. With
    `push_to_hub=True` in its arguments it pushes the adapter, with what it measured in the card.

    Args:
        *args: as for `transformers.Trainer`.
        k: cut-offs of the ranking metrics.
        **kwargs: as for `transformers.Trainer`; `train_dataset` is a `SequenceDataset`,
            `eval_dataset` a `RankingDataset`, and `data_collator` defaults to `SequenceCollator()`.

    Examples:
        >>> trainer = ODMTTrainer(model, args, train_dataset=split.train,     # doctest: +SKIP
        ...                       eval_dataset=split.validation)
        >>> trainer.train()                                                   # doctest: +SKIP
        >>> trainer.evaluate(split.test, metric_key_prefix="test")            # doctest: +SKIP
    """

    def __init__(self, *args: Any, k: Sequence[int] = (5, 10, 20), **kwargs: Any) -> None:
        kwargs.setdefault("data_collator", SequenceCollator())
        super().__init__(*args, **kwargs)
        self.k = tuple(k)
        self._part_sums: dict[str, torch.Tensor] = {}
        self._part_steps = 0

    @override
    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW, where it is asked for, as `LazyAdamW`; see `transformers.Trainer`."""
        if self.optimizer is None and self.optimizer_cls_and_kwargs is None:
            made, settings = self.get_optimizer_cls_and_kwargs(self.args)
            if made is torch.optim.AdamW:
                self.optimizer_cls_and_kwargs = LazyAdamW, settings
        return super().create_optimizer(model)

    @override
    def compute_loss(
        self,
        model: nn.Module,
        inputs: Mapping[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, ODMTOutput]:
        """The model's loss at the current epoch; see `transformers.Trainer`."""
        output = model(**inputs, epoch=self.state.epoch or 0.0)
        for name, value in output.losses.items():
            self._part_sums[name] = self._part_sums.get(name, 0.0) + value.detach()
        self._part_steps += 1
        return (output.loss, output) if return_outputs else output.loss

    @override
    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the parts of the loss, averaged since the last log; see `transformers.Trainer`."""
        if "loss" in logs and self._part_steps:
            logs.update({n: float(s) / self._part_steps for n, s in self._part_sums.items()})
            self._part_sums, self._part_steps = {}, 0
        super().log(logs, start_time)

    @override
    def evaluate(
        self,
        eval_dataset: Dataset[Any] | Mapping[str, Dataset[Any]] | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Rank the full catalogue for every user of a `RankingDataset`.

        Args:
            eval_dataset: a `RankingDataset`, several by name, or None for the trainer's own.
            ignore_keys: not used.
            metric_key_prefix: put before every metric's name.

        Returns:
            `<prefix>_hit_rate@10` and so on, fused, and `<prefix>_<source>/hit_rate@10` per source.
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
        found = evaluate(
            self.accelerator.unwrap_model(self.model),
            eval_dataset,
            k=self.k,
            batch_size=self.args.eval_batch_size,
            progress=not self.args.disable_tqdm,
            distributed=True,
        )
        self.record(metric_key_prefix, found)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in found.items()}
        # a line that can be read: the sources' own metrics go into the history and are returned
        self.log({name: value for name, value in metrics.items() if "/" not in name})
        self.state.log_history[-1].update(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics
