"""Plot of the results of `speed.py`."""

from pathlib import Path
from typing import Any

BLUE, ORANGE, GREY, GREEN = "#2a6fbb", "#d9822b", "#888888", "#3a8f5c"


def draw(found: dict[str, Any], path: Path) -> None:
    """Plot speed-ups, memory, and the growth of the cost of a step.

    Args:
        found: content of the JSON file; parts that were not measured are omitted.
        path: path of the image file.
    """
    from matplotlib.figure import Figure

    configurations = [
        name for name, part in found.items() if isinstance(part, dict) and part.get("steps")
    ]
    grown = found.get("growth", {})
    panels = [(_speed, name) for name in configurations]
    panels += [(_growth, axis) for axis in ("items", "batch", "positions", "tokens") if grown]
    panels += [(_memory, axis) for axis in ("batch", "tokens") if grown]
    if not panels:
        return
    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(3.4 * columns, 2.9 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for (panel, name), axis in zip(panels, axes, strict=False):
        panel(axis, name, found)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    figure.savefig(path, dpi=150)


def _speed(axis: Any, name: str, found: dict[str, Any]) -> None:
    sides = {s: r for s, r in found[name]["steps"].items() if isinstance(r, dict)}
    ratios = [row["ratio"] for row in sides.values()]
    bars = axis.bar(list(sides), ratios, color=[GREY, BLUE, GREEN][: len(sides)])
    axis.bar_label(bars, fmt="%.1f")
    axis.set_title(f"{name}: steps, times as fast", fontsize=10)


def _growth(axis: Any, name: str, found: dict[str, Any]) -> None:
    rows = found["growth"][name]
    values = [int(value) for value in rows]
    kinds = {"sparse": BLUE, "dense": GREY} if name == "items" else {"seconds": BLUE}
    for kind, colour in kinds.items():
        taken = [row[kind] for row in rows.values()]
        axis.plot(values, taken, "o-", color=colour, label=kind)
    axis.set(xscale="log", yscale="log", xlabel=name)
    if name == "items":
        axis.legend(title="gradient of the table", fontsize=8, title_fontsize=8)
    axis.set_title(f"seconds of a step by {name}", fontsize=10)


def _memory(axis: Any, name: str, found: dict[str, Any]) -> None:
    rows = found["growth"]["memory MB"][name]
    values = [int(value) for value in rows]
    colours = {"plain": GREY, "float32": BLUE, "float32 in chunks": ORANGE}
    for side, colour in colours.items():
        axis.plot(values, [row[side] for row in rows.values()], "o-", color=colour, label=side)
    axis.set(xscale="log", yscale="log", xlabel=name)
    axis.legend(fontsize=8)
    axis.set_title(f"peak MB of a step by {name}", fontsize=10)
