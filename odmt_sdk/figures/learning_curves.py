"""Draws learning curves: the validation metric and the losses per epoch and source."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Protocol

from odmt_sdk.figures.canvas import FAINT, FUSED, RULE, blank_figure, source_colours
from odmt_sdk.paths import user_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 4.2, 3.3  # inches of one panel
EVAL, TRAINED, TAUGHT = "eval_", "cross_entropy/", "distillation/"


class Trained(Protocol):
    """A training result with a history, such as `FitResult`."""

    history: Sequence[Mapping[str, float]]


Points = list[tuple[float, float]]


def draw_learning_curves(
    result: Trained | Sequence[Mapping[str, float]],
    *,
    metric: str = "ndcg@10",
    path: str | os.PathLike[str] | None = None,
    dpi: int = 110,
) -> Figure:
    """Draw the learning curves of a training run.

    The figure has up to three panels over epochs: the validation metric, fused and for each source,
    with the best epoch marked; the cross-entropy loss of each source; and the distillation loss of
    each student, if distillation is used.

    Args:
        result: the result of `fit`, or `trainer.state.log_history` of an `ODMTTrainer`.
        metric: the validation metric, such as "hit_rate@10".
        path: file to save the figure to; the suffix determines the format (.png, .pdf, .svg).
        dpi: pixels per inch of a saved bitmap.

    Returns:
        The figure, independent of pyplot and its global state.

    Raises:
        ValueError: if the log does not have this metric.
        ImportError: if matplotlib is not installed (`pip install odmt-sdk[figures]`).

    Examples:
        >>> log = [{"epoch": 1, "eval_ndcg@10": 0.1}, {"epoch": 2, "eval_ndcg@10": 0.2}]
        >>> figure = draw_learning_curves(log)
    """
    log: Any = getattr(result, "history", result)
    history = list(log)
    validation = _curves(history, EVAL, f"/{metric}")
    if fused := _points(history, EVAL + metric):
        validation = {"fused": fused, **validation}
    if not validation:
        known = sorted({key.removeprefix(EVAL) for e in history for key in e if key[:5] == EVAL})
        raise ValueError(
            f"the history has no validation metric {metric!r}; it has "
            f"{[name for name in known if '@' in name and '/' not in name]}"
        )
    losses = _curves(history, TRAINED)
    taught = _curves(history, TAUGHT)
    weights = dict(_points(history, "distillation_weight"))
    if not any(weights.values()):
        taught = {}
    # Metrics come in the model's order, which decides the colours; losses are logged by name.
    sources = [name for name in {**validation, **losses} if name != "fused"]
    colours = {"fused": FUSED, **source_colours(sources)}
    panels = [
        (f"Validation {metric}", validation),
        ("Cross entropy, training", losses),
        ("Distillation, training", taught),
    ]
    panels = [(title, curves) for title, curves in panels if curves]
    figure = blank_figure(WIDTH * len(panels), HEIGHT, dpi)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for place, (title, curves) in zip(axes, panels, strict=True):
        _plot(place, title, curves, colours)
    leader = "fused" if "fused" in validation else next(iter(validation))
    _mark_best(axes[0], validation[leader], colours[leader])
    for place in axes:
        place.legend(fontsize=7, frameon=False)
    figure.tight_layout()
    if path is not None:
        figure.savefig(user_path(path), dpi=dpi)
    return figure


def _points(history: Sequence[Mapping[str, float]], key: str) -> Points:
    """Return (epoch, value) of every log entry that has the key."""
    return [(entry["epoch"], entry[key]) for entry in history if key in entry and "epoch" in entry]


def _curves(
    history: Sequence[Mapping[str, float]], prefix: str, suffix: str = ""
) -> dict[str, Points]:
    """Return source -> points of the keys `<prefix><source><suffix>`, in log order."""
    keys = dict.fromkeys(
        key
        for entry in history
        for key in entry
        if key.startswith(prefix) and key.endswith(suffix) and len(key) > len(prefix + suffix)
    )
    return {key.removeprefix(prefix).removesuffix(suffix): _points(history, key) for key in keys}


def _plot(axes: Axes, title: str, curves: Mapping[str, Points], colours: Mapping[str, str]) -> None:
    from matplotlib.ticker import MaxNLocator

    for name, points in curves.items():
        epochs, values = zip(*points, strict=True)
        axes.plot(
            epochs,
            values,
            label=name,
            color=colours.get(name, FAINT),
            linewidth=2.2 if name == "fused" else 1.3,
            marker="o" if len(points) < 3 else None,
            markersize=3,
        )
    axes.set_title(title, fontsize=9.5, loc="left", weight="bold")
    axes.set_xlabel("epoch", fontsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(labelsize=7, color=RULE)
    axes.grid(color=RULE, linewidth=0.5)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _mark_best(axes: Axes, points: Points, colour: str) -> None:
    epoch, value = max(points, key=lambda point: point[1])
    axes.axvline(epoch, color=FAINT, linewidth=0.8, linestyle=":")
    label = f"best {value:.3f}, epoch {epoch:g}"
    axes.plot([epoch], [value], "o", color=colour, markersize=6, label=label)
