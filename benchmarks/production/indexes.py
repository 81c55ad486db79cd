"""Recall and speed of indexes over drawn item vectors.

    python -m benchmarks.production.indexes --items 100000 --libraries faiss usearch hnswlib

One thread searches, and CPU time is measured. Vectors are drawn around 1,000 centres, and queries
near items.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from odmt_sdk.indexes import build_index

CENTRES, QUERIES, K = 1000, 500, 10


def draw(number: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Item vectors (N, W) and query vectors (Q, W)."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((CENTRES, width), dtype=np.float32)
    items = centres[rng.integers(0, CENTRES, number)]
    items += 0.7 * rng.standard_normal((number, width), dtype=np.float32)
    queries = items[rng.integers(0, number, QUERIES)]
    return items, queries + 0.5 * rng.standard_normal((QUERIES, width), dtype=np.float32)


def best_rows(items: np.ndarray, queries: np.ndarray) -> list[set[int]]:
    """The K items with the highest inner product for each query, by the whole product."""
    found = []
    for block in np.array_split(queries, 10):
        scores = block @ items.T
        found += [set(row) for row in np.argpartition(-scores, K, axis=1)[:, :K].tolist()]
    return found


def one_thread(library: str, index: object) -> None:
    if library == "faiss":
        import faiss

        faiss.omp_set_num_threads(1)
    elif library == "hnswlib":
        index.set_num_threads(1)


def measure(library: str, items: np.ndarray, queries: np.ndarray, **arguments: object) -> str:
    """Size, build time, recall and queries a second of one index, as cells of a table."""
    best = best_rows(items, queries)
    with tempfile.TemporaryDirectory() as name:
        start = time.process_time()
        index = build_index(name, range(len(items)), items, library=library, **arguments)
        built = time.process_time() - start
        size = sum(path.stat().st_size for path in Path(name).iterdir())
        one_thread(library, index._index)
        index.search(queries[:5], K)
        start = time.process_time()
        found, _ = index.search(queries, K)
        took = time.process_time() - start
    recall = np.mean([len(set(a) & b) / K for a, b in zip(found, best, strict=True)])
    return f"{recall:.3f} | {QUERIES / took:,.0f} | {built:,.0f} s | {size / 1e6:,.0f} MB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, nargs="+", default=[100_000])
    parser.add_argument("--width", type=int, default=64)
    libraries = ["faiss", "usearch", "hnswlib"]
    parser.add_argument("--libraries", nargs="+", choices=libraries, default=["faiss"])
    parser.add_argument("--kinds", nargs="+", choices=["exact", "hnsw"], default=["exact", "hnsw"])
    for name, default in (("links", 32), ("construction", 200), ("search", 128)):
        parser.add_argument(f"--{name}", type=int, default=default)
    chosen = parser.parse_args()
    settings = {name: getattr(chosen, name) for name in ("links", "construction", "search")}
    print("| items | index | recall@10 | queries a second | built in | on disk |")
    print("|---:|---|---:|---:|---:|---:|")
    for number in chosen.items:
        items, queries = draw(number, chosen.width)
        for kind in chosen.kinds:
            for library in chosen.libraries:
                cells = measure(
                    library, items, queries, approximate=kind == "hnsw", settings=settings
                )
                print(f"| {number:,} | {library} {kind} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
