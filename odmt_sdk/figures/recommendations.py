"""Draws the histories and recommendations of users, item by item.

Lengths are in inches, positions are measured from the top left corner of the figure.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from odmt_sdk.figures.canvas import blank_figure
from odmt_sdk.figures.tiles import (
    CAPTION,
    GAP,
    HEADING,
    LABELS,
    MARGIN,
    TILE,
    Sheet,
    Tile,
    make_tile,
)
from odmt_sdk.paths import user_path

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from matplotlib.figure import Figure


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
    """Draw histories and recommendations as rows of item images.

    Each user has a row with the latest items of the history, latest last, and a row with the
    recommendations, best first. The true next item follows the history in a dashed green frame. If
    it was recommended, it has a solid green frame in the second row.

    Args:
        histories: item ids of each user, oldest first.
        recommendations: recommended item ids for each user, best first.
        scores: scores of each user's recommendations.
        next_items: the true next item of each user; None if unknown.
        titles: item id -> title; items without a title show their id.
        images: item id -> image, as a path, the bytes of a file, or a PIL image. Items without a
            readable image are grey tiles.
        users: name of each user in the heading; None = numbered from 1.
        max_history: maximum number of latest history items to show, at least 1.
        path: file to save the figure to; the suffix determines the format (.png, .pdf, .svg).
        dpi: pixels per inch of a saved bitmap.

    Returns:
        The figure, independent of pyplot and its global state.

    Raises:
        ValueError: if there are no users, the arguments differ in the number of users or items, or
            `max_history` is below 1.
        TypeError: if an image is of another type.
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
    figure = blank_figure(width, height, dpi)
    sheet = Sheet(figure)
    for number, (owned, offered) in enumerate(blocks):
        top = MARGIN + number * block_height
        name = f"User {number + 1}" if users is None else str(users[number])
        sheet.heading(name, top, line=number > 0)
        left_out = max(0, len(histories[number]) - max_history)
        older = f"\n{left_out} older not shown" if left_out else ""
        sheet.row("History", f"latest last{older}", owned, top + HEADING)
        sheet.row("Recommended", "best first", offered, top + HEADING + row_height)
    if path is not None:
        figure.savefig(user_path(path), dpi=dpi)
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
) -> list[Tile]:
    tiles = [make_tile(item, titles, images) for item in list(history)[-max_history:]]
    if truth is not None:
        tiles.append(make_tile(truth, titles, images, note="came next", frame="--"))
    return tiles


def _recommended_tiles(
    items: Sequence[Hashable],
    scores: Sequence[float] | None,
    truth: Hashable | None,
    titles: Mapping[Any, Any],
    images: Mapping[Any, Any],
) -> list[Tile]:
    tiles = []
    for place, item in enumerate(items):
        hit = truth is not None and item == truth
        score = "" if scores is None else f"   {float(scores[place]):#.3g}"
        note = f"{place + 1}{score}{'   hit' if hit else ''}"
        tiles.append(make_tile(item, titles, images, note=note, frame="-" if hit else None))
    return tiles
