"""Workloads of the speed benchmarks: configurations, random features, batches and steps."""

import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from odmt_sdk import ItemFeatures, ItemVocabulary, LazyAdamW, ODMTConfig, ODMTWrapper, SASRec

DTYPES = {"float32": None, "bfloat16": torch.bfloat16}
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
STORED_ITEMS = 2_000  # larger catalogues reuse the features of this number of items


@dataclass(frozen=True)
class Configuration:
    """Sizes of a benchmark; `width` is the width of a feature token."""

    hidden_size: int = 64
    text_tokens: int = 30
    image_tokens: int = 50
    positions: int = 12
    batch: int = 32
    num_items: int = 5_000
    width: int = 384


CONFIGURATIONS = {
    "published": Configuration(hidden_size=768, num_items=2_000, width=768),
    "small": Configuration(),
    "tiny": Configuration(8, 4, 3, 5, 8, 50, 6),  # to try the benchmarks out
}


class SharedFeatures:
    """A catalogue of any size that reuses a few stored features: row r has those of r % few."""

    def __init__(self, stored: ItemFeatures, num_items: int) -> None:
        self.stored = stored
        self.vocabulary = ItemVocabulary(range(1, num_items + 1))
        self.widths = stored.widths

    def gather(self, rows: torch.Tensor) -> dict[str, Any]:
        return self.stored.gather(rows % self.stored.num_items + (rows > 0))


def build(size: Configuration, **settings: Any) -> ODMTWrapper:
    """Build a wrapper without dropout; text lengths vary from a sixth of the maximum to it."""
    torch.manual_seed(0)
    rows = min(size.num_items, STORED_ITEMS) + 1
    lengths = torch.randint(max(1, size.text_tokens // 6), size.text_tokens + 1, (rows,))
    lengths[0] = 0
    features: Any = ItemFeatures.from_tensors(
        text=torch.randn(rows, size.text_tokens, size.width),
        image=torch.randn(rows, size.image_tokens, size.width),
        lengths={"text": lengths},
    )
    if size.num_items > STORED_ITEMS:
        features = SharedFeatures(features, size.num_items)
    backbone = SASRec(size.hidden_size, max_seq_length=size.positions, dropout=0.0)
    model = ODMTWrapper(backbone, features, ODMTConfig.paper(dropout=0.0, **settings), check=False)
    return model.set_item_popularity(zipf(size.num_items + 1))


def zipf(rows: int) -> torch.Tensor:
    """Popularity of each row r, proportional to 1 / r; 0 for row 0."""
    popularity = 1 / torch.arange(rows).clamp(min=1)
    popularity[0] = 0
    return popularity


def batch_of(size: Configuration, seed: int = 0, items: int | None = None) -> torch.Tensor:
    """Sequences (B, L + 1) of items drawn by popularity, without repetitions in a sequence.

    `items` limits the number of distinct items, which are spread evenly over the catalogue.
    """
    generator = torch.Generator().manual_seed(seed)
    items = items or size.num_items
    weights = zipf(items + 1).expand(size.batch, -1)
    drawn = torch.multinomial(weights, size.positions + 1, generator=generator)
    return drawn * (size.num_items // items)


def make_step(
    model: torch.nn.Module, batch: torch.Tensor, dtype: torch.dtype | None = None
) -> Callable[..., float]:
    """Return a function that trains on one batch and returns the loss."""
    optimizer = LazyAdamW(model.parameters(), lr=1e-4, weight_decay=0.1, fused=True)

    def step(rows: torch.Tensor = batch) -> float:
        with torch.autocast("cpu", dtype) if dtype else nullcontext():
            output = model(rows, epoch=30.0)
        loss = getattr(output, "loss", output)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        return float(loss.detach())

    return step


def seconds(function: Callable[[], Any], clock: str) -> float:
    """Duration of a call in seconds."""
    start = CLOCKS[clock]()
    function()
    return CLOCKS[clock]() - start


def peak_memory(
    size: Configuration, side: str = "float32", settings: dict[str, Any] | None = None
) -> float:
    """Peak memory of training in MB, minus weights, gradients and optimizer states.

    Call it in a new process, because memory that earlier calls left behind would count.
    """
    from speed.plain import PlainODMT

    torch.set_num_threads(1)
    model: torch.nn.Module = build(size, **(settings or {}))
    if side == "plain":
        model = PlainODMT.like(model)
    batch = batch_of(size)
    step = make_step(model, batch, DTYPES.get(side))
    step(batch[:1])  # allocates gradients and optimizer states
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = memory_now("VmRSS")
    step()
    return memory_now("VmHWM") - before


def memory_now(name: str) -> float:
    """Resident memory in MB, current (VmRSS) or peak (VmHWM); Linux only."""
    status = Path(f"/proc/{os.getpid()}/status").read_text()
    return int(status.split(f"{name}:")[1].split()[0]) / 1024
