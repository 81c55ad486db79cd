"""What a bridge costs: training steps of SASRec in ODMTWrapper, native and behind bridges.

The models alternate within one run, in a new random order per turn, so that other load on the
machine affects all of them equally. Each step is compared with the native step of the same turn.

    OMP_NUM_THREADS=1 python benchmarks/speed/bridge_overhead.py --steps 400
"""

import argparse
import random
import statistics
import time
from typing import Any

import torch

from odmt_sdk import ODMTConfig, ODMTWrapper, SASRec
from odmt_sdk.backbones import is_adapted

HIDDEN_SIZE, LENGTH, USERS, ITEMS = 64, 12, 128, 2000
WARMUP, NATIVE = 20, "native"


class OtherNames(SASRec):
    """Recognized by argument names and called unchanged, because only the names differ."""

    def forward(self, emb: torch.Tensor, log_mask: torch.Tensor) -> torch.Tensor:
        return super().forward(emb, log_mask)


class OtherMask(SASRec):
    """Recognized by argument names and trial runs: its mask is True at padding."""

    def forward(self, emb: torch.Tensor, padding_mask: torch.Tensor) -> tuple[torch.Tensor]:
        return (super().forward(emb, ~padding_mask),)


def wrap(kind: type[SASRec], *, adapted: bool, **how: Any) -> ODMTWrapper:
    torch.manual_seed(0)
    backbone = kind(HIDDEN_SIZE, max_seq_length=LENGTH)
    config = ODMTConfig(fusion="id")
    model = ODMTWrapper(backbone, config=config, vocabulary=range(1, ITEMS + 1), **how)
    if is_adapted(model.backbones.of("id")) != adapted:
        raise RuntimeError(f"{kind.__name__} should be adapted: {adapted}")
    return model


def step(model: ODMTWrapper, optimizer: torch.optim.Optimizer, rows: torch.Tensor) -> float:
    """Seconds for one forward pass, backward pass and update."""
    start = time.perf_counter()
    optimizer.zero_grad()
    model(rows).loss.backward()
    optimizer.step()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=400, help="turns, each a step of every model")
    steps = parser.parse_args().steps
    models = {
        NATIVE: wrap(SASRec, adapted=False),
        "native again": wrap(SASRec, adapted=False),
        "forward_fn": wrap(SASRec, adapted=True, forward_fn=lambda m, x, mask: m(x, mask)),
        "(emb, log_mask)": wrap(OtherNames, adapted=False),
        "(emb, padding_mask)": wrap(OtherMask, adapted=True),
    }
    optimizers = {name: torch.optim.AdamW(m.parameters(), lr=1e-3) for name, m in models.items()}
    rows = torch.randint(1, ITEMS + 1, (USERS, LENGTH + 1))
    rows[torch.arange(LENGTH + 1) < torch.randint(0, LENGTH - 2, (USERS, 1))] = 0  # left padding
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(WARMUP + steps):
        for name in random.sample(list(models), len(models)):
            taken = step(models[name], optimizers[name], rows)
            if turn >= WARMUP:
                seconds[name].append(taken)

    print(f"SASRec D={HIDDEN_SIZE}, {USERS} users x {LENGTH} positions, {ITEMS} items by ID,")
    print(f"{steps} steps each, {torch.get_num_threads()} thread(s), torch {torch.__version__}\n")
    print("| backbone            | ms a step | time / native | middle half of the ratios |")
    print("|---------------------|----------:|--------------:|---------------------------|")
    for name, taken in seconds.items():
        ratios = [a / b for a, b in zip(taken, seconds[NATIVE], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        milliseconds = 1000 * statistics.median(taken)
        spread = f"{low:.3f} to {high:.3f}"
        print(f"| {name:<19} | {milliseconds:9.2f} | {middle:13.3f} | {spread:<25} |")


if __name__ == "__main__":
    main()
