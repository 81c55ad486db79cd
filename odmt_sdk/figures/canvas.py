"""What all figures share: a blank page that belongs to no window, and colours."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from matplotlib.figure import Figure

INK, FAINT, RULE, EMPTY, HIT = "#222222", "#8a8a8a", "#d5d5d8", "#f0f0f2", "#1a8f4c"
FUSED = INK
# told apart by people who confuse red and green too (Okabe and Ito)
_COLOURS = ("#0072b2", "#e69f00", "#cc79a7", "#009e73", "#56b4e9", "#d55e00")


def blank_figure(width: float, height: float, dpi: int) -> Figure:
    """Make a white figure outside of pyplot and its global state.

    Args:
        width: inches.
        height: inches.
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
        raise ImportError(
            "drawing needs matplotlib, which is not installed: pip install odmt-sdk[figures]"
        ) from error
    figure = Figure(figsize=(width, height), dpi=dpi, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def source_colours(sources: Iterable[str]) -> dict[str, str]:
    """A colour for every source, the same one in every figure of a model.

    Args:
        sources: names, in the model's order.

    Returns:
        Source -> colour.
    """
    return {source: _COLOURS[i % len(_COLOURS)] for i, source in enumerate(sources)}
