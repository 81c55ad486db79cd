"""Users per second of `recommend_parquet`, compared with a plain loop over `recommend`.

    python -m benchmarks.production.batch [--users 20000] [--pairs 7]

Both get the same histories of shipped:films-sasrec, in one process with one thread. They alternate,
and the ratio is the median over the pairs. CPU time is measured, so that other load on the machine
has little effect. The time of the job includes loading the adapter.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from odmt_sdk import ODMTWrapper
from odmt_sdk.batch import recommend_parquet

ADAPTER = "shipped:films-sasrec"


def make_histories(model: ODMTWrapper, number: int, seed: int = 0) -> list[list[str]]:
    """Histories of 5 to 100 films, drawn at random."""
    ids, rng = list(model.vocabulary), np.random.default_rng(seed)
    return [
        [ids[row] for row in rng.integers(0, len(ids), rng.integers(5, 100))] for _ in range(number)
    ]


def measure_loop(model: ODMTWrapper, histories: list[list[str]]) -> float:
    """Users a second of `recommend`, 4,096 at a time as the job reads them."""
    start = time.process_time()
    for first in range(0, len(histories), 4096):
        model.recommend(histories[first : first + 4096], k=10)
    return len(histories) / (time.process_time() - start)


def measure_job(folder: Path, output: str, number: int) -> float:
    """Users a second of the job, with loading, reading and writing."""
    start = time.process_time()
    recommend_parquet(
        ADAPTER,
        folder / "users.parquet",
        folder / output,
        rows_per_part=max(1, number // 4),
        progress=False,
    )
    return number / (time.process_time() - start)


def main() -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--pairs", type=int, default=7)
    arguments = parser.parse_args()
    number = arguments.users
    torch.set_num_threads(1)
    model = ODMTWrapper.from_pretrained(ADAPTER)
    histories = make_histories(model, number)
    with tempfile.TemporaryDirectory() as name:
        table = pa.table({"user_id": list(range(number)), "item_ids": histories})
        pq.write_table(table, Path(name) / "users.parquet", row_group_size=max(1, number // 8))
        model.recommend(histories[:256])  # warm
        ratios = []
        for pair in range(arguments.pairs):
            loop = 0.0 if pair % 2 else measure_loop(model, histories)
            job = measure_job(Path(name), f"out-{pair}", number)
            loop = loop or measure_loop(model, histories)  # every second time after the job
            ratios.append(job / loop)
            print(f"plain loop {loop:,.0f}, job {job:,.0f} users a second: {job / loop:.3f} of it")
    print(f"median ratio {statistics.median(ratios):.3f}, {min(ratios):.3f} to {max(ratios):.3f}")


if __name__ == "__main__":
    main()
