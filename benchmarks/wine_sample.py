"""Write the sample of X-Wines that `load_wines` reads, from a folder of the whole data set.

The folder contains `items.parquet` (item_id, text) and `interactions.parquet` (user_id, item_id,
timestamp, rating). The sample has all wines, and all ratings of some users who have 5 or more.

    python benchmarks/wine_sample.py --data xwines
"""

import argparse
import gzip
import json
import re
from pathlib import Path

import numpy as np

import odmt_sdk.data
from odmt_sdk.data import read_columns

FILE = Path(odmt_sdk.data.__file__).parent / "wines.json.gz"
CITATION = (
    "de Azambuja, R.X.; Morais, A.J.; Filipe, V. X-Wines: A Wine Dataset for Recommender Systems "
    "and Machine Learning. Big Data Cogn. Comput. 2023, 7(1), 20. "
    "https://doi.org/10.3390/bdcc7010020"
)
NAMED = re.compile(r"^(?P<name>.*?), \S+ wine from (?P<winery>.*?), ")
LEAST = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--users", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=FILE)
    arguments = parser.parse_args()

    items = read_columns(arguments.data / "items.parquet", ["item_id", "text"])
    row_of = {item_id: row for row, item_id in enumerate(items["item_id"])}
    names = ["user_id", "item_id", "timestamp", "rating"]
    table = read_columns(arguments.data / "interactions.parquet", names)
    users, codes = np.unique(table["user_id"].astype(str), return_inverse=True)
    active = np.flatnonzero(np.bincount(codes) >= LEAST)
    drawn = np.random.default_rng(arguments.seed).permutation(active)[: arguments.users]
    events: dict[str, list[object]] = {name: [] for name in ("user_id", "item", "time", "rating")}
    for user in sorted(drawn.tolist()):
        own = np.flatnonzero(codes == user)
        own = own[np.argsort(table["timestamp"][own], kind="stable")]
        events["user_id"].append(str(users[user]))
        events["item"].append([row_of[item_id] for item_id in table["item_id"][own]])
        events["time"].append(np.diff(table["timestamp"][own].astype(int), prepend=0).tolist())
        events["rating"].append([float(f"{rating:g}") for rating in table["rating"][own]])
    sample = {
        "data": "X-Wines Slim",
        "license": "CC0-1.0",
        "citation": CITATION,
        "items": {
            "item_id": [str(item_id) for item_id in items["item_id"]],
            "title": [title(text) for text in items["text"]],
            "text": [str(text) for text in items["text"]],
        },
        "events": events,  # of each user; a time is that since the event before
    }
    text = json.dumps(sample, ensure_ascii=False, separators=(",", ":")).encode()
    arguments.output.write_bytes(gzip.compress(text, 9, mtime=0))
    print(f"{len(drawn):,} users, {arguments.output.stat().st_size / 1e3:.0f} kB")


def title(text: str) -> str:
    """Name and winery of a wine."""
    found = NAMED.match(text)
    return f"{found['name']} ({found['winery']})" if found else text.partition(", ")[0]


if __name__ == "__main__":
    main()
