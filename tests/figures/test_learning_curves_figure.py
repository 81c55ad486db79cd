"""The learning curves show what the trainer logged."""

from dataclasses import dataclass

import pytest
from figure_checks import canvas

from odmt_sdk.figures.canvas import source_colours
from odmt_sdk.figures.learning_curves import draw_learning_curves


def log(epochs=4, distillation_weight=0.5):
    history = []
    for epoch in range(1, epochs + 1):
        history.append(
            {
                "epoch": epoch,
                "loss": 9.0 - epoch,
                **{f"cross_entropy/{s}": 5.0 / epoch for s in ("id", "text")},
                **{f"distillation/{s}": 2.0 + epoch for s in ("text", "id")},
                "distillation_weight": distillation_weight,
            }
        )
        quality = 0.1 * (epoch if epoch < 4 else 2)
        history.append(
            {
                "epoch": epoch,
                "eval_ndcg@10": quality,
                "eval_id/ndcg@10": quality / 2,
                "eval_text/ndcg@10": quality / 4,
                "eval_hit_rate@5": 2 * quality,
            }
        )
    return [*history, {"epoch": epochs, "train_runtime": 3.0, "test_ndcg@10": 0.9}]


def curves(axes):
    """Return label -> points."""
    lines = axes.get_legend_handles_labels()
    return {
        label: list(zip(*line.get_data(), strict=True)) for line, label in zip(*lines, strict=True)
    }


def test_three_panels_hold_what_was_logged():
    figure = draw_learning_curves(log())
    validation, losses, taught = figure.axes
    shown = curves(validation)
    assert [e for e, _ in shown["fused"]] == [1, 2, 3, 4]
    assert [v for _, v in shown["fused"]] == pytest.approx([0.1, 0.2, 0.3, 0.2])
    assert [v for _, v in shown["text"]] == pytest.approx([0.025, 0.05, 0.075, 0.05])
    assert shown["best 0.300, epoch 3"] == [(3, pytest.approx(0.3))]
    assert curves(losses) == {s: [(e, 5.0 / e) for e in (1, 2, 3, 4)] for s in ("id", "text")}
    assert list(curves(taught)) == ["text", "id"]
    assert curves(taught)["id"][0] == (1, 3.0)
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "Validation ndcg@10",
        "Cross entropy, training",
        "Distillation, training",
    ]


def test_a_source_has_one_colour_in_all_panels():
    figure = draw_learning_curves(log())
    colours = [{line.get_label(): line.get_color() for line in axes.lines} for axes in figure.axes]
    assert colours[0]["id"] == colours[1]["id"] == colours[2]["id"]
    assert colours[0]["text"] == colours[2]["text"] != colours[0]["id"]


def test_colours_follow_the_order_of_the_model():
    entry = {f"cross_entropy/{source}": 5.0 for source in ("id", "image", "text")}
    metrics = {f"eval_{source}ndcg@10": 0.1 for source in ("", "id/", "text/", "image/")}
    figure = draw_learning_curves([{"epoch": 1, **entry}, {"epoch": 1, **metrics}])
    lines = figure.axes[1].get_lines()
    drawn = {line.get_label(): line.get_color() for line in lines}
    assert drawn == source_colours(("id", "text", "image"))


def test_distillation_that_never_counts_is_left_out():
    assert len(draw_learning_curves(log(distillation_weight=0.0)).axes) == 2


def test_another_metric_without_sources_of_its_own():
    figure = draw_learning_curves(log(), metric="hit_rate@5")
    assert list(curves(figure.axes[0])) == ["fused", "best 0.600, epoch 3"]


def test_a_result_with_a_history_is_as_good_as_its_log(tmp_path):
    @dataclass
    class Result:
        history: list

    path = tmp_path / "curves.svg"
    figure = draw_learning_curves(Result(log()), path=path)
    assert curves(figure.axes[0]) == curves(draw_learning_curves(log()).axes[0])
    assert path.stat().st_size > 1000


def test_one_epoch_can_be_drawn():
    assert canvas(draw_learning_curves(log(epochs=1))).std() > 5


def test_a_metric_that_was_not_logged_is_refused():
    with pytest.raises(ValueError, match=r"no validation metric 'mrr@3'; it has .*'ndcg@10'"):
        draw_learning_curves(log(), metric="mrr@3")
    with pytest.raises(ValueError, match=r"no validation metric 'ndcg@10'; it has \[\]"):
        draw_learning_curves([])
