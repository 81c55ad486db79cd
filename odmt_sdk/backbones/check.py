"""`check_backbone`: whether a backbone can be trained and served, in plain words."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from odmt_sdk.backbones import probes
from odmt_sdk.backbones.hidden_size import infer_hidden_size
from odmt_sdk.backbones.probe_subject import Subject
from odmt_sdk.backbones.probes import Answer, Level, Probe
from odmt_sdk.backbones.registry import AdapterBuilder, adapt_backbone, is_adapted
from odmt_sdk.backbones.trial import seeded, summary

ANY_WIDTH = 8  # for a backbone that reads any
DEFAULT_LENGTH = 50

# Without a yes to these, nothing else can be measured.
FIRST: Mapping[str, Probe] = {
    "shape": probes.shape,
    "finite": probes.finite,
    "no state": probes.stateless,
    "deterministic": probes.deterministic,
    "users apart": probes.independent_users,
}
PROBES: Mapping[str, Probe] = {
    "causal": probes.causal,
    "left padding": probes.left_padding,
    "right padding": probes.right_padding,
    "empty rows": probes.empty_rows,
    "gradients": probes.gradient,
    "input": probes.untouched_input,
    "bfloat16": probes.bfloat16,
    "length": probes.longest,
}


@dataclass(frozen=True)
class Finding:
    """The answer to one question about a backbone.

    Args:
        name: the question.
        level: "ok", "warning" or "error".
        message: one sentence, with the way out where something is wrong.
        cause: what the backbone raised, if it did.
    """

    name: str
    level: Level
    message: str
    cause: Exception | None = None


@dataclass(frozen=True)
class BackboneReport:
    """What `check_backbone` found; prints as a table.

    Args:
        subject: name of the backbone.
        findings: one for each question.

    Examples:
        >>> from odmt_sdk.backbones.sasrec import SASRec
        >>> check_backbone(SASRec(8)).errors
        ()
    """

    subject: str
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings with which the backbone cannot be used."""
        return tuple(finding for finding in self.findings if finding.level == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The findings to think about."""
        return tuple(finding for finding in self.findings if finding.level == "warning")

    def raise_for_errors(self) -> None:
        """Raise what is wrong, all of it.

        Raises:
            ValueError: if there are errors; the first exception of the backbone is its cause.
        """
        if self.errors:
            lines = [f"{finding.name}: {finding.message}" for finding in self.errors]
            cause = next((finding.cause for finding in self.errors if finding.cause), None)
            raise ValueError("\n".join([f"{self.subject} cannot be used:", *lines])) from cause

    def __str__(self) -> str:
        width = max((len(finding.name) for finding in self.findings), default=0)
        lines = [f"{f.level:<7}  {f.name:<{width}}  {f.message}" for f in self.findings]
        return "\n".join([self.subject, *lines])


def check_backbone(
    model: Any,
    *,
    hidden_size: int | None = None,
    max_seq_length: int | None = None,
    allow_future: bool = False,
    adapter: str | AdapterBuilder | None = None,
    forward_fn: Callable[..., Any] | None = None,
    project: bool = False,
) -> BackboneReport:
    """Measure on a tiny batch whether a backbone can be trained and served.

    Shape, finite values, causality, padding on either side, independence of users, gradients,
    determinism, state between calls, bfloat16, and the longest sequence. Copies are measured; the
    model, its modes, its gradients and all random number generators stay as they are.

    Args:
        model: a backbone of any interface, an adapted one, or an `ODMTWrapper` with its items, of
            which every backbone is measured.
        hidden_size: D; None = the model's own.
        max_seq_length: longest sequence that it will be given; None = the model's own, or 50.
        allow_future: whether it may read later items.
        adapter: as in `adapt_backbone`.
        forward_fn: as in `adapt_backbone`.
        project: as in `adapt_backbone`.

    Returns:
        The report.

    Raises:
        TypeError: if the model cannot be called.
        ValueError: if it cannot be told how to call it, or its width cannot be found.

    Examples:
        >>> report = check_backbone(nn.GRU(8, 4, batch_first=True, bidirectional=True))
        >>> [finding.name for finding in report.errors]
        ['causal']
    """
    name = getattr(model, "__name__", type(model).__name__)
    limit = max_seq_length or getattr(model, "max_seq_length", None)
    towers = _towers(model)
    if towers:
        reports = {
            source: check_adapted(
                backbone,
                name,
                hidden_size=hidden_size or model.hidden_size,
                max_seq_length=limit,
                allow_future=allow_future,
            )
            for source, backbone in towers.items()
        }
        if len(reports) == 1:
            return next(iter(reports.values()))
        findings = (
            dataclasses.replace(finding, name=f"{source}: {finding.name}")
            for source, report in reports.items()
            for finding in report.findings
        )
        return BackboneReport(name, tuple(findings))
    with seeded(model if isinstance(model, nn.Module) else nn.Module()):
        adapted = adapt_backbone(
            model,
            hidden_size=hidden_size,
            adapter=adapter,
            forward_fn=forward_fn,
            project=project,
        )
    return check_adapted(
        adapted, name, hidden_size=hidden_size, max_seq_length=limit, allow_future=allow_future
    )


def check_adapted(
    adapted: nn.Module,
    name: str,
    *,
    hidden_size: int | None,
    max_seq_length: int | None,
    allow_future: bool,
) -> BackboneReport:
    """Measure a backbone that is adapted already.

    Args:
        adapted: from `adapt_backbone`; a copy is measured.
        name: what the user calls it.
        hidden_size: as in `check_backbone`.
        max_seq_length: as in `check_backbone`.
        allow_future: as in `check_backbone`.

    Returns:
        The report.
    """
    subject = Subject(
        adapted,
        hidden_size=hidden_size or _width(adapted),
        max_seq_length=max_seq_length or getattr(adapted, "max_seq_length", None) or DEFAULT_LENGTH,
        allow_future=allow_future,
    )
    findings = (
        Finding(question, answer.level, answer.message, answer.cause)
        for question, answer in _ask(subject).items()
    )
    return BackboneReport(name, tuple(findings))


def _ask(subject: Subject) -> dict[str, Answer]:
    answers = {}
    for name, probe in {**FIRST, **PROBES}.items():
        answers[name] = _answer(probe, subject)
        if name in FIRST and answers[name].level == "error":
            break
    return answers


def _answer(probe: Probe, subject: Subject) -> Answer:
    try:
        return probe(subject)
    except Exception as error:  # whatever the user's module raises
        return Answer(
            "error",
            f"it raised {summary(error)}; the traceback is the cause of the error: correct its "
            "forward, or say with forward_fn= how to call it",
            error,
        )


def _towers(model: Any) -> Mapping[str, nn.Module]:
    """Source -> backbone, of a model that has one for each source."""
    by_source = getattr(getattr(model, "backbones", None), "by_source", None)
    return dict(by_source.items()) if isinstance(by_source, nn.ModuleDict) else {}


def _width(adapted: nn.Module) -> int:
    if is_adapted(adapted):
        width = getattr(adapted, "hidden_size", None)
        if width or not any(True for _ in adapted.parameters()):
            return width or ANY_WIDTH
    return infer_hidden_size(adapted)
