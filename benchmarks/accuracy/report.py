"""Report of the comparison: JSON, Markdown tables and figures."""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from accuracy.methods import Method, Setting, setting_name
from accuracy.presets import Published
from accuracy.significance import METRICS, gains, mean_and_deviation, paired_bootstrap
from odmt_sdk.evaluation import markdown_table

DECIDING = ("hit_rate@10", "ndcg@10")
GROUPS = ("cold", "warm", "popular")


@dataclass(frozen=True)
class Row:
    """Results of a method on a dataset with a backbone, over seeds."""

    data: str
    backbone: str
    method: Method
    setting: Setting
    cells: tuple[Path, ...]
    commands: tuple[str, ...]
    trained: tuple[dict[str, Any], ...]
    tested: tuple[dict[str, Any], ...]
    tuning: Mapping[str, float]

    def values(self, metric: str, group: str = "all") -> list[float]:
        """A test metric for every seed; empty if the group has no users."""
        found = (tested["metrics"].get(group) for tested in self.tested)
        return [metrics[metric] for metrics in found if metrics is not None]

    def gains(self, metric: str) -> torch.Tensor:
        """Gain of every user (Q,), averaged over seeds."""
        ranks = [load_file(cell / "test.safetensors")["fused"] for cell in self.cells]
        return torch.stack([gains(r, metric) for r in ranks]).mean(0)


def write_report(
    rows: Sequence[Row],
    budget: Mapping[str, Any],
    output: Path,
    counted: Mapping[str, Mapping[str, Mapping[str, Any]]],
    published: Sequence[Published] = (),
) -> str:
    """Write `results.json`, `results.md` and `figures/`.

    Args:
        rows: all methods for all datasets and backbones.
        budget: the training budget and how it was used.
        output: the output folder.
        counted: dataset -> baseline -> metrics of all targets and of groups of targets.
        published: results that others report on these datasets.

    Returns:
        The report in Markdown.
    """
    parts = ["# Accuracy\n"]
    results = []
    for (data, backbone), group in itertools.groupby(rows, key=lambda r: (r.data, r.backbone)):
        compared = list(group)
        verdicts = {metric: _verdicts(compared, metric) for metric in DECIDING}
        results.append(_as_json(data, backbone, compared, verdicts))
        results[-1]["counted"] = counted[data]
        parts.append(_section(data, backbone, compared, verdicts, counted[data], published))
        draw_bars(compared, output / "figures" / f"{data}-{backbone}-bars.png")
        draw_curves(compared, output / "figures" / f"{data}-{backbone}-curves.png")
    draw_overview(rows, output / "figures" / "overview.png")
    parts.append(
        "Budget: "
        + "; ".join(f"{name} {value}" for name, value in budget.items())
        + ". Device: "
        + ", ".join(sorted({t["device"] for row in rows for t in row.trained}))
        + ".\n"
    )
    text = "\n".join(parts)
    (output / "results.md").write_text(text)
    report = {"budget": dict(budget), "results": results}
    (output / "results.json").write_text(json.dumps(report, indent=1) + "\n")
    return text


def _verdicts(rows: Sequence[Row], metric: str) -> dict[str, dict[str, Any]]:
    """Compare the first method with each other one, by name; the best alternative is marked."""
    first, *others = rows
    own = first.gains(metric)
    found: dict[str, dict[str, Any]] = {}
    for row in others:
        theirs = row.gains(metric)
        found[row.method.name] = {
            "relative": float(own.mean() / theirs.mean() - 1) if theirs.any() else None,
            **paired_bootstrap(own, theirs),
        }
    alternatives = [row for row in others if row.method.is_alternative]
    if alternatives:
        best = max(alternatives, key=lambda row: mean_and_deviation(row.values(metric))[0])
        found[best.method.name]["best alternative"] = True
    return found


def _section(
    data: str,
    backbone: str,
    rows: Sequence[Row],
    verdicts: Mapping[str, Mapping[str, Mapping[str, Any]]],
    counted: Mapping[str, Mapping[str, Any]],
    published: Sequence[Published],
) -> str:
    header = ["method", *METRICS, *(f"{group} hit_rate@10" for group in GROUPS)]
    header += ["coverage@10", "popularity@10", "setting"]
    table = [header]
    for row in rows:
        numbers = [row.values(metric) for metric in METRICS]
        numbers += [row.values("hit_rate@10", group) for group in GROUPS]
        numbers += [[t["lists"][name] for t in row.tested] for name in ("coverage", "popularity")]
        table.append([row.method.name, *map(_shown, numbers), setting_name(row.setting)])
    for name, metrics in counted.items():
        numbers = [[metrics["all"][metric]] for metric in METRICS]
        numbers += [[metrics[g]["hit_rate@10"]] if g in metrics else [] for g in GROUPS]
        table.append([name, *map(_shown, numbers), "-", "-", "counts"])
    for model, *values, source in published:
        known = dict(zip(DECIDING, values, strict=True))
        numbers = [[known[metric]] if metric in known else [] for metric in METRICS]
        table.append([model, *map(_shown, numbers), *["-"] * (len(GROUPS) + 2), source])
    users = {name: found["users"] for name, found in rows[0].tested[0]["metrics"].items()}
    lines = [f"## {data}, {backbone}\n", markdown_table(table), ""]
    lines.append(f"Users: {', '.join(f'{name} {count}' for name, count in users.items())}.\n")
    for metric, against in verdicts.items():
        for name, verdict in against.items():
            if verdict.get("best alternative"):
                relative = verdict["relative"]
                lines.append(
                    f"{metric}: {rows[0].method.name} against the best alternative, {name}: "
                    + ("" if relative is None else f"{relative:+.1%}, ")
                    + f"difference {verdict['difference']:+.4f} (95 % {verdict['low']:+.4f} to "
                    f"{verdict['high']:+.4f}), p = {verdict['p']:.4f}.\n"
                )
    lines.append("To repeat a cell:\n")
    lines.append("```bash")
    lines += [text for row in rows for text in row.commands]
    lines.append("```\n")
    return "\n".join(lines)


