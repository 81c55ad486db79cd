"""Draws the images of the toy shop: a small product photo per item.

Everything is drawn with integer coordinates on a canvas of 256 x 256 pixels and then resized, so an
item looks the same at every size.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

Colour = tuple[int, int, int]

_CANVAS = 256
_OUTLINE = 5
_CREAM: Colour = (252, 246, 234)

COLOURS: dict[str, Colour] = {
    "red": (198, 58, 54),
    "orange": (232, 134, 48),
    "yellow": (232, 196, 62),
    "green": (84, 146, 84),
    "teal": (64, 166, 168),
    "blue": (62, 96, 178),
    "purple": (128, 82, 158),
    "pink": (228, 138, 168),
}
"""Main colour of an item, as (red, green, blue)."""

PATTERNS: tuple[str, ...] = ("plain", "stripes", "dots", "checks", "zigzag")
"""Pattern printed on an item, in cream."""

# A part of a shape: layer, figure, coordinates, and corner radius or stroke width, in percent of
# the canvas. A "body" has the pattern, a "trim" is a darker shade of the colour, a "face" is cream.
_Part = tuple[str, str, tuple[int, ...], int]

SHAPES: dict[str, tuple[_Part, ...]] = {
    "mug": (
        ("trim", "ring", (56, 36, 88, 70), 7),
        ("body", "rounded", (20, 24, 70, 82), 9),
    ),
    "teapot": (
        ("trim", "polygon", (60, 62, 90, 34, 96, 38, 70, 78), 0),
        ("trim", "ring", (4, 40, 36, 74), 6),
        ("trim", "ellipse", (43, 19, 57, 33), 0),
        ("body", "ellipse", (18, 30, 80, 86), 0),
    ),
    "bowl": (
        ("body", "chord", (8, 0, 92, 84), 0),
        ("trim", "rounded", (34, 80, 66, 89), 4),
        ("trim", "rounded", (6, 38, 94, 46), 4),
    ),
    "vase": (
        ("body", "rounded", (40, 12, 60, 46), 3),
        ("body", "ellipse", (22, 34, 78, 90), 0),
        ("trim", "rounded", (34, 9, 66, 16), 3),
    ),
    "lamp": (
        ("trim", "rounded", (46, 50, 54, 86), 2),
        ("trim", "rounded", (28, 82, 72, 91), 4),
        ("body", "polygon", (34, 10, 66, 10, 86, 56, 14, 56), 0),
    ),
    "cushion": (
        ("trim", "polygon", (6, 14, 50, 22, 94, 14, 86, 52, 94, 90, 50, 82, 6, 90, 14, 52), 0),
        ("body", "rounded", (14, 21, 86, 83), 16),
    ),
    "clock": (
        ("body", "ellipse", (9, 9, 91, 91), 0),
        ("face", "ellipse", (29, 29, 71, 71), 0),
        ("trim", "rounded", (48, 33, 52, 52), 1),
        ("trim", "rounded", (48, 48, 65, 52), 1),
    ),
    "shirt": (
        (
            "body",
            "polygon",
            (36, 14, 64, 14, 96, 34, 84, 52, 74, 44, 74, 88, 26, 88, 26, 44, 16, 52, 4, 34),
            0,
        ),
        ("trim", "chord", (37, 3, 63, 25), 0),
    ),
    "bag": (
        ("trim", "ring", (32, 8, 68, 62), 5),
        ("body", "polygon", (16, 36, 84, 36, 90, 90, 10, 90), 0),
    ),
    "hat": (
        ("body", "rounded", (27, 22, 73, 72), 18),
        ("body", "ellipse", (4, 58, 96, 84), 0),
        ("trim", "rounded", (27, 53, 73, 63), 2),
    ),
}
"""Parts of the silhouette of every category."""


def draw_item(category: str, colour: str, pattern: str, *, image_size: int, rng: Random) -> Image:
    """Draw one item as a square product photo.

    Size, position, mirroring and background colour vary at random and carry no information.

    Args:
        category: one of `SHAPES`.
        colour: one of `COLOURS`.
        pattern: one of `PATTERNS`.
        image_size: side length of the image in pixels.
        rng: random generator of these variations; advanced by six draws.

    Returns:
        An RGB image of `image_size` x `image_size` pixels.
    """
    from PIL import Image, ImageDraw, ImageOps

    wall = 226 + int(rng.random() * 22)
    warmth = int(rng.random() * 15) - 7
    percent = 80 + int(rng.random() * 19)
    left = _CANVAS * (100 - percent) // 200 + int(rng.random() * 17) - 8
    top = _CANVAS * (100 - percent) // 200 + int(rng.random() * 17) - 8
    mirrored = rng.random() < 0.5

    picture = Image.new("RGB", (_CANVAS, _CANVAS), (wall + warmth, wall, wall - warmth))
    pen = ImageDraw.Draw(picture)
    shadow = (wall + warmth - 26, wall - 26, wall - warmth - 26)
    pen.ellipse(_place((12, 82, 88, 97), left, top, percent), fill=shadow)
    main = COLOURS[colour]
    dark = (main[0] * 58 // 100, main[1] * 58 // 100, main[2] * 58 // 100)
    print_ = _printed(pattern, main)
    for layer, figure, coordinates, extra in SHAPES[category]:
        place = _place(coordinates, left, top, percent)
        width = _CANVAS * extra * percent // 10000
        if layer == "body":
            mask = Image.new("L", (_CANVAS, _CANVAS), 0)
            _draw_figure(pen, figure, place, width, dark, dark)
            _draw_figure(ImageDraw.Draw(mask), figure, place, width, 255, 0)
            picture.paste(print_, (0, 0), mask)
        else:
            _draw_figure(pen, figure, place, width, _CREAM if layer == "face" else dark, dark)
    if mirrored:
        picture = ImageOps.mirror(picture)
    return picture.resize((image_size, image_size), Image.Resampling.LANCZOS)


def _place(coordinates: tuple[int, ...], left: int, top: int, percent: int) -> list[int]:
    """Convert coordinates from percent of the item to pixels; x and y alternate."""
    offsets = (left, top)
    return [
        offsets[i % 2] + value * _CANVAS * percent // 10000 for i, value in enumerate(coordinates)
    ]


def _draw_figure(
    pen: Any, figure: str, place: list[int], width: int, fill: Any, outline: Any
) -> None:
    """Draw a filled figure; on a mask the outline is 0, so the pattern does not cover the rim."""
    if figure == "rounded":
        pen.rounded_rectangle(place, radius=width, fill=fill, outline=outline, width=_OUTLINE)
    elif figure == "ellipse":
        pen.ellipse(place, fill=fill, outline=outline, width=_OUTLINE)
    elif figure == "chord":
        pen.chord(place, 0, 180, fill=fill, outline=outline, width=_OUTLINE)
    elif figure == "ring":
        pen.ellipse(place, outline=outline, width=width)
    else:
        pen.polygon(place, fill=fill)
        pen.line([*place, *place[:4]], fill=outline, width=_OUTLINE, joint="curve")


def _printed(pattern: str, main: Colour) -> Image:
    """Return a canvas in the main colour with the pattern in cream."""
    from PIL import Image, ImageDraw

    fabric = Image.new("RGB", (_CANVAS, _CANVAS), main)
    pen = ImageDraw.Draw(fabric)
    step = 36
    if pattern == "stripes":
        for x in range(0, _CANVAS, step):
            pen.rectangle((x, 0, x + 15, _CANVAS), fill=_CREAM)
    elif pattern == "dots":
        for row, y in enumerate(range(0, _CANVAS, step)):
            for x in range(-step // 2 * (row % 2), _CANVAS, step):
                pen.ellipse((x, y, x + 19, y + 19), fill=_CREAM)
    elif pattern == "checks":
        half = 26
        for row, y in enumerate(range(0, _CANVAS, half)):
            for x in range(half * (row % 2), _CANVAS, 2 * half):
                pen.rectangle((x, y, x + half - 1, y + half - 1), fill=_CREAM)
    elif pattern == "zigzag":
        for y in range(-step, _CANVAS + step, step):
            points = [(x, y + 22 * (i % 2)) for i, x in enumerate(range(0, _CANVAS + 24, 22))]
            pen.line(points, fill=_CREAM, width=12, joint="curve")
    return fabric
