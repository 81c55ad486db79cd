"""The online-distillation loss as a mixin for any module.

Letters: P positions that have a label, C candidates.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from odmt_sdk.losses.distillation import distillation_loss, softened_logits, warmup_weight
from odmt_sdk.losses.in_batch import in_batch_cross_entropy
from odmt_sdk.losses.teaching import TeachingEdge, teaching_edges


class LossParts(NamedTuple):
    """A loss and what it is made of.

    Args:
        loss: scalar, ready for `backward()`.
        parts: "cross_entropy/<source>", "distillation/<student>" (before its weight) and
            "distillation_weight", all scalars.
    """

    loss: torch.Tensor
    parts: dict[str, torch.Tensor]


class OnlineDistillationMixin:
    """Gives a module the loss by which several predictions learn from labels and one another.

    It has no `__init__` and no state: the settings below are class attributes that a subclass or
    an instance overrides. Put it before `nn.Module` in the list of base classes.

    Attributes:
        teaching_graph: who teaches whom, a registered name or `TeachingEdge`s; "paper" lets the
            ID teach every modality and the mean of all teach the ID.
        distillation_temperature: tau > 0.
        distillation_weight: weight after the warm-up, >= 0; 0 turns distillation off.
        distillation_warmup_epochs: epochs until the full weight is reached; 0 = at once.
        detach_teacher: whether teachers receive no gradient from their students.

    Source: sections 3.3 and 3.4 of the paper, https://arxiv.org/abs/2308.04067.

    Examples:
        >>> class TwoTowers(OnlineDistillationMixin, torch.nn.Module):
        ...     distillation_weight = 0.5
        >>> logits = {"id": torch.randn(4, 9), "text": torch.randn(4, 9)}
        >>> labels = torch.tensor([1, 0, -100, 8])
        >>> sorted(TwoTowers().online_distillation_loss(logits, labels).parts)[:2]
        ['cross_entropy/id', 'cross_entropy/text']
    """

    teaching_graph: str | Sequence[TeachingEdge] = "paper"
    distillation_temperature: float = 0.5
    distillation_weight: float = 1.0
    distillation_warmup_epochs: float = 50.0
    detach_teacher: bool = False

    def online_distillation_loss(
        self,
        logits: Mapping[str, torch.Tensor],
        labels: torch.Tensor,
        *,
        epoch: float = 0.0,
        log_multiplicity: torch.Tensor | None = None,
        ignore_index: int | None = -100,
    ) -> LossParts:
        """Sum of the sources' cross entropies and the weighted distillation losses.

        Args:
            logits: source -> (..., C), all of one shape.
            labels: (...) the right candidate, or `ignore_index` for none.
            epoch: epochs done, with a fraction; sets how far the warm-up has come.
            log_multiplicity: (..., C) log of how often each candidate counts; None = once.
            ignore_index: the label of positions that carry no loss; None = all positions carry
                loss, and nothing waits for a GPU to find those that do.

        Returns:
            The loss and its parts.

        Raises:
            ValueError: if shapes disagree, the temperature is not positive, or the teaching graph
                does not fit the sources.
        """
        if not logits:
            raise ValueError("logits is empty: give the logits of at least one source")
        for source, values in logits.items():
            if values.shape[:-1] != labels.shape:
                raise ValueError(
                    f"logits of {source!r} have shape {tuple(values.shape)}, labels "
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
        soft = hard  # the same normalisers, unless softened
        if temperature != 1:
            soft = {
                student: in_batch_cross_entropy(
                    softened_logits(logits[student], temperature, log_multiplicity), labels
                )
                for student in dict.fromkeys(edge.student for edge in edges)
            }
        teachers: dict[tuple[str, ...], torch.Tensor] = {}  # each once, however many it teaches
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
