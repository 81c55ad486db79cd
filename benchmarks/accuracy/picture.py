"""Ours, counts and published numbers on one data set, as a picture and as a table.

    python benchmarks/accuracy/run.py picture instruments --output docs/images/instruments.png
    python benchmarks/accuracy/run.py picture ml-1m-50 --output docs/images/ml-1m.png

Our numbers and those of the counts are in `measured/`, the published ones in `presets.py`.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from accuracy.presets import PUBLISHED
from odmt_sdk.evaluation import markdown_table

MEASURED = Path(__file__).with_name("measured")
METRICS = ("hit_rate@10", "ndcg@10")
COLOURS = {"ours": "tab:blue", "published": "darkgray", "counts": "tab:orange"}
LABELS = {"ours": "measured here", "published": "published", "counts": "counts, no training"}


@dataclass(frozen=True)
class Result:
    """One model on the data set.

    Args:
        model: its name.
        kind: "ours", "counts" or "published".
        values: hit_rate@10 and ndcg@10, on test.
        source: where the numbers come from, or how they were measured.
    """

    model: str
    kind: str
    values: tuple[float, float]
    source: str


def results(data: str) -> tuple[str, list[Result]]:
    """Title of a data set of `presets.py`, and all models on it, the highest ndcg@10 first."""
    measured = json.loads((MEASURED / f"{data}.json").read_text())
    found = [
        Result(model, "published", (hit, ndcg), source)
        for model, hit, ndcg, source in PUBLISHED[data]
    ]
    for kind in ("ours", "counts"):
        for row in measured[kind]:
            seeds = {None: "", 1: "; one seed"}.get(row.get("seeds"), f"; {row.get('seeds')} seeds")
            values = row["hit_rate@10"], row["ndcg@10"]
            found.append(Result(row["model"], kind, values, row["measured"] + seeds))
    return measured["title"], sorted(found, key=lambda result: -result.values[1])


def table(found: Sequence[Result]) -> str:
    """The results as Markdown."""
    rows = [["model", *METRICS, "source"]]
    for result in found:
        name = f"**{result.model}**" if result.kind == "ours" else result.model
        rows.append([name, *(f"{value:.4f}" for value in result.values), result.source])
    return markdown_table(rows)


def draw(found: Sequence[Result], title: str, path: Path) -> None:
    """Draw a bar for every model.

    Args:
        found: the results, the best first.
        title: name of the data set.
        path: of the picture; its ending chooses the format.
    """
    import matplotlib.pyplot as plt
    from matplotlib.patches import Patch

    figure, axes = plt.subplots(1, 2, figsize=(10, 0.3 * len(found) + 1.3), sharey=True)
    for place, (axis, metric) in enumerate(zip(axes, METRICS, strict=True)):
        values = [result.values[place] for result in found]
        colours = [COLOURS[result.kind] for result in found]
        bars = axis.barh([result.model for result in found], values, color=colours)
        axis.bar_label(bars, fmt="%.4f", fontsize=8, padding=2)
        axis.set_title(f"{title}, test {metric}", fontsize=10)
        axis.set_xlim(0, max(values) * 1.14)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=9)
        axis.locator_params(axis="x", nbins=5)
        axis.margins(y=0.01)
    axes[0].invert_yaxis()
    patches = [Patch(color=COLOURS[kind], label=label) for kind, label in LABELS.items()]
    figure.legend(
        handles=patches, loc="lower center", ncols=len(patches), frameon=False, fontsize=9
    )
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(words: Sequence[str]) -> None:
    """Draw the picture and print the table."""
    parser = argparse.ArgumentParser("picture", description=__doc__)
    known = sorted(path.stem for path in MEASURED.glob("*.json"))
    parser.add_argument("data", choices=known, help="data set")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args(words)
    title, found = results(given.data)
    draw(found, title, given.output)
    print(table(found))
