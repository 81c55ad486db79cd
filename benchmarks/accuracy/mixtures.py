"""Limits of the comparison: scores of trained cells, combined in other ways.

Reads the tested cells of `compare.py` and ranks the validation targets by single sources of a
method, by all its sources (as in recommendation), by those of all seeds, by those of two methods,
and by those of one method plus a single source of another. Item-to-item counts are left out.
Nothing is trained.

    python benchmarks/accuracy/run.py mixtures --data FOLDER --cells outputs/accuracy
"""

import argparse
import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from query_vectors import Vectors, query_vectors

from accuracy.cells import CHOSEN_BY
from accuracy.data import Data, DataSettings, load_data
from accuracy.significance import gains, mean_and_deviation
from odmt_sdk import ODMTWrapper
from odmt_sdk.evaluation import markdown_table, target_ranks


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder")
    parser.add_argument("--cells", type=Path, required=True, help="--output of the comparison")
    parser.add_argument("--backbone", default="SASRec")
    parser.add_argument("--methods", nargs="+", default=["odmt", "late"])
    arguments = parser.parse_args(given)

    found: dict[str, dict[str, dict[str, Vectors]]] = {}  # method -> seed -> source
    data = None
    for method in arguments.methods:
        top = arguments.cells / "cells" / arguments.data.name / arguments.backbone / method
        cells = sorted(path.parent for path in top.glob("*/seed-*/test.json"))
        if not cells:
            parser.error(f"{top} holds no tested cells: run the comparison first")
        for cell in cells:
            about = json.loads((cell / "cell.json").read_text())["settings"]["data"]
            data = data or load_data(
                arguments.data, DataSettings(**about), arguments.cells / "features"
            )
            model = ODMTWrapper.from_pretrained(cell / "adapter", item_features=data.features)
            found.setdefault(method, {})[cell.name] = query_vectors(model, data.split.validation)

    assert data is not None
    rows = [["ranked by", CHOSEN_BY, "cells"]]

    def add(name: str, mixtures: Iterable[list[Vectors]]) -> None:
        values = [ndcg(mixture, data) for mixture in mixtures]
        mean, deviation = mean_and_deviation(values)
        spread = f" ± {deviation:.4f}" if len(values) > 1 else ""
        rows.append([name, f"{mean:.4f}{spread}", str(len(values))])

    for method, seeds in found.items():
        for source in next(iter(seeds.values())):
            add(f"{method}, {source} alone", ([of[source]] for of in seeds.values()))
        add(method, (list(of.values()) for of in seeds.values()))
        if len(seeds) > 1:
            add(f"{method}, all seeds", [[v for of in seeds.values() for v in of.values()]])
    for first, second in itertools.combinations(found, 2):
        both = sorted(found[first].keys() & found[second].keys())
        add(
            f"{first} and {second}",
            ([*found[first][s].values(), *found[second][s].values()] for s in both),
        )
    for first, second in itertools.permutations(found, 2):
        both = sorted(found[first].keys() & found[second].keys())
        for source in next(iter(found[second].values())):
            add(
                f"{first} and the {source} of {second}",
                ([*found[first][s].values(), found[second][s][source]] for s in both),
            )
    print(markdown_table(rows))


def ndcg(mixture: Sequence[Vectors], data: Data) -> float:
    """NDCG of the validation targets, ranked by the sum of the scores of some sources."""
    queries, items = (torch.cat(parts, dim=1) for parts in zip(*mixture, strict=True))
    targets = data.split.validation
    seen = [query["seen_ids"] for query in targets]
    ranks = target_ranks(queries, items, targets.targets, excluded=seen)
    return float(gains(ranks, CHOSEN_BY).mean())
