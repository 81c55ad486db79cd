"""How the cost of a step grows: with the catalogue, the batch, the sequences and the tokens."""

import multiprocessing
import statistics
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from workload import CONFIGURATIONS, Configuration, batch_of, build, make_step, peak_memory, seconds

BASE = CONFIGURATIONS["small"]
DRAWN_ITEMS = 500  # different items of a batch, however large the catalogue
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
    """Seconds of a step along every axis, and memory along batch and tokens."""
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
    """MB of a step, plain, fast, and in chunks."""
    found = {name: alone(peak_memory, AXES[axis][value], **how) for name, how in MEMORY.items()}
    print(f"  memory, {axis} {value}: {found}", file=sys.stderr)
    return found


def items(repeats: int, clock: str) -> dict[int, dict[str, float]]:
    """Seconds of a step at three sizes of the catalogue, the same batch in all; interleaved."""
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
    """What a function returns in a process of its own, which starts with nothing computed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "transformers", "odmt_sdk.wrapper", "workload"])
    with context.Pool(1) as pool:
        return pool.apply(function, arguments, settings)


def slope_note(rows: dict[int, dict[str, float]]) -> str:
    """How a step at the largest catalogue compares with one at the smallest."""
    small, large = min(rows), max(rows)
    return ", ".join(f"{kind} {rows[large][kind] / rows[small][kind]:.2f}" for kind in rows[small])


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(growth(3, "cpu"))
