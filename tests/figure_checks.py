"""Checks shared by the tests of figures."""

import itertools

import numpy as np


def texts(figure):
    """Return all non-empty texts of the figure and its axes."""
    found = [text for axes in figure.axes for text in axes.texts] + list(figure.texts)
    return [text.get_text() for text in found if text.get_text()]


def canvas(figure):
    """Return the rendered figure (height, width, RGB)."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3]


def check_readable(figure):
    """Check that no texts overlap and none extends beyond the figure."""
    from matplotlib.text import Text

    canvas(figure)
    renderer = figure.canvas.get_renderer()
    drawn = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            # matplotlib keeps tick labels beyond the axis limits, but does not draw them
            low, high = sorted(axis.get_view_interval())
            for tick in axis.get_major_ticks() + axis.get_minor_ticks():
                if not low <= tick.get_loc() <= high:
                    drawn = [t for t in drawn if t is not tick.label1 and t is not tick.label2]
    boxes = [(t.get_text(), t.get_window_extent(renderer)) for t in drawn]
    whole = figure.bbox
    for text, box in boxes:
        assert whole.x0 <= box.x0, text
        assert box.x1 <= whole.x1, text
        assert whole.y0 <= box.y0, text
        assert box.y1 <= whole.y1, text
    for (one, a), (other, b) in itertools.combinations(boxes, 2):
        assert not a.overlaps(b), (one, other)
