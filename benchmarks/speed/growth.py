"""Growth of the cost of a step with catalogue size, batch size, sequence length and tokens."""

import multiprocessing
import statistics
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # where this folder is a package

import torch

from speed.workload import (
    CONFIGURATIONS,
    Configuration,
    batch_of,
    build,
    make_step,
    peak_memory,
    seconds,
)

BASE = CONFIGURATIONS["small"]
DRAWN_ITEMS = 500  # distinct items per batch, whatever the size of the catalogue
AXES: dict[str, dict[int, Configuration]] = {
    "batch": {n: replace(BASE, batch=n) for n in (32, 128, 512, 1024)},
    "positions": {n: replace(BASE, positions=n) for n in (12, 50, 200)},
    "tokens": {
        n: replace(BASE, text_tokens=n * 3 // 8, image_tokens=n - n * 3 // 8) for n in (8, 80, 200)
    },
}
MEMORY: dict[str, dict[str, Any]] = {
    "plain": {"side": "plain"},
    "float32": {"side": "float32"},
    "float32 in chunks": {"settings": {"item_chunk_size": 64, "loss_chunk_size": 256}},
}


def growth(repeats: int, clock: str) -> dict[str, Any]:
    """Seconds per step along every axis, and memory along batch size and tokens."""
    found: dict[str, Any] = {"items": items(repeats, clock)}
    for axis, sizes in AXES.items():
        found[axis] = {}
        for value, size in sizes.items():
            batch = batch_of(size)
            step = make_step(build(size), batch)
            step()
            taken = [seconds(step, clock) for _ in range(repeats)]
            row = {"seconds": statistics.median(taken), "distinct items": len(batch.unique())}
            found[axis][value] = row
            print(f"  {axis} {value}: {row}", file=sys.stderr)
    found["memory MB"] = {
        axis: {value: memory(axis, value) for value in list(AXES[axis])[:3]}
        for axis in ("batch", "tokens")
    }
    return found


def memory(axis: str, value: int) -> dict[str, float]:
    """MB per step: plain, fast, and in chunks."""
    found = {name: alone(peak_memory, AXES[axis][value], **how) for name, how in MEMORY.items()}
    print(f"  memory, {axis} {value}: {found}", file=sys.stderr)
    return found


def items(repeats: int, clock: str) -> dict[int, dict[str, float]]:
    """Seconds per step at three catalogue sizes with the same batch, interleaved."""
    steps: dict[int, dict[str, Callable[[], float]]] = {}
    for number in (10_000, 100_000, 1_000_000):
        size = replace(BASE, num_items=number)
        batch = batch_of(size, items=DRAWN_ITEMS)
        steps[number] = {
            "dense": make_step(build(size), batch),
            "sparse": make_step(build(size, sparse_id_gradients=True), batch),
        }
    for by_kind in steps.values():
        for step in by_kind.values():
            step()
    taken: dict[tuple[int, str], list[float]] = {}
    for _ in range(repeats):
        for number, by_kind in steps.items():
            for kind, step in by_kind.items():
                taken.setdefault((number, kind), []).append(seconds(step, clock))
    found = {
        number: {kind: statistics.median(taken[number, kind]) for kind in by_kind}
        for number, by_kind in steps.items()
    }
    print(f"  items: {found}", file=sys.stderr)
    return found


def alone(function: Callable[..., float], *arguments: Any, **settings: Any) -> float:
    """Run a function in a new process, without any cached state, and return its result."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "transformers", "odmt_sdk.wrapper", "workload"])
    with context.Pool(1) as pool:
        return pool.apply(function, arguments, settings)


def slope_note(rows: dict[int, dict[str, float]]) -> str:
    """Describe the ratio of a step with the largest catalogue to one with the smallest."""
    small, large = min(rows), max(rows)
    return ", ".join(f"{kind} {rows[large][kind] / rows[small][kind]:.2f}" for kind in rows[small])


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(growth(3, "cpu"))
