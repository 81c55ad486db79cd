"""`check_backbone` and its report: whether a backbone can be trained and served."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from odmt_sdk.backbones.adapt import BridgeBuilder, adapt_backbone, is_adapted
from odmt_sdk.backbones.check import probes
from odmt_sdk.backbones.check.probe_subject import Subject
from odmt_sdk.backbones.check.probes import Answer, Level, Probe
from odmt_sdk.backbones.protocol import AdaptedBackbone
from odmt_sdk.backbones.signature.hidden_size import infer_hidden_size
from odmt_sdk.backbones.signature.trial import check_copyable, seeded, summary
from odmt_sdk.deprecation import renamed_argument

ANY_WIDTH = 8  # used for a backbone that reads any width
DEFAULT_LENGTH = 50

# The remaining probes are skipped if one of these finds an error.
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
    "saved": probes.saved,
    "training": probes.training,
    "input": probes.untouched_input,
    "bfloat16": probes.bfloat16,
    "length": probes.longest,
}


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Args:
        name: name of the check.
        level: "ok", "warning" or "error".
        message: one sentence, with advice if something is wrong.
        cause: the exception that the backbone raised, if any.
    """

    name: str
    level: Level
    message: str
    cause: Exception | None = None


@dataclass(frozen=True)
class BackboneReport:
    """Report of `check_backbone`; prints as a table.

    Args:
        subject: name of the backbone.
        findings: one finding per check.

    Examples:
        >>> from odmt_sdk.backbones.models.sasrec import SASRec
        >>> check_backbone(SASRec(8)).errors
        ()
    """

    subject: str
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that make the backbone unusable."""
        return tuple(finding for finding in self.findings if finding.level == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The findings that do not prevent training but should be reviewed."""
        return tuple(finding for finding in self.findings if finding.level == "warning")

    def raise_for_errors(self) -> None:
        """Raise one exception that lists all errors.

        Raises:
            ValueError: if there are errors; its cause is the first exception of the backbone.
        """
        if self.errors:
            lines = [f"{finding.name}: {finding.message}" for finding in self.errors]
            cause = next((finding.cause for finding in self.errors if finding.cause), None)
            raise ValueError("\n".join([f"{self.subject} cannot be used:", *lines])) from cause

    def __str__(self) -> str:
        width = max((len(finding.name) for finding in self.findings), default=0)
        lines = [f"{f.level:<7}  {f.name:<{width}}  {f.message}" for f in self.findings]
        return "\n".join([self.subject, *lines])


@renamed_argument("adapter", "bridge")
def check_backbone(
    model: Any,
    *,
    hidden_size: int | None = None,
    max_seq_length: int | None = None,
    allow_future: bool = False,
    bridge: str | BridgeBuilder | None = None,
    forward_fn: Callable[..., Any] | None = None,
    project: bool = False,
) -> BackboneReport:
    """Check on tiny batches whether a backbone can be trained and served.

    The checks cover the output shape, finite values, causality, padding on either side,
    independence of users, gradients, weights outside the state dict, determinism, state between
    calls, behaviour in training mode, bfloat16, and the longest sequence. The checks run the model
    itself, not a copy. Afterwards its weights, buffers, modes, hooks and gradients are restored,
    and so are all random number generators.

    Args:
        model: a backbone of any interface, a module from `adapt_backbone`, or an `ODMTWrapper` with
            items, whose backbones are all checked.
        hidden_size: D; None = the model's own width.
        max_seq_length: longest sequence that the backbone will receive; None = the model's own
            limit, or 50 if it has none.
        allow_future: whether the backbone may read later items.
        bridge: as in `adapt_backbone`.
        forward_fn: as in `adapt_backbone`.
        project: as in `adapt_backbone`.

    Returns:
        The report; `report.errors` is empty if the backbone can be used.

    Raises:
        TypeError: if the model is not callable.
        ValueError: if it is unclear how to call the model, its width cannot be determined, or it
            cannot be copied. Wrapping needs one copy per source.

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
    if isinstance(model, nn.Module):
        check_copyable(model)
    with seeded(model if isinstance(model, nn.Module) else nn.Module()):
        adapted = adapt_backbone(
            model,
            hidden_size=hidden_size,
            bridge=bridge,
            forward_fn=forward_fn,
            project=project,
        )
    return check_adapted(
        adapted, name, hidden_size=hidden_size, max_seq_length=limit, allow_future=allow_future
    )


def check_adapted(
    adapted: AdaptedBackbone,
    name: str,
    *,
    hidden_size: int | None,
    max_seq_length: int | None,
    allow_future: bool,
) -> BackboneReport:
    """Check a backbone that is already adapted.

    Args:
        adapted: a module from `adapt_backbone`; it is restored afterwards.
        name: name of the backbone in the report.
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
    with subject.measured():
        findings = [
            Finding(question, answer.level, answer.message, answer.cause)
            for question, answer in _ask(subject).items()
        ]
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
    except Exception as error:  # a user's module may raise anything
        return Answer(
            "error",
            f"it raised {summary(error)}; the traceback is the cause of the error: correct its "
            "forward, or pass forward_fn= to define how it is called",
            error,
        )


def _towers(model: Any) -> Mapping[str, AdaptedBackbone]:
    """Source -> backbone for a model with several backbones; empty for other models."""
    by_source = getattr(getattr(model, "backbones", None), "by_source", None)
    if not isinstance(by_source, nn.ModuleDict):
        return {}
    return {source: AdaptedBackbone(backbone) for source, backbone in by_source.items()}


def _width(adapted: AdaptedBackbone) -> int:
    if is_adapted(adapted):
        width = getattr(adapted, "hidden_size", None)
        if width or not any(True for _ in adapted.parameters()):
            return width or ANY_WIDTH
    return infer_hidden_size(adapted)
