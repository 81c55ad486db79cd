"""Tables of the transfer study."""

from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

from odmt_sdk.evaluation import markdown_table

METRIC = "ndcg@10"


def report(found: dict[str, Any]) -> str:
    """Format the results of `transfer.py` as tables.

    Args:
        found: "zero" -> dataset -> metrics without training; "cells" -> the training runs.

    Returns:
        The tables in Markdown.
    """
    return "\n\n".join(
        [
            "Without any training:",
            _untrained(found["zero"]),
            "Trained, by test targets (cold: fewer than 5 training interactions):",
            _trained(found["cells"]),
            "Steps to the best validation result of training from scratch:",
            _steps(found["cells"]),
        ]
    )


def steps_to(curve: Sequence[Sequence[float]], goal: float) -> float | None:
    """The first step at which a curve of (step, value) reaches a value; None if it never does."""
    return next((step for step, value in curve if value >= goal), None)


def mean_curve(curves: Sequence[Sequence[Sequence[float]]]) -> list[tuple[float, float]]:
    """The mean of several curves of (step, value) with the same steps."""
    return [
        (points[0][0], mean(value for _, value in points)) for points in zip(*curves, strict=True)
    ]


def _untrained(zero: dict[str, Any]) -> str:
    rows = [["data", "recommends", "hit_rate@10", METRIC, "over popularity, 95 %"]]
    for data, one in zero.items():
        for name, metrics in one["metrics"].items():
            over = one["over popularity"][name]
            shown = name + (f" (weight {one['prior']:g})" if name.endswith("popularity") else "")
            rows.append(
                [
                    data,
                    name if name == "popularity" else shown,
                    f"{metrics['all']['hit_rate@10']:.4f}",
                    f"{metrics['all'][METRIC]:.4f}",
                    "" if name == "popularity" else f"{over['low']:+.4f} to {over['high']:+.4f}",
                ]
            )
    return markdown_table(rows)


def _trained(cells: list[dict[str, Any]]) -> str:
    groups = ("all", "cold", "warm", "popular")
    rows = [["data", "trained on", "from", "seeds", *groups]]
    for data, share in _pairs(cells):
        by_start = {
            start: {
                group: [
                    cell["test"][group][METRIC]
                    for cell in _of(cells, data, share, start)
                    if group in cell["test"]
                ]
                for group in groups
            }
            for start in ("scratch", "adapter")
        }
        for start, values in by_start.items():
            seeds = len(values["all"])
            rows.append(
                [data, share, start, str(seeds), *(_spread(values[group]) for group in groups)]
            )
        gain = [
            f"{mean(by_start['adapter'][g]) / mean(by_start['scratch'][g]) - 1:+.0%}"
            if by_start["adapter"][g] and any(by_start["scratch"][g])
            else "-"
            for g in groups
        ]
        rows.append([data, share, "gain", "", *gain])
    return markdown_table(rows)


def _steps(cells: list[dict[str, Any]]) -> str:
    rows = [["data", "trained on", "seed", "scratch", "adapter", "share of the steps"]]
    for data, share in _pairs(cells):
        pairs = zip(
            _of(cells, data, share, "scratch"), _of(cells, data, share, "adapter"), strict=False
        )
        curves = {str(one["seed"]): (one["curve"], other["curve"]) for one, other in pairs}
        if len(curves) > 1:
            of_scratch, of_adapter = zip(*curves.values(), strict=True)
            curves["mean of all"] = (mean_curve(of_scratch), mean_curve(of_adapter))
        for seed, (scratch, adapter) in curves.items():
            goal = max(value for _, value in scratch)
            needed, reached = steps_to(scratch, goal), steps_to(adapter, goal)
            rows.append(
                [
                    data,
                    share,
                    seed,
                    f"{needed:g}",
                    "not reached" if reached is None else f"{reached:g}",
                    "" if reached is None or not needed else f"{reached / needed:.0%}",
                ]
            )
    return markdown_table(rows)


def _pairs(cells: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((cell["data"], cell["share"]) for cell in cells))


def _of(cells: list[dict[str, Any]], data: str, share: str, start: str) -> list[dict[str, Any]]:
    wanted = (data, share, start)
    return [cell for cell in cells if (cell["data"], cell["share"], cell["start"]) == wanted]


def _spread(values: list[float]) -> str:
    if not values:
        return "-"
    return f"{mean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")
