"""The item map: its mathematics compared with slow references, and its content."""

import numpy as np
import pytest
import torch
from figure_checks import check_readable, texts
from matplotlib.patches import Rectangle
from PIL import Image
from toys import toy_model

from odmt_sdk.figures.canvas import FAINT
from odmt_sdk.figures.colouring import OTHER, UNKNOWN, colour_by
from odmt_sdk.figures.item_map import draw_item_map, neighbours_alike, principal_plane

KINDS = {f"item-{i}": ("mug", "bowl", "lamp")[i % 3] for i in range(12)}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return toy_model().eval()


def points(axes):
    return np.asarray(axes.collections[0].get_offsets())


def test_the_plane_equals_that_of_the_singular_value_decomposition():
    embeddings = torch.randn(30, 5) * torch.tensor([1.0, 4.0, 0.1, 2.0, 1.0]) + 3
    plane = principal_plane(embeddings)
    centred = embeddings - embeddings.mean(0)
    _, values, axes = torch.linalg.svd(centred, full_matrices=False)
    for place in range(2):
        expected = centred @ axes[place]
        sign = torch.sign(expected @ plane.points[:, place])
        torch.testing.assert_close(plane.points[:, place], sign * expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(plane.kept, values[:2].square() / values.square().sum())


def test_the_plane_is_the_same_in_every_run_and_survives_equal_items():
    embeddings = torch.randn(10, 4)
    assert torch.equal(principal_plane(embeddings).points, principal_plane(embeddings).points)
    same = principal_plane(torch.ones(5, 3))
    assert not same.points.any()
    assert not same.kept.any()


def test_neighbours_equal_a_slow_twin_and_do_not_depend_on_length():
    embeddings = torch.randn(700, 3)  # more than are compared at a time
    labels = [i % 4 for i in range(700)]
    same = 0
    for i in range(700):
        cosine = torch.cosine_similarity(embeddings[i], embeddings, dim=1)
        cosine[i] = -2
        same += labels[i] == labels[int(cosine.argmax())]
    assert neighbours_alike(embeddings, labels) == pytest.approx(same / 700, abs=0.005)
    longer = embeddings * torch.rand(700, 1).add(0.5)
    assert neighbours_alike(longer, labels) == pytest.approx(same / 700, abs=0.005)


def test_twins_of_a_kind_are_found():
    base = torch.randn(6, 8)
    assert neighbours_alike(torch.cat([base, base]), list("abcdef") * 2) == 1.0


def test_every_source_has_a_map_of_its_own_embeddings(model):
    figure = draw_item_map(model)
    panels = figure.axes
    assert [axes.get_title(loc="left") for axes in panels] == ["id", "text", "image"]
    for axes, source in zip(panels, model.sources, strict=True):
        expected = principal_plane(model.encode_catalogue()[source][1:].detach()).points
        np.testing.assert_allclose(points(axes), expected, rtol=1e-4, atol=1e-6)
    assert "nearest" not in " ".join(texts(figure))


def test_kinds_have_colours_a_legend_and_a_measure(model):
    figure = draw_item_map(model, labels=KINDS, label_name="kind")
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sorted(legend) == ["bowl", "lamp", "mug"]
    colours = figure.axes[0].collections[0].get_facecolors()
    assert len(np.unique(colours.round(3), axis=0)) == 3
    assert (colours[0] == colours[3]).all()
    alike = neighbours_alike(model.encode_catalogue()["id"][1:], list(KINDS.values()))
    remark = texts(figure)[0]
    assert f"nearest item of the same kind: {100 * alike:.0f} %" in remark
    assert "by chance 27 %" in remark  # 3 of 11 others


def test_numbers_have_a_scale(model):
    figure = draw_item_map(model, labels={f"item-{i}": 2**i for i in range(12)}, label_name="sales")
    assert figure.axes[-1].get_ylabel() == "sales"
    assert figure.axes[-1].get_yscale() == "log"
    figure = draw_item_map(model, labels={f"item-{i}": i - 3 for i in range(12)})
    assert figure.axes[-1].get_yscale() == "linear"


def test_items_without_a_label_are_grey(model):
    figure = draw_item_map(model, labels={"item-0": "mug", "item-1": "mug"})
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["mug", "none"]


def test_many_kinds_are_summed_up_and_long_names_cut(model):
    found = colour_by(["common", "common", *(f"kind {i}" for i in range(12)), None])
    assert next(iter(found.kinds)) == "common"
    assert list(found.kinds)[-2:] == ["4 others", "none"]
    assert (found.colours[-1], found.colours[-2]) == (UNKNOWN, OTHER)
    figure = draw_item_map(model, labels=dict.fromkeys(KINDS, "a very long name of a genre"))
    assert figure.legends[0].get_texts()[0].get_text() == "a very long name …"


def test_numbers_and_words_together_are_refused(model):
    with pytest.raises(TypeError, match="some labels are numbers and some are not"):
        draw_item_map(model, labels={"item-0": 1, "item-1": "one"})


def test_pictures_do_not_overlap_and_stay_inside(model, tmp_path):
    images = {item: Image.new("RGB", (30, 20 + i), (200, 30, 30)) for i, item in enumerate(KINDS)}
    figure = draw_item_map(model, labels=KINDS, images=images, path=tmp_path / "map.png", dpi=60)
    assert (tmp_path / "map.png").stat().st_size > 1000
    for axes in figure.axes:
        left, right, low, high = axes.axis()
        boxes = [image.get_extent() for image in axes.images]
        assert len(boxes) >= 2
        assert len([p for p in axes.patches if isinstance(p, Rectangle)]) == len(boxes)
        for i, (a, b, c, d) in enumerate(boxes):
            assert left <= a < b <= right
            assert low <= c < d <= high
            for e, f, g, h in boxes[i + 1 :]:
                assert b <= e or f <= a or d <= g or h <= c
    assert len(draw_item_map(model, images=images, max_thumbnails=1).axes[0].images) == 1


@pytest.mark.parametrize("labels", [None, KINDS, {f"item-{i}": 2.0**i for i in range(12)}])
def test_text_is_readable(model, labels):
    check_readable(draw_item_map(model, labels=labels, label_name="category"))


def test_a_large_catalogue_is_sampled_the_same_way_every_time(model):
    one, two = (draw_item_map(model, max_items=5) for _ in range(2))
    assert len(points(one.axes[0])) == 5
    assert (points(one.axes[0]) == points(two.axes[0])).all()
    other = draw_item_map(model, max_items=5, seed=1)
    assert not np.array_equal(points(one.axes[0]), points(other.axes[0]))


def test_numbers_out_of_range_and_models_without_items_are_refused(model):
    from odmt_sdk import ODMTWrapper, SASRec

    with pytest.raises(ValueError, match="max_items=2 must be at least 3"):
        draw_item_map(model, max_items=2)
    with pytest.raises(ValueError, match="max_thumbnails=-1 at least 0"):
        draw_item_map(model, max_thumbnails=-1)
    with pytest.raises(ValueError, match="a map needs at least three items"):
        draw_item_map(ODMTWrapper(SASRec(8)))


def test_remarks_are_faint(model):
    figure = draw_item_map(model)
    assert {text.get_color() for axes in figure.axes for text in axes.texts} == {FAINT}
