"""The online distillation loss, as a mixin for any module.

Letters: P positions that have a label, C candidates.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from odmt_sdk.config import ODMTConfig
from odmt_sdk.losses.distillation import distillation_loss, softened_logits, warmup_weight
from odmt_sdk.losses.in_batch import in_batch_cross_entropy
from odmt_sdk.losses.teaching import teaching_edges


class LossParts(NamedTuple):
    """The training loss and its parts.

    Args:
        loss: scalar, ready for `backward()`.
        parts: "cross_entropy/<source>", "distillation/<student>" (before weighting) and
            "distillation_weight", all scalars.
    """

    loss: torch.Tensor
    parts: dict[str, torch.Tensor]


class OnlineDistillationMixin:
    """Mixin that adds a loss by which several predictions learn from labels and from each other.

    It has no `__init__` and no state. The settings below are class attributes that a subclass or an
    instance overrides; their defaults are those of `ODMTConfig`. List it before `nn.Module` among
    the base classes.

    Attributes:
        teaching_graph: who teaches whom: the name of a registered graph, or `TeachingEdge`s. With
            "ensemble", the mean of all sources teaches every source. With "paper", the ID teaches
            every modality and the mean of all sources teaches the ID.
        distillation_temperature: tau > 0 of the distillation loss.
        distillation_weight: weight after the warm-up, >= 0; 0 turns distillation off.
        distillation_warmup_epochs: epochs until the full weight is reached; 0 = no warm-up.
        detach_teacher: whether gradients of the distillation loss stop at the teachers.

    Source: sections 3.3 and 3.4 of the paper, https://arxiv.org/abs/2308.04067.

    Examples:
        >>> class TwoTowers(OnlineDistillationMixin, torch.nn.Module):
        ...     distillation_weight = 0.5
        >>> logits = {"id": torch.randn(4, 9), "text": torch.randn(4, 9)}
        >>> labels = torch.tensor([1, 0, -100, 8])
        >>> sorted(TwoTowers().online_distillation_loss(logits, labels).parts)[:2]
        ['cross_entropy/id', 'cross_entropy/text']
    """

    teaching_graph: str | Sequence[tuple[str, tuple[str, ...]]] = ODMTConfig.teaching_graph
    distillation_temperature: float = ODMTConfig.distillation_temperature
    distillation_weight: float = ODMTConfig.distillation_weight
    distillation_warmup_epochs: float = ODMTConfig.distillation_warmup_epochs
    detach_teacher: bool = ODMTConfig.detach_teacher

    def online_distillation_loss(
        self,
        logits: Mapping[str, torch.Tensor],
        labels: torch.Tensor,
        *,
        epoch: float | None = None,
        log_multiplicity: torch.Tensor | None = None,
        ignore_index: int | None = -100,
    ) -> LossParts:
        """Sum of the cross-entropies of all sources and the weighted distillation losses.

        Args:
            logits: source -> (..., C), all of the same shape.
            labels: (...) index of the correct candidate, or `ignore_index` for no label.
            epoch: epochs completed, as a fraction; 0.0 is the start of the warm-up. None = the
                full distillation weight.
            log_multiplicity: (..., C) log of the number of times each candidate counts; None =
                every candidate counts once.
            ignore_index: label of positions without a loss; None = every position has a loss,
                which avoids a synchronization with the GPU.

        Returns:
            The total loss and its parts.

        Raises:
            ValueError: if shapes disagree, the temperature is not positive, `epoch` is negative or
                the teaching graph does not fit the sources.
        """
        if not logits:
            raise ValueError("logits is empty: give the logits of at least one source")
        for source, values in logits.items():
            if values.shape[:-1] != labels.shape:
                raise ValueError(
                    f"logits of {source!r} have shape {tuple(values.shape)} and labels "
                    f"{tuple(labels.shape)}; logits need one more axis, the candidates"
                )
        if not self.distillation_temperature > 0:
            raise ValueError(
                f"distillation_temperature={self.distillation_temperature} must be greater than 0"
            )
        logits = {source: values.flatten(0, -2) for source, values in logits.items()}
        labels = labels.flatten()  # (...) -> (P,)
        if log_multiplicity is not None:
            log_multiplicity = log_multiplicity.flatten(0, -2)
        if ignore_index is not None:
            kept = (labels != ignore_index).nonzero().squeeze(1)
            logits = {source: values[kept] for source, values in logits.items()}
            labels = labels[kept]
            if log_multiplicity is not None:
                log_multiplicity = log_multiplicity[kept]

        hard = {
            source: in_batch_cross_entropy(values, labels, log_multiplicity)
            for source, values in logits.items()
        }
        parts = {f"cross_entropy/{source}": entropy.loss for source, entropy in hard.items()}
        loss = torch.stack(list(parts.values())).sum()
        weight = warmup_weight(
            epoch, weight=self.distillation_weight, warmup_epochs=self.distillation_warmup_epochs
        )
        edges = teaching_edges(self.teaching_graph, tuple(logits)) if weight > 0 else ()
        temperature = self.distillation_temperature
        soft = hard  # at temperature 1 the normalisers are the same
        if temperature != 1:
            soft = {
                student: in_batch_cross_entropy(
                    softened_logits(logits[student], temperature, log_multiplicity), labels
                )
                for student in dict.fromkeys(edge.student for edge in edges)
            }
        teachers: dict[tuple[str, ...], torch.Tensor] = {}  # computed once per set of teachers
        for edge in edges:
            if edge.teachers not in teachers:
                mean = edge.teacher_logits(logits)
                mean = mean.detach() if self.detach_teacher else mean
                softened = softened_logits(mean, temperature, log_multiplicity)
                teachers[edge.teachers] = softened.softmax(-1)
            distilled = distillation_loss(
                logits[edge.student],
                teachers[edge.teachers],
                soft[edge.student].normaliser,
                temperature=temperature,
            )
            name = f"distillation/{edge.student}"
            parts[name] = parts[name] + distilled if name in parts else distilled
            loss = loss + weight * distilled
        parts["distillation_weight"] = torch.full((), weight, device=loss.device)
        return LossParts(loss, parts)
