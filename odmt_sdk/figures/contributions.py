"""What each source adds to the score of what is recommended.

Letters: N items, D hidden size, K recommended items. Lengths are in inches, counted from the top
left corner of the figure.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

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

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from odmt_sdk.outputs import Recommendations
    from odmt_sdk.vocabulary import ItemVocabulary

ROW, SMALL_TILE = 0.86, 0.72
PLACE, TITLE, BARS, SCORE, RANK = 0.42, 1.75, 3.9, 0.75, 0.62  # widths of the columns
RANKS_HEADING = 1.5
FOOT = 0.62
LEAST_LABELLED = 0.36  # a bar as wide as this has room for its number


class ScoringModel(Protocol):
    """What the figure asks of a model; `ODMTWrapper` is such."""

    max_seq_length: int
    vocabulary: ItemVocabulary | None

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""

    @property
    def training(self) -> bool:
        """Whether it is in training mode."""

    def train(self, mode: bool = True) -> object:
        """Set training mode."""

    def recommend(self, histories: Sequence[Sequence[Hashable]], k: int = 10) -> Recommendations:
        """The best items of each history."""

    def encode_catalogue(self) -> dict[str, torch.Tensor]:
        """Source -> (N + 1, D)."""

    def encode_sequences(
        self,
        item_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        item_embeddings: Mapping[str, torch.Tensor] | None = None,
    ) -> dict[str, torch.Tensor]:
        """Rows (B, L) to source -> (B, D)."""


class Contributions(NamedTuple):
    """Scores of some items for one history, taken apart.

    Args:
        parts: source -> (K,) its share of the fused score; the sources' shares add up to it.
        scores: (K,) fused scores.
        ranks: source -> (K,) the place of the item among those not in the history if this source
            recommended alone, 1 = first; "fused" for all together.
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
) -> Contributions:
    """Take the scores of some items for one history apart by source.

    Args:
        model: an `ODMTWrapper`.
        history: item ids, oldest first.
        item_ids: the K items.
        above_average: from every source's share, subtract its mean over the catalogue. What a
            source gives to all items alike cannot move one above another.

    Returns:
        Shares, scores and ranks.

    Raises:
        ValueError: if an item is unknown, or the history is empty.
    """
    if model.vocabulary is None:
        raise ValueError("this model has no items yet: give it item_features= or call set_items")
    seen = torch.tensor(model.vocabulary.rows(history), device=model.device)
    wanted = torch.tensor(model.vocabulary.rows(item_ids), device=model.device)
    if not len(seen):
        raise ValueError("the history is empty: give at least one item")
    training = model.training
    model.train(False)
    try:
        items = model.encode_catalogue()
        user = model.encode_sequences(seen[None, -model.max_seq_length :], item_embeddings=items)
    finally:
        model.train(training)
    by_source = {  # (N,) each
        source: items[source][1:].float() @ user[source][0].float() / len(model.sources)
        for source in model.sources
    }
    fused = torch.stack(list(by_source.values())).sum(0)
    ranks = {}
    for name, scores in {"fused": fused, **by_source}.items():
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
    """Draw what each source adds to the scores of the items recommended after one history.

    One row per recommended item: its picture and title, a bar with one part per source, the fused
    score at the end of it, and the place that every source alone would give the item. Parts that
    speak for the item stand to the right of zero, those against it to the left.

    Args:
        model: an `ODMTWrapper`.
        history: item ids, oldest first.
        k: how many recommended items are shown.
        next_item: the item that truly came next: framed in green where it was recommended, in a row
            of its own below where it was not.
        above_average: show how far above the average item of the catalogue each source lifts an
            item, which is what decides between items. False shows the scores as they are returned
            by `recommend`.
        titles: item id -> title; items without one show their id.
        images: item id -> picture, as for `draw_recommendations`.
        user: the name in the heading.
        max_history: how many of the latest items of the history are shown, at least 1.
        path: where to save the figure; the ending decides the format (.png, .pdf, .svg).
        dpi: pixels per inch of a saved picture.

    Returns:
        The figure, which belongs to no window and no global state of matplotlib.

    Raises:
        ValueError: if the history is empty or holds an unknown item, or a number is out of range.
        TypeError: if a picture is none.
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

    start = MARGIN + PLACE + SMALL_TILE + GAP + TITLE + GAP  # where the bars begin
    ranks_start = start + BARS + SCORE
    width = max(
        ranks_start + max(RANK * len(model.sources), RANKS_HEADING) + MARGIN,
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

    colours = source_colours(model.sources)
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
    for column, source in enumerate(model.sources):
        right = ranks_start + RANK * (column + 0.8)
        sheet.write(
            source,
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
        figure.savefig(path, dpi=dpi)
    return figure


def _bars(axes: Axes, found: Contributions, colours: Mapping[str, str]) -> None:
    """One bar a row: what speaks for the item to the right of zero, what against it to the left."""
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
