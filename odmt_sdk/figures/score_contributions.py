"""Draws the contribution of each source to the scores of recommended items.

Letters: N items, D hidden size, K recommended items. Lengths are in inches, positions are measured
from the top left corner of the figure.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from odmt_sdk.figures.canvas import FAINT, HIT, INK, RULE, blank_figure, source_colours
from odmt_sdk.figures.tiles import (
    CAPTION,
    GAP,
    HEADING,
    LABELS,
    MARGIN,
    TILE,
    Sheet,
    make_tile,
)
from odmt_sdk.item_neighbours import added_scores
from odmt_sdk.modes import evaluating
from odmt_sdk.paths import user_path
from odmt_sdk.scoring import weights_of
from odmt_sdk.scoring_model import ScoringModel

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


ROW, SMALL_TILE = 0.86, 0.72
PLACE, TITLE, BARS, SCORE, RANK = 0.42, 1.75, 3.9, 0.75, 0.62  # widths of the columns
RANKS_HEADING = 1.5
FOOT = 0.62
LEAST_LABELLED = 0.36  # minimum width of a bar with a number


class Contributions(NamedTuple):
    """The scores of items for one history, decomposed by source.

    Args:
        parts: source -> its contribution (K,) to the fused scores; the contributions add up to
            `scores`. "item_to_item" is the contribution of item-to-item counts, if the model has
            them.
        scores: (K,) fused scores.
        ranks: source -> rank (K,) of each item among the items not in the history if only this
            source is used, 1 = best; "fused" for all sources together.
    """

    parts: dict[str, torch.Tensor]
    scores: torch.Tensor
    ranks: dict[str, torch.Tensor]


@torch.no_grad()
def contributions(
    model: ScoringModel,
    history: Sequence[Hashable],
    item_ids: Sequence[Hashable],
    *,
    above_average: bool = False,
    source_weights: Mapping[str, float] | None = None,
) -> Contributions:
    """Decompose the scores of items for one history by source.

    Args:
        model: an `ODMTWrapper`.
        history: item ids, oldest first.
        item_ids: the K items.
        above_average: whether to subtract each source's mean contribution over the catalogue. A
            contribution that is equal for all items does not affect the ranking.
        source_weights: source -> weight, as for `ODMTWrapper.recommend`; None = those of the model.

    Returns:
        Contributions, scores and ranks.

    Raises:
        ValueError: if an item or a weighted source is unknown, or the history is empty.
    """
    if model.vocabulary is None:
        raise ValueError("this model has no items yet: pass item_features= or call set_items")
    seen = torch.tensor(model.vocabulary.rows(history), device=model.device)
    wanted = torch.tensor(model.vocabulary.rows(item_ids), device=model.device)
    if not len(seen):
        raise ValueError("the history is empty: give at least one item")
    with evaluating(model):
        items = model.encode_catalogue()
        user = model.encode_sequences(seen[None, -model.max_seq_length :], item_embeddings=items)
    weights = weights_of(model, source_weights)
    total = sum(weights.values())
    alone = {  # (N,) each
        source: items[source][1:].float() @ user[source][0].float() for source in model.sources
    }
    by_source = {source: scores * weights[source] / total for source, scores in alone.items()}
    added = added_scores(model, seen[None])
    if added is not None:
        every = torch.arange(1, len(alone[model.sources[0]]) + 1, device=model.device)
        alone["item_to_item"] = by_source["item_to_item"] = added.of_rows(every)[0]
    fused = torch.stack(list(by_source.values())).sum(0)
    ranks = {}
    for name, scores in {"fused": fused, **alone}.items():
        chosen = scores[wanted - 1]  # (K,)
        left = scores.index_fill(0, seen - 1, -torch.inf)
        ranks[name] = 1 + (left[None] > chosen[:, None]).sum(1)
    if above_average:
        by_source = {source: scores - scores.mean() for source, scores in by_source.items()}
        fused = fused - fused.mean()
    return Contributions(
        {source: scores[wanted - 1].cpu() for source, scores in by_source.items()},
        fused[wanted - 1].cpu(),
        {name: values.cpu() for name, values in ranks.items()},
    )


def draw_contributions(
    model: ScoringModel,
    history: Sequence[Hashable],
    *,
    k: int = 5,
    next_item: Hashable | None = None,
    above_average: bool = True,
    titles: Mapping[Any, Any] | None = None,
    images: Mapping[Any, Any] | None = None,
    user: object = None,
    max_history: int = 6,
    path: str | os.PathLike[str] | None = None,
    dpi: int = 110,
) -> Figure:
    """Draw the contribution of each source to the scores of recommended items.

    The figure has one row per recommended item. A row shows the item's image and title, a bar with
    one segment per source, the fused score, and the item's rank by each source alone. Positive
    contributions are to the right of zero, negative ones to the left.

    Args:
        model: an `ODMTWrapper`.
        history: item ids, oldest first.
        k: number of recommended items to show.
        next_item: the true next item. It has a green frame, and is shown in an additional row if it
            was not recommended.
        above_average: whether to show contributions relative to the average item of the catalogue,
            which determine the ranking. False shows the scores returned by `recommend`.
        titles: item id -> title; items without a title show their id.
        images: item id -> image, as for `draw_recommendations`.
        user: name of the user in the heading.
        max_history: maximum number of latest history items to show, at least 1.
        path: file to save the figure to; the suffix determines the format (.png, .pdf, .svg).
        dpi: pixels per inch of a saved bitmap.

    Returns:
        The figure, independent of pyplot and its global state.

    Raises:
        ValueError: if the history is empty or has an unknown item, or a number is out of range.
        TypeError: if an image is of another type.
        ImportError: if matplotlib is not installed (`pip install odmt-sdk[figures]`).

    Examples:
        >>> figure = draw_contributions(                                     # doctest: +SKIP
        ...     model, ["mug-017", "teapot-101"], titles=titles, images=images
        ... )
    """
    if max_history < 1:
        raise ValueError(f"max_history={max_history} must be at least 1")
    history = list(history)
    shown: list[Hashable] = list(model.recommend([history], k=k).item_ids[0])
    if next_item is not None and next_item not in shown:
        shown.append(next_item)
    found = contributions(model, history, shown, above_average=above_average)
    titles, images = titles or {}, images or {}
    past = [make_tile(item, titles, images) for item in history[-max_history:]]
    tiles = [
        make_tile(item, titles, images, frame="-" if item == next_item else None) for item in shown
    ]

    start = MARGIN + PLACE + SMALL_TILE + GAP + TITLE + GAP  # left end of the bars
    ranks_start = start + BARS + SCORE
    width = max(
        ranks_start + max(RANK * len(found.parts), RANKS_HEADING) + MARGIN,
        MARGIN + LABELS + len(past) * (TILE + GAP) + MARGIN,
    )
    rows_top = MARGIN + HEADING + TILE + CAPTION + HEADING
    height = rows_top + ROW * len(shown) + FOOT
    figure = blank_figure(width, height, dpi)
    sheet = Sheet(figure)
    sheet.heading("User" if user is None else str(user), MARGIN, line=False)
    older = len(history) - len(past)
    remark = f"latest last\n{older} older not shown" if older else "latest last"
    sheet.row("History", remark, past, MARGIN + HEADING)
    sheet.heading("Recommended", rows_top - HEADING, line=True)

    colours = source_colours(found.parts)
    middle = [rows_top + ROW * (i + 0.5) for i in range(len(shown))]
    for place, (tile, y) in enumerate(zip(tiles, middle, strict=True)):
        sheet.write(str(int(found.ranks["fused"][place])), MARGIN, y, size=10, va="center")
        left = MARGIN + PLACE
        sheet.picture(tile, left, y - SMALL_TILE / 2, SMALL_TILE)
        came = tile.frame is not None
        if came:
            sheet.write(
                "came next", left + SMALL_TILE + GAP, y - 0.3, size=7, weight="bold", color=HIT
            )
        sheet.title(tile, left + SMALL_TILE + GAP, y, TITLE, va="center")
        score = (
            f"{float(found.scores[place]):+.2f}"
            if above_average
            else f"{float(found.scores[place]):.2f}"
        )
        sheet.write(score, start + BARS + 0.12, y, size=9, weight="bold", va="center")
    top = rows_top - 0.06
    sheet.write("score", start + BARS + 0.12, top, size=7, color=FAINT, va="bottom")
    sheet.write(
        "place by this source alone", ranks_start, top - 0.15, size=7, color=FAINT, va="bottom"
    )
    for column, source in enumerate(found.parts):
        right = ranks_start + RANK * (column + 0.8)
        sheet.write(
            source.replace("_", "-"),
            right,
            top,
            size=7,
            weight="bold",
            color=colours[source],
            ha="right",
            va="bottom",
        )
        for place, y in enumerate(middle):
            rank = f"{int(found.ranks[source][place]):,}"
            sheet.write(rank, right, y, size=9, ha="right", va="center")

    axes = figure.add_axes((start / width, FOOT / height, BARS / width, ROW * len(shown) / height))
    _bars(axes, found, colours)
    axes.set_xlabel(
        "score above the average item, by source" if above_average else "score, by source",
        fontsize=8,
    )
    if path is not None:
        figure.savefig(user_path(path), dpi=dpi)
    return figure


def _bars(axes: Axes, found: Contributions, colours: Mapping[str, str]) -> None:
    """Draw one bar per row, positive contributions to the right of zero, negative to the left."""
    rows = len(found.scores)
    right, left = torch.zeros(rows), torch.zeros(rows)
    placed = []
    for source, part in found.parts.items():
        begin = torch.where(part >= 0, right, left)
        axes.barh(
            range(rows),
            part.tolist(),
            left=begin.tolist(),
            height=0.42,
            color=colours[source],
            edgecolor="white",
            linewidth=0.8,
            label=source,
        )
        placed += [(row, float(begin[row]), float(part[row])) for row in range(rows)]
        right, left = right + part.clamp(min=0), left + part.clamp(max=0)
    low, high = min(0.0, float(left.min())), max(0.0, float(right.max()))
    room = 0.05 * (high - low or 1.0)
    axes.set_xlim(low - room, high + room)
    axes.set_ylim(rows - 0.5, -0.5)
    inch = (high - low + 2 * room) / BARS
    for row, start, value in placed:
        if abs(value) > LEAST_LABELLED * inch:
            axes.text(
                start + value / 2,
                row,
                f"{value:+.2f}",
                ha="center",
                va="center",
                fontsize=7,
                color="white",
            )
    axes.vlines(
        found.scores.tolist(),
        [row - 0.33 for row in range(rows)],
        [row + 0.33 for row in range(rows)],
        color=INK,
        linewidth=2,
        zorder=3,
    )
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks([])
    axes.tick_params(labelsize=7, color=RULE)
    axes.grid(axis="x", color=RULE, linewidth=0.5)
    axes.set_axisbelow(True)
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(RULE)
