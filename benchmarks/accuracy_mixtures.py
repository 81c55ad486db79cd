"""What limits the comparison: scores of trained cells, added up in other ways.

Reads the tested cells of `accuracy.py` and ranks the validation targets by the sources of a method
alone, by all of them (what it recommends by), by those of all its seeds, and by those of two
methods. Nothing is trained.

    python benchmarks/accuracy_mixtures.py --data FOLDER --cells outputs/accuracy
"""

import argparse
import itertools
import json
from collections.abc import Iterable
from pathlib import Path

import torch
from accuracy_cells import CHOSEN_BY
from accuracy_data import Data, DataSettings, load_data
from accuracy_statistics import gains, mean_and_deviation
from torch.utils.data import DataLoader

from odmt_sdk import ODMTWrapper, SequenceCollator
from odmt_sdk.evaluation.ranks import target_ranks
from odmt_sdk.markdown import markdown_table
from odmt_sdk.scoring import fused_vectors

Vectors = tuple[torch.Tensor, torch.Tensor]  # queries (Q, D) and items (N + 1, D)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder")
    parser.add_argument("--cells", type=Path, required=True, help="--output of accuracy.py")
    parser.add_argument("--backbone", default="SASRec")
    parser.add_argument("--methods", nargs="+", default=["odmt", "late"])
    arguments = parser.parse_args()

    found: dict[str, dict[str, dict[str, Vectors]]] = {}  # method -> seed -> source
    data = None
    for method in arguments.methods:
        top = arguments.cells / "cells" / arguments.data.name / arguments.backbone / method
        cells = sorted(path.parent for path in top.glob("*/seed-*/test.json"))
        if not cells:
            parser.error(f"{top} holds no tested cells: run accuracy.py first")
        for cell in cells:
            about = json.loads((cell / "cell.json").read_text())["settings"]["data"]
            data = data or load_data(
                arguments.data, DataSettings(**about), arguments.cells / "features"
            )
            found.setdefault(method, {})[cell.name] = vectors(cell, data)

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
    print(markdown_table(rows))


@torch.no_grad()
def vectors(cell: Path, data: Data) -> dict[str, Vectors]:
    """What each source of a trained cell makes of the validation queries and of all items."""
    model = ODMTWrapper.from_pretrained(cell / "adapter", item_features=data.features)
    catalogue = model.encode_catalogue()
    queries: dict[str, list[torch.Tensor]] = {source: [] for source in model.sources}
    batches = DataLoader(data.split.validation, batch_size=256, collate_fn=SequenceCollator())
    for batch in batches:
        encoded = model.encode_sequences(
            batch["item_ids"], batch["attention_mask"], item_embeddings=catalogue
        )
        for source in model.sources:
            queries[source].append(encoded[source])
    return {source: (torch.cat(queries[source]), catalogue[source]) for source in model.sources}


def ndcg(mixture: list[Vectors], data: Data) -> float:
    """Of the validation targets, ranked by the sum of the scores of some sources."""
    names = [str(number) for number in range(len(mixture))]
    queries = fused_vectors({n: v[0] for n, v in zip(names, mixture, strict=True)}, names)
    items = fused_vectors({n: v[1] for n, v in zip(names, mixture, strict=True)}, names)
    targets = data.split.validation
    seen = [query["seen_ids"] for query in targets]
    ranks = target_ranks(queries, items, targets.targets, excluded=seen)
    return float(gains(ranks, CHOSEN_BY).mean())


if __name__ == "__main__":
    main()
