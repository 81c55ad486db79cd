"""Blank figures and colours shared by all figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from odmt_sdk.errors import missing_library

if TYPE_CHECKING:
    from collections.abc import Iterable

    from matplotlib.figure import Figure

INK, FAINT, RULE, EMPTY, HIT = "#222222", "#8a8a8a", "#d5d5d8", "#f0f0f2", "#1a8f4c"
FUSED = INK
# colour-blind safe (Okabe and Ito)
_COLOURS = ("#0072b2", "#e69f00", "#cc79a7", "#009e73", "#56b4e9", "#d55e00")


def blank_figure(width: float, height: float, dpi: int) -> Figure:
    """Create a white figure, independent of pyplot and its global state.

    Args:
        width: width in inches.
        height: height in inches.
        dpi: pixels per inch.

    Returns:
        The figure, with a canvas that can measure text.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_library("drawing needs matplotlib", error, "figures") from error
    figure = Figure(figsize=(width, height), dpi=dpi, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def source_colours(sources: Iterable[str]) -> dict[str, str]:
    """Assign a colour to every source, the same one in all figures of a model.

    Args:
        sources: names of the sources, in the model's order.

    Returns:
        Source -> colour.
    """
    return {source: _COLOURS[i % len(_COLOURS)] for i, source in enumerate(sources)}
