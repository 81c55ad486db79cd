"""Time per step for a large table of interactions, from reading it to a split.

python benchmarks/speed/interactions.py --events 10000000
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from odmt_sdk import Interactions, leave_one_out, time_split


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--users", type=int, default=None, help="default: one per 10 events")
    parser.add_argument("--items", type=int, default=100_000)
    arguments = parser.parse_args()
    users = arguments.users or arguments.events // 10

    generator = np.random.default_rng(0)
    table = {
        "user_id": generator.integers(0, users, arguments.events),
        "item_id": (arguments.items * generator.random(arguments.events) ** 3).astype(np.int64),
        "timestamp": generator.integers(1_600_000_000, 1_700_000_000, arguments.events),
    }
    names = {name: [f"{name}{number:09d}" for number in range(users)] for name in ("user_id",)}
    names["item_id"] = [f"B{number:09d}" for number in range(arguments.items)]
    strings = {
        **{name: pa.array(ids).take(pa.array(table[name])) for name, ids in names.items()},
        "timestamp": table["timestamp"],
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.parquet"
        parquet.write_table(pa.table(strings), path)
        with seconds("whole, from a Parquet file with string ids"):
            run(lambda: Interactions.from_table(path))
    with seconds("whole, from columns of whole numbers"):
        run(lambda: Interactions.from_table(table))


def run(read: Callable[[], Interactions]) -> None:
    with seconds("  read"):
        interactions = read()
    steps: dict[str, Callable[[Interactions], Any]] = {
        "drop_repeats('same_time')": lambda i: i.drop_repeats("same_time"),
        "drop_repeats('keep_first')": lambda i: i.drop_repeats("keep_first"),
        "k_core(5)": lambda i: i.k_core(5),
        "min_length(6)": lambda i: i.min_length(6),
        "last(50)": lambda i: i.last(50),
    }
    for name, step in steps.items():
        with seconds(f"  {name}"):
            interactions = step(interactions)
    for split in (leave_one_out, time_split):
        with seconds(f"  {split.__name__}"):
            result = split(interactions)
    print(result.report)


@contextmanager
def seconds(name: str) -> Iterator[None]:
    start, processor = time.perf_counter(), time.process_time()
    yield
    wall, processor = time.perf_counter() - start, time.process_time() - processor
    print(f"{name}: {wall:.1f} s, of the processor {processor:.1f} s", flush=True)


if __name__ == "__main__":
    main()
