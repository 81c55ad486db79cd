"""A picture of what users had and what they are recommended, item by item.

Lengths are in inches; positions of tiles are counted from the top left corner of the figure.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from odmt_sdk.items.extraction import is_missing
from odmt_sdk.items.image_tokens import open_picture

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

INK, FAINT, RULE, EMPTY, HIT = "#222222", "#8a8a8a", "#d5d5d8", "#f0f0f2", "#1a8f4c"


@dataclass(frozen=True)
class _Tile:
    """One item: its title and picture, a first line in bold, and how it is framed."""

    title: str
    picture: Any
    note: str = ""
    frame: str | None = None  # style of the green line around it


def draw_recommendations(
    histories: Sequence[Sequence[Hashable]],
    recommendations: Sequence[Sequence[Hashable]],
    *,
    scores: Sequence[Sequence[float]] | None = None,
    next_items: Sequence[Hashable | None] | None = None,
    titles: Mapping[Any, Any] | None = None,
    images: Mapping[Any, Any] | None = None,
    users: Sequence[object] | None = None,
    max_history: int = 8,
    path: str | os.PathLike[str] | None = None,
    dpi: int = 110,
) -> Figure:
    """Draw histories and recommendations as rows of item pictures.

    Each user gets a row with the latest items of the history, latest last, and below it a row with
    the recommendations, best first. The item that truly came next stands behind the history in a
    dashed green frame, and in a solid one where it was recommended.

    Args:
        histories: for each user, item ids, oldest first.
        recommendations: for each user, item ids, best first.
        scores: for each user, one number per recommendation.
        next_items: for each user, the item that truly came next; None where it is not known.
        titles: item id -> title; items without one show their id.
        images: item id -> picture as a path, the bytes of a file, or a PIL image. Items without a
            picture, or with one that cannot be read, are grey tiles.
        users: for each user, the name in the heading; None numbers them from 1.
        max_history: how many of the latest items of a history are shown, at least 1.
        path: where to save the figure; the ending decides the format (.png, .pdf, .svg).
        dpi: pixels per inch of a saved picture.

    Returns:
        The figure, which belongs to no window and no global state of matplotlib.

    Raises:
        ValueError: if there is no user, the arguments speak of different numbers of users or items,
            or `max_history` is too small.
        TypeError: if a picture is none of the three kinds.
        ImportError: if matplotlib is not installed (`pip install odmt-sdk[figures]`).

    Examples:
        >>> figure = draw_recommendations(
        ...     histories=[["mug", "teapot"]],
        ...     recommendations=[["bowl", "lamp"]],
        ...     scores=[[0.9, 0.4]],
        ...     titles={"mug": "Nordic mug", "bowl": "Serving bowl in olive wood"},
        ... )
        >>> figure.savefig("recommendations.png")  # doctest: +SKIP
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "drawing needs matplotlib, which is not installed: pip install odmt-sdk[figures]"
        ) from error

    histories, recommendations = list(histories), list(recommendations)
    _check_lengths(histories, recommendations, scores, next_items, users)
    if max_history < 1:
        raise ValueError(f"max_history={max_history} must be at least 1")
    titles, images = titles or {}, images or {}
    blocks = []
    for user, (history, recommended) in enumerate(zip(histories, recommendations, strict=True)):
        truth = None if next_items is None else next_items[user]
        user_scores = None if scores is None else scores[user]
        blocks.append(
            (
                _history_tiles(history, truth, titles, images, max_history),
                _recommended_tiles(recommended, user_scores, truth, titles, images),
            )
        )
    columns = max(len(row) for block in blocks for row in block)
    width = MARGIN + LABELS + columns * (TILE + GAP) + MARGIN
    row_height = TILE + CAPTION
    block_height = HEADING + 2 * row_height + GAP
    height = MARGIN + len(blocks) * block_height
    figure = Figure(figsize=(width, height), dpi=dpi, facecolor="white")
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    sheet = _Sheet(figure, renderer, width, height)
    for number, (owned, offered) in enumerate(blocks):
        top = MARGIN + number * block_height
        name = f"User {number + 1}" if users is None else str(users[number])
        sheet.heading(name, top, line=number > 0)
        left_out = max(0, len(histories[number]) - max_history)
        older = f"\n{left_out} older not shown" if left_out else ""
        sheet.row("History", f"latest last{older}", owned, top + HEADING)
        sheet.row("Recommended", "best first", offered, top + HEADING + row_height)
    if path is not None:
        figure.savefig(path, dpi=dpi)
    return figure


def _check_lengths(
    histories: Sequence[object],
    recommendations: Sequence[Sequence[object]],
    scores: Sequence[Sequence[float]] | None,
    next_items: Sequence[object] | None,
    users: Sequence[object] | None,
) -> None:
    if not histories:
        raise ValueError("there is no user to draw: histories is empty")
    others = {
        "recommendations": recommendations,
        "scores": scores,
        "next_items": next_items,
        "users": users,
    }
    for name, values in others.items():
        if values is not None and len(values) != len(histories):
            raise ValueError(
                f"{name} has {len(values)} entries for {len(histories)} histories; "
                "give one per user"
            )
    for user, row in enumerate(scores or ()):
        if len(row) != len(recommendations[user]):
            raise ValueError(
                f"user {user} has {len(row)} scores for {len(recommendations[user])} "
                "recommendations; give one per item"
            )


