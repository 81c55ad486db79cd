"""Transfer of a pretrained adapter to films that were not in its training data.

Each dataset is trained from scratch and from the adapter, with all training sequences and with a
tenth of them, over several seeds. Both are evaluated on the validation targets at intervals, and
the best model by validation on the test targets. Finished runs are kept in the output folder and
are not repeated. The films of another folder, which the adapter was trained on, can be left out.

    python benchmarks/transfer/transfer.py --data ml-latest-posters ml-100k-posters \\
        --seen ml-1m-posters --text-encoder DIR --image-encoder DIR
"""

import argparse
import contextlib
import dataclasses
import itertools
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # where this folder is a package

import numpy as np
import torch
from accuracy.data import target_groups
from accuracy.significance import gains, group_metrics, paired_bootstrap
from film_data import ENCODERS, film_features, film_interactions, popularity_ranks
from query_vectors import query_vectors
from transformers import TrainerCallback

from odmt_sdk import (
    ItemFeatures,
    ODMTConfig,
    ODMTWrapper,
    SASRec,
    fit,
    leave_one_out,
)
from odmt_sdk.data import RankingDataset, SequenceDataset, Split, read_columns
from odmt_sdk.evaluation import rank_targets
from transfer.report import report

METRIC = "ndcg@10"
SHARES = {"a tenth": 0.1, "all": 1.0}
STARTS = ("scratch", "adapter")
AS_BY_DEFAULT = {"id_dropout": 0.0, "modality_dropout": 0.0}
PRIORS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # weights of the log-popularity added to scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="catalogues to start")
    parser.add_argument("--seen", type=Path, help="data the adapter was trained on")
    parser.add_argument("--share-ids", nargs="*", default=["ml-latest-posters"], help="see --seen")
    parser.add_argument("--text-encoder", default=ENCODERS["text"], help="folder or Hub name")
    parser.add_argument("--image-encoder", default=ENCODERS["image"], help="folder or Hub name")
    parser.add_argument("--adapter", default="shipped:films-content")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, nargs=2, default=[160, 360], help="a tenth, all")
    parser.add_argument("--validations", type=int, default=12, help="while training")
    parser.add_argument("--report", action="store_true", help="of finished runs; train no more")
    parser.add_argument("--features", type=Path, default=Path("outputs/features"))
    parser.add_argument("--output", type=Path, default=Path("outputs/transfer"))
    arguments = parser.parse_args()

    arguments.output.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {"zero": {}, "cells": []}
    data = {folder.name: load(folder, arguments) for folder in arguments.data}
    for name, (split, features) in data.items():
        print(name, features, f"{int(split.item_counts.sum()):,} training interactions", flush=True)
        path = arguments.output / f"{name}-zero.json"
        found["zero"][name] = once(path, untrained, arguments, split, features)
    runs = itertools.product(
        zip(SHARES, arguments.steps, strict=True), arguments.seeds, data, STARTS
    )
    for (share, steps), seed, name, start in runs:
        path = arguments.output / f"{name}-{share.replace(' ', '-')}-{start}-{seed}.json"
        if arguments.report and not path.exists():
            continue
        row = once(path, train, arguments, *data[name], share, start, seed, steps)
        keys = {"data": name, "share": share, "start": start, "seed": seed}
        found["cells"].append({**keys, **row})
        print(path.stem, row["test"]["all"][METRIC], flush=True)
    (arguments.output / "transfer.json").write_text(json.dumps(found, indent=1) + "\n")
    text = report(found)
    (arguments.output / "transfer.md").write_text(text + "\n")
    print(text)


def once(path: Path, make: Any, *arguments: Any) -> dict[str, Any]:
    """Return the result that an earlier run saved in a file, or compute and save it."""
    if not path.exists():
        part = path.with_suffix(".part")
        part.write_text(json.dumps(make(*arguments)) + "\n")
        part.replace(path)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def load(folder: Path, arguments: argparse.Namespace) -> tuple[Split, ItemFeatures]:
    """Load a catalogue without the films that the adapter was trained on, if ids identify them."""
    seen: set[Any] = set()
    if arguments.seen is not None and folder.name in arguments.share_ids:
        seen = set(read_columns(arguments.seen / "items.parquet", ["item_id"])["item_id"])
    interactions = film_interactions(folder, without=seen)
    encoders = {"text": arguments.text_encoder, "image": arguments.image_encoder}
    features = film_features(folder, encoders, arguments.features)
    features = features.select(interactions.item_ids).standardize()
    return leave_one_out(interactions, vocabulary=features.vocabulary), features


# ------------------------------------------------------------------ without any training