def _shown(values: list[float]) -> str:
    if not values:
        return "-"
    mean, deviation = mean_and_deviation(values)
    return f"{mean:.4f}" + (f" ± {deviation:.4f}" if len(values) > 1 else "")


def _as_json(
    data: str, backbone: str, rows: Sequence[Row], verdicts: Mapping[str, Any]
) -> dict[str, Any]:
    methods = {}
    for row in rows:
        of_row: dict[str, Any] = {
            "settings": row.trained[0]["settings"],
            "tuning": dict(row.tuning),
            "chosen": dict(row.setting),
            "parameters": row.trained[0]["parameters"],
            "best_epochs": [trained["best_epoch"] for trained in row.trained],
            "seconds": [trained["seconds"] for trained in row.trained],
            "test": list(row.tested),
            "commands": list(row.commands),
        }
        for metric in METRICS:
            of_row[metric] = mean_and_deviation(row.values(metric))
        methods[row.method.name] = of_row
    return {"data": data, "backbone": backbone, "methods": methods, "comparison": dict(verdicts)}


def draw_bars(rows: Sequence[Row], path: Path) -> None:
    """Plot test metrics of every method, with the standard deviation over seeds."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, len(DECIDING), figsize=(5 * len(DECIDING), 0.4 * len(rows) + 1.5)
    )
    names = [row.method.name for row in rows]
    for axis, metric in zip(axes, DECIDING, strict=True):
        means, deviations = zip(*(mean_and_deviation(r.values(metric)) for r in rows), strict=True)
        colours = ["tab:blue", *["tab:gray"] * (len(rows) - 1)]
        axis.barh(names, means, xerr=deviations, color=colours, capsize=3)
        axis.invert_yaxis()
        axis.locator_params(axis="x", nbins=5)
        axis.set_title(f"{rows[0].data}, {rows[0].backbone}: {metric}", fontsize=9)
    _save(figure, path)


def draw_overview(rows: Sequence[Row], path: Path) -> None:
    """Plot the main metrics of every method, by dataset and backbone."""
    import matplotlib.pyplot as plt

    studies = list(dict.fromkeys((row.data, row.backbone) for row in rows))
    methods = list(dict.fromkeys(row.method.name for row in rows))
    width = 0.8 / len(methods)
    figure, axes = plt.subplots(
        len(DECIDING), 1, figsize=(1.5 * len(studies) + 2.5, 5.5), sharex=True
    )
    for axis, metric in zip(axes, DECIDING, strict=True):
        for number, method in enumerate(methods):
            found = [row for row in rows if row.method.name == method]
            places = [studies.index((row.data, row.backbone)) + number * width for row in found]
            means, deviations = zip(
                *(mean_and_deviation(row.values(metric)) for row in found), strict=True
            )
            colour = "tab:blue" if number == 0 else str(0.3 + 0.5 * number / len(methods))
            axis.bar(places, means, width, yerr=deviations, color=colour, label=method)
        axis.set_ylabel(metric)
    axes[-1].set_xticks(
        [place + 0.4 - width / 2 for place in range(len(studies))],
        [f"{data}\n{backbone}" for data, backbone in studies],
        fontsize=8,
    )
    above = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "frameon": False}
    axes[0].legend(fontsize=8, ncols=len(methods), **above)
    _save(figure, path)


def draw_curves(rows: Sequence[Row], path: Path) -> None:
    """Plot validation by epoch for the first seed: all methods, and the first method's sources."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), sharey=True)
    for row in rows:
        epochs = row.trained[0]["epochs"]
        left.plot(
            [e["epoch"] for e in epochs], [e["ndcg@10"] for e in epochs], label=row.method.name
        )
    epochs = rows[0].trained[0]["epochs"]
    for name in [key for key in epochs[0] if key.endswith("ndcg@10")]:
        label = name.rpartition("/")[0] or "fused"
        right.plot([e["epoch"] for e in epochs], [e[name] for e in epochs], label=label)
    left.set_title(f"{rows[0].data}, {rows[0].backbone}", fontsize=9)
    right.set_title(f"sources of {rows[0].method.name}", fontsize=9)
    for axis in (left, right):
        axis.set_xlabel("epoch")
        axis.legend(fontsize=7)
    left.set_ylabel("validation ndcg@10")
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    import matplotlib.pyplot as plt

    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
