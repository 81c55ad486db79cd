"""How much faster than the plain computation: training step, its peak memory, and evaluation.

    python benchmarks/speed.py                      # the published configuration, then a small one
    python benchmarks/speed.py --config small --pairs 5

Both sides of every ratio do the same work: the same weights, batch and loss (compared before the
clock starts). Steps alternate in one run, so that a noisy machine slows both. A step is forward,
backward, clipping and a fused AdamW update. Peak memory is that of a process which makes two
steps, less what it held before. The plain evaluation is measured on a few users and scaled up:
its cost is a loop over users.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from plain import PlainODMT

from odmt_sdk import ItemFeatures, ODMTConfig, ODMTWrapper, SASRec
from odmt_sdk.data.sequences import RankingDataset
from odmt_sdk.evaluation.evaluate import rank_targets


@dataclass(frozen=True)
class Configuration:
    """Sizes of a benchmark: hidden size, tokens, positions, batch and catalogue."""

    hidden_size: int
    text_tokens: int
    image_tokens: int
    positions: int
    batch: int
    num_items: int
    width: int


CONFIGURATIONS = {
    "published": Configuration(768, 30, 50, 12, 32, 2_000, 768),
    "small": Configuration(64, 30, 50, 12, 32, 5_000, 384),
}
DTYPES = {"float32": None, "bfloat16": torch.bfloat16}


def build(size: Configuration) -> ODMTWrapper:
    """A wrapper on random features; texts are 5 to 30 tokens long."""
    torch.manual_seed(0)
    rows = size.num_items + 1
    lengths = torch.randint(5, size.text_tokens + 1, (rows,))
    lengths[0] = 0
    features = ItemFeatures.from_tensors(
        text=torch.randn(rows, size.text_tokens, size.width),
        image=torch.randn(rows, size.image_tokens, size.width),
        lengths={"text": lengths},
    )
    model = ODMTWrapper(
        SASRec(size.hidden_size, max_seq_length=size.positions, dropout=0.0),
        features,
        ODMTConfig.paper(dropout=0.0),
    )
    return model.set_item_popularity(zipf(rows))


def zipf(rows: int) -> torch.Tensor:
    """Popularity of item r, proportional to 1 / r; none for row 0."""
    popularity = 1 / torch.arange(rows).clamp(min=1)
    popularity[0] = 0
    return popularity


def batch_of(size: Configuration, seed: int = 0) -> torch.Tensor:
    """Sequences (B, L + 1) of items drawn by popularity, each at most once in a sequence."""
    generator = torch.Generator().manual_seed(seed)
    weights = zipf(size.num_items + 1).expand(size.batch, -1)
    return torch.multinomial(weights, size.positions + 1, generator=generator)


def make_step(model: torch.nn.Module, batch: torch.Tensor, dtype: torch.dtype | None):
    """A function that trains on the batch once and returns the loss."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.1, fused=True)

    def step() -> float:
        with torch.autocast("cpu", dtype) if dtype else nullcontext():
            output = model(batch, epoch=30.0)
        loss = getattr(output, "loss", output)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        return float(loss.detach())

    return step


def compare_steps(size: Configuration, pairs: int) -> dict[str, dict[str, float]]:
    """Seconds per step of the plain side in float32 and of the wrapper in every type."""
    batch = batch_of(size)
    wrapper = build(size)
    steps = {"plain": make_step(PlainODMT.like(wrapper), batch, None)}
    for name, dtype in DTYPES.items():
        steps[name] = make_step(build(size), batch, dtype)
    first = {name: step() for name, step in steps.items()}  # warm-up, before any update
    if abs(first["float32"] / first["plain"] - 1) > 1e-4:
        raise RuntimeError(f"the two sides compute different losses: {first}")
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for pair in range(pairs):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
        print(f"  pair {pair + 1} of {pairs}", file=sys.stderr)
    plain = seconds.pop("plain")
    found = {"plain float32": {"seconds": statistics.median(plain), "ratio": 1.0}}
    for name, values in seconds.items():
        ratios = sorted(a / b for a, b in zip(plain, values, strict=True))
        found[name] = {
            "seconds": statistics.median(values),
            "ratio": statistics.median(ratios),
            "least": ratios[0],
            "most": ratios[-1],
        }
    return found


def measure_memory(config: str, side: str) -> float:
    """MB that two training steps add to a process of their own."""
    command = [sys.executable, __file__, "--config", config, "--memory-of", side]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def memory_of(size: Configuration, side: str) -> float:
    """What `measure_memory` asks a new process: MB above what the model itself takes."""
    wrapper = build(size)
    model = PlainODMT.like(wrapper) if side == "plain" else wrapper
    step = make_step(model, batch_of(size), DTYPES.get(side))
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of building the model
    before = memory_now("VmRSS")
    for _ in range(2):
        step()
    return memory_now("VmHWM") - before


def memory_now(name: str) -> float:
    """MB of resident memory, VmRSS now or VmHWM at its peak; Linux tells."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{name}:")[1].split()[0]) / 1024


def compare_evaluation(num_users: int, num_items: int, plain_users: int) -> dict[str, float]:
    """Ranking users among a catalogue whose items are encoded already; D = 64."""
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
    start = time.perf_counter()
    ranks = twin.rank(
        [query["item_ids"] for query in queries],
        [query["target_ids"] for query in queries],
        [query["seen_ids"] for query in queries],
    )
    plain = (time.perf_counter() - start) * num_users / plain_users
    start = time.perf_counter()
    fast_ranks = rank_targets(model, dataset, per_source=False, progress=False)["fused"]
    fast = time.perf_counter() - start
    differing = sum(a != b for a, b in zip(ranks, fast_ranks.tolist(), strict=False))
    if differing > 0.01 * plain_users:  # rounding may swap neighbours
        raise RuntimeError(f"{differing} of {plain_users} ranks differ")
    return {"plain seconds": plain, "seconds": fast, "ratio": plain / fast}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", choices=CONFIGURATIONS, nargs="*", default=[*CONFIGURATIONS])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--plain-users", type=int, default=300)
    parser.add_argument("--output", type=Path, default=Path("outputs/speed.json"))
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        print(memory_of(CONFIGURATIONS[arguments.config[0]], arguments.memory_of))
        return
    found: dict[str, object] = {
        "machine": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    for name in arguments.config:
        size = CONFIGURATIONS[name]
        print(f"\n{name}: {asdict(size)}\n")
        steps = compare_steps(size, arguments.pairs)
        memory = {side: measure_memory(name, side) for side in ("plain", *DTYPES)}
        found[name] = {"step": steps, "memory MB": memory}
        print(f"| {'step':<14} | seconds | times as fast | peak MB | of the plain |")
        print(f"|{'-' * 16}|--------:|--------------:|--------:|-------------:|")
        for side, row in steps.items():
            peak = memory[side.split()[0]]
            print(
                f"| {side:<14} | {row['seconds']:7.3f} | {row['ratio']:13.1f} | {peak:7.0f} | "
                f"{peak / memory['plain']:12.2f} |"
            )
    evaluation = compare_evaluation(arguments.users, arguments.items, arguments.plain_users)
    found["evaluation"] = evaluation
    print(
        f"\nEvaluation of {arguments.users:,} users on {arguments.items:,} items: "
        f"{evaluation['seconds']:.1f} s, plain {evaluation['plain seconds']:.0f} s, "
        f"{evaluation['ratio']:.0f} times as fast"
    )
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(found, indent=2))
    print(f"written: {arguments.output}")


if __name__ == "__main__":
    main()
