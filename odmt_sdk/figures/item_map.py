"""Draws a map of the item embeddings of each source.

Letters: N items, D hidden size.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from odmt_sdk.features.extractor import is_missing
from odmt_sdk.figures.canvas import FAINT, RULE, blank_figure
from odmt_sdk.figures.colouring import colour_by, draw_legend
from odmt_sdk.figures.tiles import read_picture
from odmt_sdk.paths import user_path
from odmt_sdk.scoring_model import ScoringModel

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


PANEL, HEAD, FOOT, MARGIN = 4.0, 0.78, 0.4, 0.3  # inches
THUMBNAIL = 0.36
LEGEND = 1.45
NEIGHBOUR_ROWS = 512  # items compared with all others at a time


class Projection(NamedTuple):
    """Embeddings projected to a plane.

    Args:
        points: (N, 2) coordinates.
        kept: (2,) fraction of the variance explained by each axis.
    """

    points: torch.Tensor
    kept: torch.Tensor


def principal_plane(embeddings: torch.Tensor) -> Projection:
    """Project embeddings to their first two principal components.

    Args:
        embeddings: (N, D) with D of at least 2.

    Returns:
        Points and explained variance. The sign of each axis is fixed by its largest component, so
        equal embeddings always give the same map.
    """
    centred = embeddings.double() - embeddings.double().mean(0)
    values, axes = torch.linalg.eigh(centred.T @ centred)  # ascending
    plane = axes[:, -2:].flip(1)  # (D, 2)
    largest = plane.abs().argmax(0)
    plane = plane * plane[largest, torch.arange(2)].sign()
    total = values.clamp(min=0).sum().clamp(min=1e-300)
    return Projection((centred @ plane).float(), (values[-2:].flip(0).clamp(min=0) / total).float())


def neighbours_alike(embeddings: torch.Tensor, labels: Sequence[object]) -> float:
    """Return how often an item's nearest neighbour has the same label.

    Args:
        embeddings: (N, D), compared by cosine similarity in all D dimensions.
        labels: N labels.

    Returns:
        A fraction in 0..1.
    """
    codes = {label: code for code, label in enumerate(dict.fromkeys(labels))}
    kinds = torch.tensor([codes[label] for label in labels])
    unit = torch.nn.functional.normalize(embeddings.float(), dim=1)
    same = 0
    for start in range(0, len(unit), NEIGHBOUR_ROWS):
        rows = torch.arange(start, min(start + NEIGHBOUR_ROWS, len(unit)))
        similar = unit[rows] @ unit.T
        similar[torch.arange(len(rows)), rows] = -torch.inf
        same += int((kinds[similar.argmax(1)] == kinds[rows]).sum())
    return same / len(unit)


@torch.no_grad()
def draw_item_map(
    model: ScoringModel,
    *,
    labels: Mapping[Any, Any] | None = None,
    label_name: str = "label",
    images: Mapping[Any, Any] | None = None,
    max_thumbnails: int = 40,
    max_items: int = 3000,
    seed: int = 0,
    path: str | os.PathLike[str] | None = None,
    dpi: int = 110,
) -> Figure:
    """Draw the item embeddings of each source as a map of points.

    Each map shows the first two principal components of a source's embeddings, and its heading
    gives their explained variance. Labels colour the points. For categories, such as genres, the
    heading also says how often an item's nearest neighbour (in all dimensions) has the same
    category, and how often that happens by chance. Numbers, such as popularity, use a continuous
    colour scale.

    Args:
        model: an `ODMTWrapper`.
        labels: item id -> category or number; items without a label are grey.
        label_name: title of the legend.
        images: item id -> image, as for `draw_recommendations`. As many as fit without overlap
            replace their points.
        max_thumbnails: maximum number of images per map.
        max_items: maximum number of items to draw; items of larger catalogues are sampled.
        seed: seed for the choice of items and images.
        path: file to save the figure to; the suffix determines the format (.png, .pdf, .svg).
        dpi: pixels per inch of a saved bitmap.

    Returns:
        The figure, independent of pyplot and its global state.

    Raises:
        ValueError: if the model has fewer than three items, or a number is out of range.
        TypeError: if labels mix numbers with other types, or an image is of another type.
        ImportError: if matplotlib is not installed (`pip install odmt-sdk[figures]`).

    Examples:
        >>> figure = draw_item_map(model, labels=genres, label_name="genre")   # doctest: +SKIP
    """
    if model.vocabulary is None or len(model.vocabulary) < 3:
        raise ValueError("a map needs at least three items, which this model does not have")
    if max_items < 3 or max_thumbnails < 0:
        raise ValueError(
            f"max_items={max_items} must be at least 3, max_thumbnails={max_thumbnails} at least 0"
        )
    catalogue = model.encode_catalogue()
    generator = torch.Generator().manual_seed(seed)
    chosen = (
        torch.randperm(len(model.vocabulary), generator=generator)[:max_items].sort().values + 1
    )
    order = torch.randperm(len(chosen), generator=generator)
    ids = model.vocabulary.ids(chosen.tolist())
    values = [None if labels is None else _label(labels, item) for item in ids]
    colouring = colour_by(values)
    sources = model.sources
    legend = LEGEND if labels else 0.0
    width = MARGIN + len(sources) * (PANEL + MARGIN) + legend
    height = HEAD + PANEL + FOOT
    figure = blank_figure(width, height, dpi)
    for place, source in enumerate(sources):
        embeddings = catalogue[source][chosen.to(catalogue[source].device)].cpu()  # (N, D)
        plane = principal_plane(embeddings)
        axes = figure.add_axes(
            (
                (MARGIN + place * (PANEL + MARGIN)) / width,
                FOOT / height,
                PANEL / width,
                PANEL / height,
            )
        )
        _scatter(axes, plane, colouring.colours)
        first, second = (100 * float(share) for share in plane.kept)
        remark = f"{first + second:.0f} % of the variance"
        if colouring.kinds:
            labelled = [i for i, value in enumerate(values) if value is not None]
            kinds = [values[i] for i in labelled]
            alike = neighbours_alike(embeddings[labelled], kinds)
            remark += (
                f"\nnearest item of the same {label_name}: {100 * alike:.0f} %"
                f", by chance {100 * _by_chance(kinds):.0f} %"
            )
        axes.set_title(source, fontsize=11, weight="bold", loc="left", pad=30)
        style: dict[str, Any] = {"color": FAINT, "parse_math": False, "transform": axes.transAxes}
        axes.text(0, 1.015, remark, fontsize=7.5, va="bottom", **style)
        axes.set_xlabel(f"first component, {first:.0f} %", fontsize=7, color=FAINT)
        axes.set_ylabel(f"second component, {second:.0f} %", fontsize=7, color=FAINT, labelpad=2)
        if images:
            _thumbnails(axes, plane.points, ids, images, order, colouring.colours, max_thumbnails)
    if legend:
        corner = ((width - legend) / width, FOOT / height, legend / width, PANEL / height)
        draw_legend(figure, colouring, label_name, corner)
    if path is not None:
        figure.savefig(user_path(path), dpi=dpi)
    return figure


def _label(labels: Mapping[Any, Any], item: Hashable) -> Any:
    value = labels.get(item)
    return None if is_missing(value) else value


def _by_chance(kinds: Sequence[object]) -> float:
    """Return how often a random other item has the same category."""
    counts = torch.tensor([kinds.count(kind) for kind in set(kinds)], dtype=torch.double)
    total = counts.sum()
    return float((counts * (counts - 1)).sum() / (total * (total - 1)).clamp(min=1))


def _scatter(axes: Axes, plane: Projection, colours: Sequence[Any]) -> None:
    points = plane.points
    size = 26 if len(points) <= 500 else 9
    axes.scatter(
        points[:, 0].numpy(),
        points[:, 1].numpy(),
        s=size,
        c=colours,
        alpha=0.8,
        linewidths=0,
    )
    low, high = points.min(0).values, points.max(0).values
    half = 0.54 * (float((high - low).max()) or 1.0)  # equal scale on both axes
    middle = ((low + high) / 2).tolist()
    axes.set_xlim(middle[0] - half, middle[0] + half)
    axes.set_ylim(middle[1] - half, middle[1] + half)
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_color(RULE)


def _thumbnails(
    axes: Axes,
    points: torch.Tensor,
    ids: Sequence[Hashable],
    images: Mapping[Any, Any],
    order: torch.Tensor,
    colours: Sequence[Any],
    most: int,
) -> None:
    """Show images at the positions of items, in random order, if they do not overlap."""
    from matplotlib.patches import Rectangle

    limits = axes.axis()
    side = THUMBNAIL / PANEL * (limits[1] - limits[0])
    shown: list[tuple[float, float]] = []
    for place in order.tolist():
        if len(shown) == most:
            break
        x, y = points[place].tolist()
        inside = all(
            low + side / 2 <= at <= high - side / 2
            for at, low, high in ((x, *limits[:2]), (y, *limits[2:]))
        )
        free = all(max(abs(x - a), abs(y - b)) > 1.12 * side for a, b in shown)
        if not inside or not free:
            continue
        picture = read_picture(images.get(ids[place]))
        if picture is None:
            continue
        picture.thumbnail((96, 96))
        scale = side / max(picture.size)
        width, height = picture.width * scale, picture.height * scale
        corner = (x - width / 2, y - height / 2)
        axes.imshow(
            picture,
            extent=(corner[0], corner[0] + width, corner[1], corner[1] + height),
            aspect="auto",
            zorder=2,
        )
        frame = {"fill": False, "edgecolor": colours[place], "linewidth": 1.4, "zorder": 3}
        axes.add_patch(Rectangle(corner, width, height, **frame))
        shown.append((x, y))
    axes.axis(limits)
