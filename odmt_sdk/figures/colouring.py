"""Colours for categorical or numeric labels."""

from __future__ import annotations

from collections import Counter
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from odmt_sdk.figures.canvas import FAINT, INK

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.figure import Figure

MANY_KINDS = 9  # rarer categories share one colour, "others"
UNKNOWN = "#c9c9ce"
OTHER = "#33333b"
LEGEND_LETTERS = 18
LOG_FROM = 20.0  # the scale is logarithmic if largest / smallest number is at least this


class Colouring(NamedTuple):
    """Colours of N items and their meaning.

    Args:
        colours: N colours.
        kinds: category -> colour, most frequent first; empty for numbers.
        scale: matplotlib ScalarMappable for numbers; None for categories.
    """

    colours: list[Any]
    kinds: Mapping[str, Any]
    scale: Any = None


def colour_by(values: Sequence[Any]) -> Colouring:
    """Choose a colour for each label.

    Args:
        values: N categories or numbers; None = no label.

    Returns:
        The colours.

    Raises:
        TypeError: if some are numbers and some are not.
    """
    known = [value for value in values if value is not None]
    numbers = [isinstance(value, Real) and not isinstance(value, bool) for value in known]
    if known and all(numbers):
        return _by_number(values, [float(value) for value in known])
    if any(numbers):
        raise TypeError(
            "some labels are numbers and some are not: make all of them numbers, or all text with "
            "str()"
        )
    return _by_kind(values, known)


def _by_kind(values: Sequence[Any], known: Sequence[Any]) -> Colouring:
    from matplotlib import colormaps

    common = [kind for kind, _ in Counter(known).most_common()]
    named = common if len(common) <= MANY_KINDS + 1 else common[:MANY_KINDS]
    palette = colormaps["tab10"]
    colours = {kind: palette(place) for place, kind in enumerate(named)}
    kinds: dict[str, Any] = {str(kind): colour for kind, colour in colours.items()}
    if len(named) < len(common):
        kinds[f"{len(common) - len(named)} others"] = OTHER
    if known and len(known) < len(values):
        kinds["none"] = UNKNOWN
    return Colouring([UNKNOWN if v is None else colours.get(v, OTHER) for v in values], kinds)


def _by_number(values: Sequence[Any], known: Sequence[float]) -> Colouring:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm, Normalize

    positive = [value for value in known if value > 0]
    low, high = min(known), max(known)
    logarithmic = low >= 0 and positive and high >= LOG_FROM * min(positive)
    low = min(positive) if logarithmic else low
    scale = ScalarMappable(LogNorm(low, high) if logarithmic else Normalize(low, high), "viridis")
    colours = [UNKNOWN if v is None else scale.to_rgba(np.array(max(v, low))) for v in values]
    return Colouring(colours, {}, scale)


def draw_legend(
    figure: Figure, colouring: Colouring, name: str, place: tuple[float, float, float, float]
) -> None:
    """Draw the legend of the colours.

    Args:
        figure: the figure to draw on.
        colouring: the colours.
        name: title of the legend.
        place: left, bottom, width and height as fractions of the figure.
    """
    left, bottom, width, height = place
    if colouring.scale is not None:
        from matplotlib.ticker import LogLocator

        axes = figure.add_axes((left, bottom, 0.13 * width, height))
        bar = figure.colorbar(colouring.scale, cax=axes)
        if axes.get_yscale() == "log":
            bar.set_ticks(LogLocator(subs=(1, 2, 5)))
            bar.minorticks_off()
            bar.ax.yaxis.set_major_formatter("{x:g}")
        bar.set_label(name, fontsize=8)
        bar.ax.tick_params(labelsize=7, color=FAINT)
        return
    from matplotlib.lines import Line2D

    marks = [
        Line2D([], [], marker="o", linestyle="", color=colour, label=_shortened(kind))
        for kind, colour in colouring.kinds.items()
    ]
    legend = figure.legend(
        handles=marks,
        title=name,
        loc="upper left",
        bbox_to_anchor=(left, bottom + height),
        borderaxespad=0,
        frameon=False,
        fontsize=8,
        title_fontsize=8.5,
        alignment="left",
        labelcolor=INK,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _shortened(kind: str) -> str:
    return kind if len(kind) <= LEGEND_LETTERS else f"{kind[: LEGEND_LETTERS - 1]}…"
