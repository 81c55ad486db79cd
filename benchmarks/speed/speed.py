"""Speed and memory compared with the plain implementation, and growth of the cost.

    python benchmarks/speed/speed.py                              # everything
    python benchmarks/speed/speed.py --parts steps --config small --pairs 5
    python benchmarks/speed/speed.py --threads 1 --clock cpu      # on a machine that others use too

Both sides of every ratio do the same work: the weights, batch and loss are the same (the loss is
compared before timing). They alternate in one run, so that noise affects both. A step is a forward
pass, a backward pass, clipping and AdamW. Memory is the peak of a step in a new process, minus
weights, gradients and optimizer states. The plain evaluation loops over users; it is measured on a
few users and extrapolated. Results are printed as tables, and written to a JSON file and a plot.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # where this folder is a package

import numpy as np
import torch

from odmt_sdk import ODMTConfig, ODMTWrapper, SASRec
from odmt_sdk.data import RankingDataset
from odmt_sdk.evaluation import rank_targets
from speed.growth import alone, growth, slope_note
from speed.plain import PlainODMT
from speed.plot import draw
from speed.workload import (
    CLOCKS,
    CONFIGURATIONS,
    DTYPES,
    Configuration,
    batch_of,
    build,
    make_step,
    peak_memory,
    seconds,
)

PARTS = ("steps", "memory", "evaluation", "recommend", "growth")


def paired(functions: dict[str, Callable[[], Any]], pairs: int, clock: str) -> dict[str, Any]:
    """Seconds per function, and the speed-up of each over the first one."""
    taken: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(pairs):
        for name, function in functions.items():
            taken[name].append(seconds(function, clock))
            print(f"  {name}: {taken[name][-1]:.3f} s", file=sys.stderr, flush=True)
    baseline = taken[next(iter(functions))]
    found = {}
    for name, values in taken.items():
        ratios = sorted(a / b for a, b in zip(baseline, values, strict=True))
        found[name] = {
            "seconds": statistics.median(values),
            "ratio": statistics.median(ratios),
            "least": ratios[0],
            "most": ratios[-1],
        }
    return found


def compare_steps(size: Configuration, pairs: int, clock: str) -> dict[str, Any]:
    """Seconds per step of the plain model in float32 and of the wrapper in every dtype."""
    batch = batch_of(size)
    wrapper = build(size)
    steps = {"plain": make_step(PlainODMT.like(wrapper), batch)}
    for name, dtype in DTYPES.items():
        steps[name] = make_step(build(size), batch, dtype)
    first = {name: step() for name, step in steps.items()}  # warm-up, before any update
    if abs(first["float32"] / first["plain"] - 1) > 1e-4:
        raise RuntimeError(f"the two sides compute different losses: {first}")
    found = paired(steps, pairs, clock)
    found["distinct items"] = len(batch.unique())
    found["slots"] = batch.numel()
    return found


def compare_memory(size: Configuration) -> dict[str, float]:
    """MB per step of every side, and of the wrapper in chunks."""
    chunks = {"item_chunk_size": 32, "loss_chunk_size": 128}
    return {
        "plain": alone(peak_memory, size, "plain"),
        **{name: alone(peak_memory, size, name) for name in DTYPES},
        "float32 in chunks": alone(peak_memory, size, "float32", chunks),
    }


def compare_evaluation(
    num_users: int, num_items: int, plain_users: int, clock: str
) -> dict[str, float]:
    """Compare ranking of users over a catalogue that is already encoded; D = 64."""
    size = Configuration(64, 1, 1, 12, 1, num_items, 8)
    model = build(size).eval()
    random = np.random.default_rng(0)
    histories = random.integers(1, num_items + 1, (num_users, size.positions + 1))
    dataset = RankingDataset(
        histories[:, :-1].reshape(-1),
        np.arange(num_users + 1) * size.positions,
        histories[:, -1],
        user_ids=range(num_users),
        max_seq_length=size.positions,
    )
    twin = PlainODMT.like(model)
    items = {source: x.clone() for source, x in model.encode_catalogue().items()}
    twin.encode = lambda ids: {source: x[ids] for source, x in items.items()}
    queries = [dataset[user] for user in range(plain_users)]
    now = CLOCKS[clock]
    start = now()
    ranks = twin.rank(
        [query["item_ids"] for query in queries],
        [query["target_ids"] for query in queries],
        [query["seen_ids"] for query in queries],
    )
    plain = (now() - start) * num_users / plain_users
    start = now()
    fast_ranks = rank_targets(model, dataset, per_source=False, progress=False)["fused"]
    fast = now() - start
    differing = sum(a != b for a, b in zip(ranks, fast_ranks.tolist(), strict=False))
    if differing > 0.01 * plain_users:  # rounding may swap items with nearly equal scores
        raise RuntimeError(f"{differing} of {plain_users} ranks differ")
    return {"plain seconds": plain, "seconds": fast, "ratio": plain / fast}


def compare_recommend(num_items: int, users: int, pairs: int, clock: str) -> dict[str, Any]:
    """Compare `recommend` with a bare matrix product and topk; width 192, as 3 x 64."""
    model = ODMTWrapper(
        SASRec(192, max_seq_length=12),
        config=ODMTConfig(fusion="id"),
        vocabulary=range(1, num_items + 1),
        check=False,
    ).eval()
    histories = torch.randint(1, num_items + 1, (users, 12)).tolist()
    items = model.encode_catalogue()["id"]
    queries = model.encode_sequences(torch.tensor(histories))["id"]

    @torch.no_grad()
    def bare() -> None:
        (queries @ items.T).topk(10)

    functions = {"matmul and topk": bare, "recommend": lambda: model.recommend(histories, k=10)}
    for function in functions.values():
        function()
    return paired(functions, pairs, clock)


def print_table(header: list[str], rows: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    print()
    for index, row in enumerate([header, *rows]):
        cells = [cell.ljust(w) if i == 0 else cell.rjust(w)
                 for i, (cell, w) in enumerate(zip(row, widths, strict=True))]  # fmt: skip
        print(f"| {' | '.join(cells)} |")
        if index == 0:
            print("|" + "|".join("-" * (w + 1) + ("-" if i == 0 else ":")
                                 for i, w in enumerate(widths)) + "|")  # fmt: skip


def report(found: dict[str, Any]) -> None:
    """Print the results as tables."""
    for name in [name for name in CONFIGURATIONS if name in found]:
        part = found[name]
        steps, memory = part.get("steps", {}), part.get("memory MB", {})
        rows = []
        for side in ("plain", *DTYPES, "float32 in chunks"):
            row = steps.get(side)
            rows.append([
                side,
                f"{row['seconds']:.3f}" if row else "",
                f"{row['ratio']:.1f}" if row else "",
                f"{memory[side]:.0f}" if memory else "",
                f"{memory[side] / memory['plain']:.2f}" if memory else "",
            ])  # fmt: skip
        head = [f"{name}: step", "seconds", "times as fast", "peak MB", "of the plain"]
        print_table(head, rows)
    if "evaluation" in found:
        row = found["evaluation"]
        print(
            f"\nEvaluation: {row['seconds']:.1f} s, plain {row['plain seconds']:.0f} s, "
            f"{row['ratio']:.0f} times as fast"
        )
    if "recommend" in found:
        rows = {name: row["seconds"] for name, row in found["recommend"].items()}
        bare, ours = rows["matmul and topk"], rows["recommend"]
        print(f"\nrecommend: {ours:.2f} s, bare matmul and topk {bare:.2f} s: {ours / bare:.2f}")
    if "growth" in found:
        report_growth(found["growth"])


def report_growth(grown: dict[str, Any]) -> None:
    rows = [
        [f"{number:,} items, {kind} gradient of the table", f"{value:.3f}", ""]
        for number, row in grown["items"].items()
        for kind, value in row.items()
    ]
    for axis in ("batch", "positions", "tokens"):
        rows += [
            [f"{axis} {value}", f"{row['seconds']:.3f}", str(row["distinct items"])]
            for value, row in grown[axis].items()
        ]
    print_table(["growth, small", "seconds", "distinct items"], rows)
    print(f"\nLargest catalogue against the smallest: {slope_note(grown['items'])}")
    rows = [
        [f"{axis} {value}", *(f"{row[name]:.0f}" for name in row)]
        for axis, values in grown["memory MB"].items()
        for value, row in values.items()
    ]
    print_table(["peak MB, small", "plain", "float32", "in chunks"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", choices=PARTS, nargs="*", default=list(PARTS))
    parser.add_argument(
        "--config", choices=CONFIGURATIONS, nargs="*", default=["published", "small"]
    )
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--plain-users", type=int, default=300)
    parser.add_argument("--catalogue", type=int, default=1_000_000, help="of recommend")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: time spent computing")
    parser.add_argument("--output", type=Path, default=Path("outputs/speed"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    pairs, clock = arguments.pairs, arguments.clock
    found: dict[str, Any] = {
        "machine": platform.processor() or platform.machine(),
        "threads": arguments.threads,
        "clock": clock,
        "torch": torch.__version__,
        "time": time.strftime("%Y-%m-%d %H:%M"),
    }
    for name in arguments.config:
        size = CONFIGURATIONS[name]
        found[name] = {"sizes": asdict(size)}
        if "memory" in arguments.parts:
            found[name]["memory MB"] = compare_memory(size)
        if "steps" in arguments.parts:
            found[name]["steps"] = compare_steps(size, pairs, clock)
    if "growth" in arguments.parts:
        found["growth"] = growth(pairs, clock)
    if "evaluation" in arguments.parts:
        sizes = arguments.users, arguments.items, arguments.plain_users
        found["evaluation"] = compare_evaluation(*sizes, clock)
    if "recommend" in arguments.parts:
        found["recommend"] = compare_recommend(arguments.catalogue, 64, pairs, clock)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.with_suffix(".json").write_text(json.dumps(found, indent=2))
    report(found)
    draw(found, arguments.output.with_suffix(".png"))
    print(f"\nwritten: {arguments.output}.json and .png")


if __name__ == "__main__":
    main()
