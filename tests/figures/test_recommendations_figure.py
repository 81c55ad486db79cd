"""The recommendations figure: its content, and that it changes no global state."""

import io
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.patches import Rectangle
from PIL import Image

from odmt_sdk.figures.canvas import HIT
from odmt_sdk.figures.recommendations import draw_recommendations
from odmt_sdk.figures.tiles import TILE

RED, BLUE = (200, 30, 30), (30, 30, 200)


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts if text.get_text()]


def frames(figure):
    """Return line style and position in inches of every green frame."""
    return [
        (patch.get_linestyle(), patch.get_xy())
        for patch in figure.axes[0].patches
        if isinstance(patch, Rectangle) and not patch.get_fill()
    ]


def canvas(figure):
    """Return the rendered figure (height, width, RGB)."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3]


def middle(figure, left, top):
    """Return the colour in the middle of the tile with its corner at (left, top) inches."""
    seen = canvas(figure)
    return tuple(seen[round((top + TILE / 2) * figure.dpi), round((left + TILE / 2) * figure.dpi)])


def corners(figure):
    """Return the positions of all tiles in inches, in drawing order."""
    return [patch.get_xy() for patch in figure.axes[0].patches if patch.get_fill()]


def test_users_items_titles_and_scores_are_there():
    figure = draw_recommendations(
        [["a", "b"], ["c"]],
        [["c", "d"], ["a", "b"]],
        scores=[[0.5, 0.25], [1234.5, 0.001]],
        titles={"a": "Nordic mug", "b": "Teapot"},
        users=["ann", 7],
    )
    shown = texts(figure)
    assert {"ann", "7", "1   0.500", "2   0.250", "2   0.00100"} <= set(shown)
    assert shown.count("Nordic mug") == 2
    assert shown.count("c") == 2  # an item without a title shows its id
    assert len(corners(figure)) == 7


def test_the_order_is_history_then_recommendations_from_left_to_right():
    figure = draw_recommendations([[1, 2]], [[3, 4, 5]], titles={i: f"item {i}" for i in range(6)})
    titles = [text for text in texts(figure) if text.startswith("item")]
    assert titles == [f"item {i}" for i in (1, 2, 3, 4, 5)]
    tiles = corners(figure)
    assert [x for x, _ in tiles] == sorted(x for x, _ in tiles[2:])[:2] + [x for x, _ in tiles[2:]]
    assert tiles[0][1] == tiles[1][1] < tiles[2][1] == tiles[3][1] == tiles[4][1]


def test_users_are_numbered_without_names():
    assert {"User 1", "User 2"} <= set(texts(draw_recommendations([[1], [2]], [[3], [4]])))


def test_the_item_that_came_next_is_framed_where_it_was_found():
    figure = draw_recommendations([[1, 2]], [[3, 4, 5]], scores=[[3, 2, 1]], next_items=[4])
    (dashed, bought), (solid, found) = frames(figure)
    assert (dashed, solid) == ("--", "-")
    assert bought == corners(figure)[2]  # after the two items of the history
    assert found == corners(figure)[4]
    assert texts(figure).count("came next") == 1
    assert "2   2.00   hit" in texts(figure)


def test_the_item_that_came_next_is_shown_even_if_it_was_missed():
    figure = draw_recommendations([[1], [1]], [[3], [3]], next_items=[4, None])
    assert [style for style, _ in frames(figure)] == ["--"]
    assert texts(figure).count("4") == 1


def test_an_item_whose_id_is_zero_can_come_next():
    figure = draw_recommendations([[1]], [[0, 2]], next_items=[0])
    assert [style for style, _ in frames(figure)] == ["--", "-"]


def test_only_the_latest_of_a_long_history_are_shown():
    figure = draw_recommendations([range(100, 120)], [[1]], max_history=3)
    shown = texts(figure)
    assert [text for text in shown if text.isdigit() and int(text) >= 100] == ["117", "118", "119"]
    assert "latest last\n17 older not shown" in shown


def as_file(picture, tmp_path):
    picture.save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


def as_bytes(picture, tmp_path):
    held = io.BytesIO()
    picture.save(held, format="PNG")
    return held.getvalue()


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(as_file, id="path"),
        pytest.param(lambda picture, tmp_path: str(as_file(picture, tmp_path)), id="str"),
        pytest.param(as_bytes, id="bytes"),
        pytest.param(lambda picture, _: picture, id="PIL"),
        pytest.param(lambda picture, _: picture.quantize(4), id="palette"),
        pytest.param(lambda picture, _: picture.convert("RGBA"), id="alpha"),
        pytest.param(lambda picture, _: picture.resize((90, 900)), id="tall"),
        pytest.param(lambda picture, _: picture.resize((3000, 1000)), id="large"),
    ],
)
def test_pictures_of_every_kind_are_drawn_in_their_tiles(given, tmp_path):
    red = given(Image.new("RGB", (40, 40), RED), tmp_path)
    blue = Image.new("RGB", (40, 40), BLUE)
    figure = draw_recommendations([["r"]], [["b", "r"]], images={"r": red, "b": blue})
    history, first, second = corners(figure)
    for place, colour in ((history, RED), (first, BLUE), (second, RED)):
        assert np.abs(np.subtract(middle(figure, *place), colour, dtype=float)).max() < 12
    assert "no picture" not in texts(figure)


def test_a_picture_keeps_its_proportions():
    wide = Image.new("RGB", (200, 100), RED)
    figure = draw_recommendations([["w"]], [[]], images={"w": wide})
    reddish = np.abs(canvas(figure).astype(float) - RED).max(-1) < 12
    rows, columns = reddish.any(1).sum(), reddish.any(0).sum()
    assert columns / figure.dpi == pytest.approx(TILE, abs=0.03)
    assert rows / figure.dpi == pytest.approx(TILE / 2, abs=0.03)


def test_the_given_picture_is_not_changed():
    picture = Image.new("RGB", (1000, 500), RED)
    draw_recommendations([["a"]], [["a"]], images={"a": picture})
    assert picture.size == (1000, 500)


@pytest.mark.parametrize("picture", [None, float("nan"), "", b"", b"no picture", "not/there.jpg"])
def test_missing_and_broken_pictures_are_grey_tiles(picture):
    figure = draw_recommendations([["a"]], [["b"]], images={"a": picture})
    assert texts(figure).count("no picture") == 2
    red, green, blue = (int(v) for v in canvas(figure)[tuple(inside(figure))])
    assert max(red, green, blue) - min(red, green, blue) < 5
    assert red < 250


def inside(figure):
    """Return a pixel of the first tile, away from its text."""
    left, top = corners(figure)[0]
    return round((top + 0.1) * figure.dpi), round((left + 0.1) * figure.dpi)


def test_captions_stay_below_their_tile_and_inside_the_figure():
    long = "Wonderful handmade Scandinavian stoneware teapot for two in seasonal wrapping " * 2
    words = {1: long, 2: "W" * 80, 3: "Two\nlines", 4: "cost $5 or $6", 5: "mm " * 40}
    figure = draw_recommendations(
        [[1, 2, 3]], [[4, 5, 1]], scores=[[1, 2, 3]], next_items=[5], titles=words
    )
    canvas(figure)
    renderer = figure.canvas.get_renderer()
    boxes = [t.get_window_extent(renderer) for t in figure.axes[0].texts if t.get_text()]
    whole = figure.bbox
    for box in boxes:
        assert whole.x0 <= box.x0
        assert box.x1 <= whole.x1
        assert whole.y0 <= box.y0
        assert box.y1 <= whole.y1
    for i, one in enumerate(boxes):
        for other in boxes[i + 1 :]:
            assert not one.overlaps(other)
    shown = texts(figure)
    assert "cost $5 or $6" in shown
    assert "Two lines" in shown
    assert max(text.count("\n") for text in shown) == 2
    assert sum(text.endswith(" …") for text in shown) == 5  # three items, two of them twice


@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
def test_the_picture_is_saved_and_the_figure_returned(tmp_path, ending):
    path = tmp_path / f"picture.{ending}"
    figure = draw_recommendations([[1]], [[2, 3]], path=path, dpi=50)
    assert path.stat().st_size > 1000
    if ending == "png":
        width, height = figure.get_size_inches()
        assert Image.open(path).size == (int(width * 50), int(height * 50))


def test_a_user_without_history_or_recommendations_is_drawn():
    assert len(corners(draw_recommendations([[], [1]], [[2], []]))) == 2
    assert corners(draw_recommendations([[]], [[]])) == []


def test_pyplot_is_not_used():
    code = (
        "import sys, odmt_sdk.figures.recommendations as r\n"
        "assert 'matplotlib' not in sys.modules\n"
        "r.draw_recommendations([[1]], [[2]])\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install odmt-sdk\[figures\]"):
        draw_recommendations([[1]], [[2]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"histories": []}, "there is no user to draw: histories is empty"),
        ({"recommendations": [[1], [2]]}, "recommendations has 2 entries for 1 histories"),
        ({"next_items": []}, "next_items has 0 entries for 1 histories"),
        ({"users": ["a", "b"]}, "users has 2 entries for 1 histories"),
        ({"scores": []}, "scores has 0 entries for 1 histories"),
        ({"scores": [[0.1]]}, "user 0 has 1 scores for 2 recommendations"),
        ({"max_history": 0}, "max_history=0 must be at least 1"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        draw_recommendations(**{"histories": [[1]], "recommendations": [[2, 3]], **arguments})


def test_a_picture_of_another_kind_is_refused():
    with pytest.raises(TypeError, match="a picture of type ndarray cannot be drawn"):
        draw_recommendations([[1]], [[2]], images={1: np.zeros((4, 4, 3))})


def test_the_frame_has_the_colour_of_its_caption():
    figure = draw_recommendations([[1]], [[2]], next_items=[2])
    noted = [t for t in figure.axes[0].texts if t.get_text() in ("came next", "1   hit")]
    assert [text.get_color() for text in noted] == [HIT, HIT]