def untrained(
    arguments: argparse.Namespace, split: Split, features: ItemFeatures
) -> dict[str, Any]:
    """Test metrics of the untrained adapter, of popularity, and of both combined."""
    model = start_from(arguments.adapter, features)
    counts = split.item_counts
    prior = (1 + counts.float()).log()  # (N + 1,)
    scores, known = scores_of(model, split.test), scores_of(model, split.validation)
    # The mean score of an item over users is an estimate of its popularity. The counts of this
    # catalogue are a better estimate, so the mean is removed.
    usual = known.mean(0)  # (N + 1,)
    spread = (known - usual).std()
    own, told = (scores - usual) / spread, (known - usual) / spread
    chosen = max(PRIORS, key=lambda w: ndcg(ranks_by(told + w * prior, split.validation)))
    ranks = {
        "popularity": popularity_ranks(split, split.test),
        "adapter": ranks_by(scores, split.test),
        "adapter with popularity": ranks_by(own + chosen * prior, split.test),
    }
    groups = target_groups(split.test.targets, counts)
    popular = gains(ranks["popularity"], METRIC)
    return {
        "prior": chosen,
        "metrics": {name: group_metrics(found, groups) for name, found in ranks.items()},
        "over popularity": {
            name: paired_bootstrap(gains(found, METRIC), popular) for name, found in ranks.items()
        },
    }


def scores_of(model: ODMTWrapper, queries: RankingDataset) -> torch.Tensor:
    """Mean over sources of the scores of all items for every query, (Q, N + 1)."""
    vectors = query_vectors(model, queries).values()
    return torch.stack([users @ items.T for users, items in vectors]).mean(0)


def ranks_by(scores: torch.Tensor, queries: RankingDataset) -> torch.Tensor:
    """Ranks (Q,) of the targets by scores (Q, N + 1), among the items that a user has not seen."""
    ranks = []
    for row, query in zip(scores, queries, strict=True):
        above = row > row[query["target_ids"]]
        above[query["seen_ids"]] = False
        above[0] = False  # padding
        ranks.append(1 + int(above.sum()))
    return torch.tensor(ranks)


def ndcg(ranks: torch.Tensor) -> float:
    return float(gains(ranks, METRIC).mean())


# ------------------------------------------------------------------ from scratch and from it


def train(
    arguments: argparse.Namespace,
    split: Split,
    features: ItemFeatures,
    share: str,
    start: str,
    seed: int,
    steps: int,
) -> dict[str, Any]:
    """One run: validation at intervals, and test metrics of the best model."""
    began = time.process_time()
    folder = arguments.output / "training"
    part = some_of(split, SHARES[share], seed)
    torch.manual_seed(seed)
    model = start_from(arguments.adapter if start == "adapter" else None, features)
    curve, every = Curve(), max(1, steps // arguments.validations)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        fit(
            model.train(),
            part,
            folder,
            patience=steps,
            batch_size=32,
            learning_rate=1e-3,
            warmup_steps=20,
            item_to_item=False,  # weights alone are compared
            k=(10,),
            seed=seed,
            callbacks=[curve],
            disable_tqdm=True,
            save_only_model=True,
            max_steps=steps,
            **{f"{what}_strategy": "steps" for what in ("eval", "save", "logging")},
            **{f"{what}_steps": every for what in ("eval", "save", "logging")},
        )
    shutil.rmtree(folder)
    ranks = rank_targets(model, split.test, progress=False)["fused"]
    groups = target_groups(split.test.targets, part.item_counts)
    return {
        "curve": curve.points,
        "test": group_metrics(ranks, groups),
        "seconds": round(time.process_time() - began, 1),
    }


def start_from(adapter: str | None, features: ItemFeatures) -> ODMTWrapper:
    """Create a model for a catalogue: from the adapter's content part, or from scratch.

    Both are trained in the same way, with the default settings.
    """
    if adapter is not None:
        return ODMTWrapper.from_pretrained(
            adapter, item_features=features, transfer=True, training_settings=AS_BY_DEFAULT
        )
    return ODMTWrapper(SASRec(64, max_seq_length=50), features, ODMTConfig(), check=False)


def some_of(split: Split, share: float, seed: int) -> Split:
    """Keep the training sequences of a random share of the users."""
    if share == 1:
        return split
    number = max(1, round(share * len(split.train)))
    drawn = np.random.default_rng(seed).permutation(len(split.train))[:number]
    pieces = [split.train[int(index)]["item_ids"].numpy() for index in drawn]
    rows = np.concatenate(pieces)
    counts = np.bincount(rows, minlength=len(split.item_counts))
    sequences = SequenceDataset(rows, np.cumsum([0, *map(len, pieces)]))
    return dataclasses.replace(split, train=sequences, item_counts=torch.from_numpy(counts))


class Curve(TrainerCallback):
    """Records steps and the validation metric."""

    def __init__(self) -> None:
        self.points: list[tuple[int, float]] = []

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        metrics = kwargs["metrics"]
        if f"eval_{METRIC}" in metrics:
            self.points.append((state.global_step, metrics[f"eval_{METRIC}"]))


if __name__ == "__main__":
    main()
