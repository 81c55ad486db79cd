"""Draws items as tiles: an image, a note and a title each.

Lengths are in inches, positions are measured from the top left corner of the figure.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from odmt_sdk.features.extraction.pictures import open_picture
from odmt_sdk.features.extractor import is_missing
from odmt_sdk.figures.canvas import EMPTY, FAINT, HIT, INK, RULE

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from matplotlib.figure import Figure

TILE = 1.2
GAP = 0.14
MARGIN = 0.2
LABELS = 1.15  # width of the column with row labels
HEADING = 0.36
TEXT_LINE = 0.13
TITLE_LINES = 3
CAPTION = TEXT_LINE * (TITLE_LINES + 1) + 0.1
PICTURE_PIXELS = 320  # larger images are scaled down before drawing


@dataclass(frozen=True)
class Tile:
    """An item with its title and image, a note in bold, and the style of its frame."""

    title: str
    picture: Any
    note: str = ""
    frame: str | None = None  # line style of the green frame


def make_tile(
    item: Hashable,
    titles: Mapping[Any, Any],
    images: Mapping[Any, Any],
    note: str = "",
    frame: str | None = None,
) -> Tile:
    """Create the tile of an item.

    Args:
        item: item id, used as the title if there is none.
        titles: item id -> title.
        images: item id -> image, as for `read_picture`.
        note: first line of the caption, in bold.
        frame: line style of the green frame around the image; None = no frame.

    Returns:
        The tile.

    Raises:
        TypeError: if the image is of another type.
    """
    title = titles.get(item)
    return Tile(
        str(item) if is_missing(title) else str(title), read_picture(images.get(item)), note, frame
    )


def read_picture(picture: Any) -> Any:
    """Open an image in RGB and scale it down to the size needed.

    Args:
        picture: a path, the bytes of a file, a PIL image, or None.

    Returns:
        A PIL image; None if there is no image, or it cannot be read.

    Raises:
        TypeError: if `picture` is of another type.
    """
    if is_missing(picture):
        return None
    if not (isinstance(picture, str | bytes | os.PathLike) or hasattr(picture, "thumbnail")):
        raise TypeError(
            f"a picture of type {type(picture).__name__} cannot be drawn: give a path, the bytes "
            "of a file or a PIL image (Image.fromarray makes one of an array)"
        )
    try:
        image = open_picture(picture)
    except Exception:  # decoders raise any type of exception
        return None
    image.thumbnail((PICTURE_PIXELS, PICTURE_PIXELS))
    return image


def wrap(title: str, fits: Callable[[str], bool]) -> str:
    """Break a title into lines; words that are too long are split, and long titles are truncated.

    Args:
        title: the title.
        fits: returns whether a line is short enough.

    Returns:
        At most `TITLE_LINES` lines.
    """
    lines = [""]
    for word in title.split():
        longer = f"{lines[-1]} {word}".strip()
        if fits(longer):
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if lines[-1] and not fits(lines[-1] + letter):
                lines.append("")
            lines[-1] += letter
        if len(lines) > TITLE_LINES:
            break
    if len(lines) > TITLE_LINES:
        last = lines[TITLE_LINES - 1]
        while last and not fits(f"{last} …"):
            last = last.rpartition(" ")[0] or last[:-1]
        lines = [*lines[: TITLE_LINES - 1], f"{last} …"]
    return "\n".join(lines)


class Sheet:
    """Draws on a figure in inches, measured from its top left corner.

    Args:
        figure: a figure from `blank_figure`.
    """

    def __init__(self, figure: Figure) -> None:
        from matplotlib.font_manager import FontProperties

        width, height = figure.get_size_inches()
        self.axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
        self.axes.set_axis_off()
        self._width = width
        self._dpi = figure.dpi
        canvas: Any = figure.canvas  # of Agg, which has a renderer
        self._renderer = canvas.get_renderer()
        self._font = FontProperties()

    def heading(self, text: str, top: float, *, line: bool) -> None:
        """Write a heading, optionally with a line above it."""
        if line:
            ends, y = (MARGIN, self._width - MARGIN), top - GAP / 2
            self.axes.plot(ends, (y, y), color=RULE, linewidth=0.8)
        text = self._shorten(text, self._width - 2 * MARGIN)
        self.write(text, MARGIN, top + HEADING / 2, size=10.5, weight="bold", va="center")

    def row(self, label: str, remark: str, tiles: Sequence[Tile], top: float) -> None:
        """Draw a row of tiles with its label on the left and their titles below."""
        self.write(label, MARGIN, top + TILE / 2 - 0.02, size=9, va="bottom")
        self.write(remark, MARGIN, top + TILE / 2 + 0.02, size=7, color=FAINT, va="top")
        for place, tile in enumerate(tiles):
            left, below = MARGIN + LABELS + place * (TILE + GAP), top + TILE + 0.06
            self.picture(tile, left, top)
            if tile.note:
                color = HIT if tile.frame else FAINT
                self.write(tile.note, left, below, size=7, weight="bold", color=color, va="top")
                below += TEXT_LINE
            self.title(tile, left, below, TILE, va="top")

    def picture(self, tile: Tile, left: float, top: float, size: float = TILE) -> None:
        """Draw the image of a tile in its square."""
        self.box(left, top, size, size, facecolor=EMPTY, zorder=-1)  # images have zorder 0
        if tile.picture is None:
            x, y, words = left + size / 2, top + size / 2, "no picture"
            words = words if size >= TILE else words.replace(" ", "\n")
            self.write(words, x, y, size=7, color=FAINT, ha="center", va="center")
        else:
            # scale to fit and centre in the square
            scale = size / max(tile.picture.size)
            width, height = tile.picture.width * scale, tile.picture.height * scale
            x, y = left + (size - width) / 2, top + (size - height) / 2
            self.show(tile.picture, x, y, width, height)
        if tile.frame:
            style = {"edgecolor": HIT, "linewidth": 2.4, "linestyle": tile.frame}
            self.box(left, top, size, size, fill=False, **style)

    def title(self, tile: Tile, left: float, top: float, width: float, **style: Any) -> None:
        """Write the title of a tile, wrapped to a width."""
        lines = wrap(tile.title, lambda line: self.measure(line) <= width)
        self.write(lines, left, top, size=7, linespacing=1.1, **style)

    def measure(self, text: str, size: float = 7, weight: str = "normal") -> float:
        """Measure the width of a line of text, in inches."""
        self._font.set_size(size)
        self._font.set_weight(weight)
        width, _, _ = self._renderer.get_text_width_height_descent(text, self._font, False)
        return float(width) / self._dpi

    def _shorten(self, text: str, width: float) -> str:
        """Shorten a heading to a single line of the given width."""
        text = " ".join(text.split())
        if self.measure(text, size=10.5, weight="bold") <= width:
            return text
        while text and self.measure(f"{text} …", size=10.5, weight="bold") > width:
            text = text.rpartition(" ")[0] or text[:-1]
        return f"{text} …"

    def write(self, text: str, left: float, top: float, **style: Any) -> None:
        """Write text literally: dollar signs do not start mathematics."""
        self.axes.text(left, top, text, parse_math=False, **{"color": INK, **style})

    def show(self, pixels: Any, left: float, top: float, width: float, height: float) -> None:
        """Draw an image, or an array of colours (rows, columns, 4), in a rectangle."""
        limits = self.axes.axis()
        extent = (left, left + width, top + height, top)
        smooth = "nearest" if hasattr(pixels, "shape") else None
        self.axes.imshow(pixels, extent=extent, aspect="auto", origin="upper", interpolation=smooth)
        self.axes.axis(limits)  # imshow changes the limits

    def box(self, left: float, top: float, width: float, height: float, **style: Any) -> None:
        """Draw a rectangle."""
        from matplotlib.patches import Rectangle

        self.axes.add_patch(Rectangle((left, top), width, height, **style))
