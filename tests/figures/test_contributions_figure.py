"""Contributions of sources to recommendations: the numbers and the figure."""

import numpy as np
import pytest
import torch
from figure_checks import check_readable, texts
from PIL import Image
from toys import toy_model

from odmt_sdk.figures.canvas import HIT
from odmt_sdk.figures.score_contributions import contributions, draw_contributions

HISTORY = ["item-3", "item-1", "item-4"]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return toy_model().eval()


def bars(figure):
    """Return source -> (left end, width) of its segment in each row."""
    return {
        container.get_label(): [(bar.get_x(), bar.get_width()) for bar in container]
        for container in figure.axes[1].containers
    }


def test_the_sources_shares_add_up_to_the_recommended_scores(model):
    found = model.recommend([HISTORY], k=5)
    split = contributions(model, HISTORY, found.item_ids[0])
    assert set(split.parts) == {"id", "text", "image"}
    total = torch.stack(list(split.parts.values())).sum(0)
    torch.testing.assert_close(total, torch.tensor(found.scores[0]))
    torch.testing.assert_close(split.scores, total)
    assert split.ranks["fused"].tolist() == [1, 2, 3, 4, 5]


def test_a_share_is_an_inner_product_of_the_source_alone(model):
    split = contributions(model, HISTORY, ["item-7"])
    rows = torch.tensor([model.vocabulary.rows(HISTORY)])
    user, items = model.encode_sequences(rows), model.encode_catalogue()
    for source, part in split.parts.items():
        expected = (user[source][0] * items[source][8]).sum() / 3  # row 8 is item-7
        torch.testing.assert_close(part[0], expected)


def test_weights_of_sources_scale_the_shares(model):
    weights = {"id": 0.0, "text": 3.0}
    found = model.recommend([HISTORY], k=5, source_weights=weights)
    split = contributions(model, HISTORY, found.item_ids[0], source_weights=weights)
    plain = contributions(model, HISTORY, found.item_ids[0])
    torch.testing.assert_close(split.scores, torch.tensor(found.scores[0]))
    assert split.ranks["fused"].tolist() == [1, 2, 3, 4, 5]
    assert not split.parts["id"].any()
    torch.testing.assert_close(split.parts["text"], plain.parts["text"] * 3 * 3 / 4)
    torch.testing.assert_close(split.parts["image"], plain.parts["image"] * 3 / 4)
    assert torch.equal(split.ranks["id"], plain.ranks["id"])


def test_above_average_takes_the_catalogues_mean_away_and_keeps_the_order(model):
    everything = [f"item-{i}" for i in range(12)]
    plain = contributions(model, HISTORY, everything)
    above = contributions(model, HISTORY, everything, above_average=True)
    for source, part in above.parts.items():
        torch.testing.assert_close(part, plain.parts[source] - plain.parts[source].mean())
    torch.testing.assert_close(above.scores, plain.scores - plain.scores.mean())
    assert all(torch.equal(above.ranks[name], ranks) for name, ranks in plain.ranks.items())


def test_the_place_by_one_source_is_that_of_ranking_by_it_alone(model):
    everything = [f"item-{i}" for i in range(12)]
    new = [item for item in everything if item not in HISTORY]
    split = contributions(model, HISTORY, new)
    for source, part in split.parts.items():
        order = part.argsort(descending=True).argsort() + 1
        assert split.ranks[source].tolist() == order.tolist()


def test_long_histories_are_cut_and_training_mode_is_kept(model):
    long = [f"item-{i % 12}" for i in range(70)]
    model.train()
    cut = contributions(model, long, ["item-7"])
    assert model.training
    model.eval()
    torch.testing.assert_close(
        cut.scores, contributions(model, long[-model.max_seq_length :], ["item-7"]).scores
    )


def test_bars_show_the_shares_and_end_at_the_score(model):
    figure = draw_contributions(model, HISTORY, k=3)
    found = model.recommend([HISTORY], k=3)
    split = contributions(model, HISTORY, found.item_ids[0], above_average=True)
    shown = bars(figure)
    for source, part in split.parts.items():
        assert [width for _, width in shown[source]] == pytest.approx(part.tolist())
    for row in range(3):
        parts = [shown[source][row] for source in model.sources]
        right = [(x, w) for x, w in parts if w > 0]
        left = [(x, w) for x, w in parts if w < 0]
        assert max((x + w for x, w in right), default=0) + min(
            (x + w for x, w in left), default=0
        ) == pytest.approx(float(split.scores[row]), abs=1e-6)
        assert sorted(x for x, _ in right)[:1] in ([], [0.0])
    assert [f"{float(score):+.2f}" for score in split.scores] == [
        text for text in texts(figure) if text in {f"{float(s):+.2f}" for s in split.scores}
    ][:3]


def test_scores_as_recommended_are_shown_on_demand(model):
    figure = draw_contributions(model, HISTORY, k=2, above_average=False)
    scores = model.recommend([HISTORY], k=2).scores[0]
    assert {f"{score:.2f}" for score in scores} <= set(texts(figure))
    assert figure.axes[1].get_xlabel() == "score, by source"


def test_what_came_next_is_framed_or_gets_a_row_of_its_own(model):
    order = model.recommend([HISTORY], k=9).item_ids[0]
    found = draw_contributions(model, HISTORY, k=3, next_item=order[1])
    missed = draw_contributions(model, HISTORY, k=3, next_item=order[6])
    assert len(bars(found)["id"]), len(bars(missed)["id"]) == (3, 4)
    for figure, place in ((found, "2"), (missed, "7")):
        assert texts(figure).count("came next") == 1
        assert place in texts(figure)
        edges = [patch.get_edgecolor() for patch in figure.axes[0].patches if not patch.get_fill()]
        assert len(edges) == 1
        assert edges[0][:3] == tuple(int(HIT[i : i + 2], 16) / 255 for i in (1, 3, 5))


def test_titles_pictures_and_the_user_are_shown_readably(model, tmp_path):
    titles = {f"item-{i}": f"A rather long title of a $5 film, part {i}" for i in range(12)}
    images = {f"item-{i}": Image.new("RGB", (30, 45), (200, 30, 30)) for i in range(6)}
    figure = draw_contributions(
        model,
        HISTORY * 4,
        k=8,
        next_item="item-3",
        titles=titles,
        images=images,
        user="Ann",
        path=tmp_path / "figure.png",
        dpi=60,
    )
    check_readable(figure)
    assert "Ann" in texts(figure)
    assert "latest last\n6 older not shown" in texts(figure)
    assert (tmp_path / "figure.png").stat().st_size > 1000
    assert np.asarray(Image.open(tmp_path / "figure.png")).std() > 10


def test_a_model_of_one_source_has_one_bar():
    figure = draw_contributions(toy_model(fusion="id"), HISTORY, k=2)
    assert list(bars(figure)) == ["id"]
    check_readable(figure)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"history": []}, "history 0 is empty"),
        ({"history": ["film-9"]}, "history 0: .*film-9"),
        ({"k": 0}, "k=0 must be at least 1"),
        ({"max_history": 0}, "max_history=0 must be at least 1"),
        ({"next_item": "film-9"}, "film-9"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        draw_contributions(model, **{"history": HISTORY, **arguments})


def test_a_model_without_items_is_refused(model):
    from odmt_sdk import ODMTWrapper, SASRec

    with pytest.raises(ValueError, match="this model has no items yet"):
        contributions(ODMTWrapper(SASRec(8)), HISTORY, ["item-1"])
    with pytest.raises(ValueError, match="the history is empty"):
        contributions(model, [], ["item-1"])
