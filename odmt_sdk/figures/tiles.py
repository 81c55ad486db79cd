"""Items as tiles on a sheet: a picture, a note and a title each.

Lengths are in inches; positions are counted from the top left corner of the figure.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from odmt_sdk.figures.canvas import EMPTY, FAINT, HIT, INK, RULE
from odmt_sdk.items.extraction import is_missing
from odmt_sdk.items.pictures import open_picture

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from matplotlib.figure import Figure

TILE = 1.2
GAP = 0.14
MARGIN = 0.2
LABELS = 1.15  # width of the column with the rows' names
HEADING = 0.36
TEXT_LINE = 0.13
TITLE_LINES = 3
CAPTION = TEXT_LINE * (TITLE_LINES + 1) + 0.1
PICTURE_PIXELS = 320  # larger pictures are scaled down before they are drawn


@dataclass(frozen=True)
class Tile:
    """One item: its title and picture, a first line in bold, and how it is framed."""

    title: str
    picture: Any
    note: str = ""
    frame: str | None = None  # style of the green line around it


def make_tile(
    item: Hashable,
    titles: Mapping[Any, Any],
    images: Mapping[Any, Any],
    note: str = "",
    frame: str | None = None,
) -> Tile:
    """Look an item's title and picture up.

    Args:
        item: its id, which takes the place of a missing title.
        titles: item id -> title.
        images: item id -> picture, as for `read_picture`.
        note: a first line in bold.
        frame: style of the green line around the picture.

    Returns:
        The tile.

    Raises:
        TypeError: if the picture is none.
    """
    title = titles.get(item)
    return Tile(
        str(item) if is_missing(title) else str(title), read_picture(images.get(item)), note, frame
    )


def read_picture(picture: Any) -> Any:
    """Open a picture, in RGB and not larger than needed.

    Args:
        picture: a path, the bytes of a file, a PIL image, or None.

    Returns:
        A PIL image; None where there is none, or it cannot be read.

    Raises:
        TypeError: if it is something else.
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
    except Exception:  # decoders raise whatever the bytes make them stumble over
        return None
    image.thumbnail((PICTURE_PIXELS, PICTURE_PIXELS))
    return image


def wrap(title: str, fits: Callable[[str], bool]) -> str:
    """Break a title into lines; too long a word is broken, too long a title cut.

    Args:
        title: the title.
        fits: whether a line is not too long.

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
    """Draws on one pair of axes that measure the figure in inches from its top left corner.

    Args:
        figure: from `blank_figure`.
    """

    def __init__(self, figure: Figure) -> None:
        from matplotlib.font_manager import FontProperties

        width, height = figure.get_size_inches()
        self.axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
        self.axes.set_axis_off()
        self._width = width
        self._dpi = figure.dpi
        self._renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
        self._font = FontProperties()

    def heading(self, text: str, top: float, *, line: bool) -> None:
        """Write a heading, with a line above it."""
        if line:
            ends, y = (MARGIN, self._width - MARGIN), top - GAP / 2
            self.axes.plot(ends, (y, y), color=RULE, linewidth=0.8)
        text = self._shorten(text, self._width - 2 * MARGIN)
        self.write(text, MARGIN, top + HEADING / 2, size=10.5, weight="bold", va="center")

    def row(self, label: str, remark: str, tiles: Sequence[Tile], top: float) -> None:
        """Draw a row of tiles, their titles below, behind its label."""
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
        """Show the picture of a tile in its square."""
        self.box(left, top, size, size, facecolor=EMPTY, zorder=-1)  # pictures are drawn at 0
        if tile.picture is None:
            x, y, words = left + size / 2, top + size / 2, "no picture"
            words = words if size >= TILE else words.replace(" ", "\n")
            self.write(words, x, y, size=7, color=FAINT, ha="center", va="center")
        else:
            # as large as it fits, in the middle of the square
            scale = size / max(tile.picture.size)
            width, height = tile.picture.width * scale, tile.picture.height * scale
            x, y = left + (size - width) / 2, top + (size - height) / 2
            self.show(tile.picture, x, y, width, height)
        if tile.frame:
            style = {"edgecolor": HIT, "linewidth": 2.4, "linestyle": tile.frame}
            self.box(left, top, size, size, fill=False, **style)

    def title(self, tile: Tile, left: float, top: float, width: float, **style: Any) -> None:
        """Write the title of a tile in lines of some width."""
        lines = wrap(tile.title, lambda line: self.measure(line) <= width)
        self.write(lines, left, top, size=7, linespacing=1.1, **style)

    def measure(self, text: str, size: float = 7, weight: str = "normal") -> float:
        """The width of a line of text, in inches."""
        self._font.set_size(size)
        self._font.set_weight(weight)
        width, _, _ = self._renderer.get_text_width_height_descent(text, self._font, False)
        return float(width) / self._dpi

    def _shorten(self, text: str, width: float) -> str:
        """A heading in one line, cut where it is too long."""
        text = " ".join(text.split())
        if self.measure(text, size=10.5, weight="bold") <= width:
            return text
        while text and self.measure(f"{text} …", size=10.5, weight="bold") > width:
            text = text.rpartition(" ")[0] or text[:-1]
        return f"{text} …"

    def write(self, text: str, left: float, top: float, **style: Any) -> None:
        """Write some text, in which dollar signs are not mathematics."""
        self.axes.text(left, top, text, parse_math=False, **{"color": INK, **style})

    def show(self, pixels: Any, left: float, top: float, width: float, height: float) -> None:
        """Show a picture, or an array (rows, columns, 4) of colours, over a rectangle."""
        limits = self.axes.axis()
        extent = (left, left + width, top + height, top)
        smooth = "nearest" if hasattr(pixels, "shape") else None
        self.axes.imshow(pixels, extent=extent, aspect="auto", origin="upper", interpolation=smooth)
        self.axes.axis(limits)  # imshow moves them

    def box(self, left: float, top: float, width: float, height: float, **style: Any) -> None:
        """Draw a rectangle."""
        from matplotlib.patches import Rectangle

        self.axes.add_patch(Rectangle((left, top), width, height, **style))