def _history_tiles(
    history: Sequence[Hashable],
    truth: Hashable | None,
    titles: Mapping[Any, Any],
    images: Mapping[Any, Any],
    max_history: int,
) -> list[_Tile]:
    tiles = [_tile(item, titles, images) for item in list(history)[-max_history:]]
    if truth is not None:
        tiles.append(_tile(truth, titles, images, note="came next", frame="--"))
    return tiles


def _recommended_tiles(
    items: Sequence[Hashable],
    scores: Sequence[float] | None,
    truth: Hashable | None,
    titles: Mapping[Any, Any],
    images: Mapping[Any, Any],
) -> list[_Tile]:
    tiles = []
    for place, item in enumerate(items):
        hit = truth is not None and item == truth
        score = "" if scores is None else f"   {float(scores[place]):#.3g}"
        note = f"{place + 1}{score}{'   hit' if hit else ''}"
        tiles.append(_tile(item, titles, images, note=note, frame="-" if hit else None))
    return tiles


def _tile(
    item: Hashable,
    titles: Mapping[Any, Any],
    images: Mapping[Any, Any],
    note: str = "",
    frame: str | None = None,
) -> _Tile:
    title = titles.get(item)
    return _Tile(
        str(item) if is_missing(title) else str(title), _read(images.get(item)), note, frame
    )


def _read(picture: Any) -> Any:
    """The picture in RGB and not larger than needed; None where there is none to show."""
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


def _wrap(title: str, fits: Callable[[str], bool]) -> str:
    """A title in lines that fit under a tile; too long a word is broken, too long a title cut."""
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


class _Sheet:
    """Draws on one pair of axes that measure the figure in inches from its top left corner."""

    def __init__(self, figure: Figure, renderer: Any, width: float, height: float) -> None:
        from matplotlib.font_manager import FontProperties

        self._axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
        self._axes.set_axis_off()
        self._width = width
        self._dpi = figure.dpi
        self._renderer = renderer
        self._font = FontProperties(size=7)

    def heading(self, text: str, top: float, *, line: bool) -> None:
        """Write a user's name, with a line above it."""
        if line:
            ends, y = (MARGIN, self._width - MARGIN), top - GAP / 2
            self._axes.plot(ends, (y, y), color=RULE, linewidth=0.8)
        self._write(text, MARGIN, top + HEADING / 2, size=10.5, weight="bold", va="center")

    def row(self, label: str, remark: str, tiles: Sequence[_Tile], top: float) -> None:
        """Draw a row of tiles behind its label."""
        self._write(label, MARGIN, top + TILE / 2 - 0.02, size=9, va="bottom")
        self._write(remark, MARGIN, top + TILE / 2 + 0.02, size=7, color=FAINT, va="top")
        for place, tile in enumerate(tiles):
            self._draw(tile, MARGIN + LABELS + place * (TILE + GAP), top)

    def _draw(self, tile: _Tile, left: float, top: float) -> None:
        self._box(left, top, facecolor=EMPTY, zorder=-1)  # pictures are drawn at 0
        if tile.picture is None:
            middle = {"ha": "center", "va": "center"}
            self._write(
                "no picture", left + TILE / 2, top + TILE / 2, size=7, color=FAINT, **middle
            )
        else:
            self._show(tile.picture, left, top)
        if tile.frame:
            self._box(left, top, fill=False, edgecolor=HIT, linewidth=2.4, linestyle=tile.frame)
        below = top + TILE + 0.06
        if tile.note:
            color = HIT if tile.frame else FAINT
            self._write(tile.note, left, below, size=7, weight="bold", color=color, va="top")
            below += TEXT_LINE
        self._write(_wrap(tile.title, self._fits), left, below, size=7, va="top", linespacing=1.1)

    def _fits(self, text: str) -> bool:
        """Whether a line is no wider than a tile."""
        width, _, _ = self._renderer.get_text_width_height_descent(text, self._font, False)
        return bool(width <= TILE * self._dpi)

    def _show(self, picture: Any, left: float, top: float) -> None:
        """Show a picture as large as it fits in the middle of a tile."""
        scale = TILE / max(picture.size)
        width, height = picture.width * scale, picture.height * scale
        left, top = left + (TILE - width) / 2, top + (TILE - height) / 2
        limits = self._axes.axis()
        self._axes.imshow(
            picture, extent=(left, left + width, top + height, top), aspect="auto", origin="upper"
        )
        self._axes.axis(limits)  # imshow moves them

    def _box(self, left: float, top: float, **style: Any) -> None:
        from matplotlib.patches import Rectangle

        self._axes.add_patch(Rectangle((left, top), TILE, TILE, **style))

    def _write(self, text: str, left: float, top: float, **style: Any) -> None:
        # titles may hold dollar signs, which are not mathematics
        self._axes.text(left, top, text, parse_math=False, **{"color": INK, **style})
