"""Incomplete and growing catalogues on real data: missing pictures, and items added later.

The folder has the format of `real_data.py`; some items may have no `images/<item_id>.jpg`.

Missing pictures: compares ID and text; ID, text and the available pictures; and ID, text and
pictures where an array of zeros replaces each missing picture. Late items: a tenth of the items is
removed from the training data with all interactions, and added to the trained model by content
alone. Each interaction with a late item is a query: which item comes next?

Every run trains for the same number of epochs and keeps the best one by validation. Finished runs
are kept in the output folder and are not repeated.

    python benchmarks/features/incomplete.py --data FOLDER --text-encoder DIR --image-encoder DIR
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # where this folder is a package

import numpy as np
import torch
from film_data import film_table
from torch.utils.data import Dataset

from odmt_sdk import (
    Interactions,
    ItemFeatures,
    ItemVocabulary,
    ODMTConfig,
    ODMTWrapper,
    SASRec,
    fit,
    leave_one_out,
)
from odmt_sdk.data import RankingDataset, Split
from odmt_sdk.evaluation import rank_targets

CUT = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="*", default=["missing", "late"], help="missing, late")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--text-encoder", required=True, help="folder or Hub name")
    parser.add_argument("--text-pooling", default="mean", choices=("first", "mean"))
    parser.add_argument("--image-encoder", required=True, help="folder or Hub name")
    parser.add_argument("--text-tokens", type=int, default=1, help="kept; 1 = pooled")
    parser.add_argument(
        "--image-tokens", type=int, default=None, help="kept; default: all, 1 = pooled"
    )
    parser.add_argument("--output", type=Path, default=Path("outputs/incomplete"))
    parser.add_argument("--positions", type=int, default=20)
    parser.add_argument("--events", type=int, default=0, help="latest of each user; 0 = all")
    parser.add_argument("--hidden-size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--warmup-steps", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--modality-dropout", type=float, default=0.0)
    parser.add_argument("--id-dropout", type=float, nargs="+", default=[0.0, 0.3])
    parser.add_argument("--distillation-weight", type=float, default=ODMTConfig.distillation_weight)
    parser.add_argument("--no-standardize", action="store_true", help="leave features as they come")
    parser.add_argument("--validation", action="store_true", help="report it in place of the test")
    arguments = parser.parse_args()

    interactions, features = prepare(arguments)
    if "missing" in arguments.part:
        missing_pictures(interactions, features, arguments)
    if "late" in arguments.part:
        late_items(interactions, features, arguments)


def prepare(arguments: argparse.Namespace) -> tuple[Interactions, ItemFeatures]:
    interactions = Interactions.from_table(arguments.data / "interactions.parquet")
    if arguments.events:
        interactions = interactions.last(arguments.events)
    interactions = interactions.k_core(5)
    features = ItemFeatures.from_items(
        film_table(arguments.data),
        text_encoder=arguments.text_encoder,
        text_pooling=arguments.text_pooling,
        image_encoder=arguments.image_encoder,
        max_image_tokens=arguments.image_tokens,
        precision="float32",
    ).select(interactions.item_ids)
    tokens, lengths = features["text"]
    text = (tokens[:, : arguments.text_tokens], lengths.clamp(max=arguments.text_tokens))
    features = ItemFeatures(features.vocabulary, {"text": text, "image": features["image"]})
    print(interactions, features, sep="\n")
    return interactions, features


# ------------------------------------------------------------------ missing pictures


def missing_pictures(
    interactions: Interactions, features: ItemFeatures, arguments: argparse.Namespace
) -> None:
    """Print NDCG for the three ways to treat missing pictures, and paired differences by user."""
    variants = {
        "ID and text": ItemFeatures(features.vocabulary, {"text": features["text"]}),
        "pictures where there are any": features,
        "zeros as pictures": with_zeros(features),
    }
    split = leave_one_out(
        interactions, vocabulary=features.vocabulary, max_seq_length=arguments.positions
    )
    queries = split.validation if arguments.validation else split.test
    config = settings(arguments)
    gains: dict[str, list[torch.Tensor]] = {name: [] for name in variants}
    for seed in arguments.seeds:
        for name, item_features in variants.items():
            path = arguments.output / f"missing-{name.replace(' ', '-')}-{seed}.json"
            if not path.exists():
                model = train(item_features, split, config, seed, arguments, path)
                path.write_text(json.dumps(rank_targets(model, queries)["fused"].tolist()))
            gains[name].append(ndcg(torch.tensor(json.loads(path.read_text()))))
            print(f"seed {seed}, {name}: ndcg@{CUT} {gains[name][-1].mean():.4f}", flush=True)

    pictured = (features["image"].lengths > 0)[queries.targets]
    groups = {"all": pictured | True, "pictured": pictured, "not pictured": ~pictured}
    means = {name: torch.stack(values).mean(0) for name, values in gains.items()}  # (Q,)
    print(f"\n| ndcg@{CUT} of targets | " + " | ".join(groups) + " | by seed |")
    print("|---|" + "---:|" * len(groups) + "---|")
    for name, mean in means.items():
        cells = [f"{mean[group].mean():.4f}" for group in groups.values()]
        seeds = ", ".join(f"{gain.mean():.4f}" for gain in gains[name])
        print(f"| {name} | {' | '.join(cells)} | {seeds} |")
    full = means["pictures where there are any"]
    for name in ("ID and text", "zeros as pictures"):
        difference = full - means[name]
        error = 1.96 * difference.std() / math.sqrt(len(difference))
        print(f"over {name}: {difference.mean():+.4f} +- {error:.4f} (95 %, users paired)")


def with_zeros(features: ItemFeatures) -> ItemFeatures:
    """Give every item a full set of picture tokens, with zeros for missing pictures."""
    tokens = features["image"].tokens
    text = ItemFeatures(features.vocabulary, {"text": features["text"]})
    return text.add_modality("image", tokens)


# ------------------------------------------------------------------ late items


def late_items(
    interactions: Interactions, features: ItemFeatures, arguments: argparse.Namespace
) -> None:
    """Print the hit rate for late items: of the model, of chance and of popularity."""
    found: dict[str, list[dict[str, float]]] = {}
    for seed in arguments.seeds:
        generator = np.random.default_rng(seed)
        shuffled = generator.permutation(interactions.num_items)
        tenth = interactions.num_items // 10
        # Settings are chosen on a different set of late items than the reported results.
        first = tenth if arguments.validation else 0
        late = [interactions.item_ids[code] for code in shuffled[first : first + tenth]]
        known = interactions.keep_items(set(interactions.item_ids) - set(late))
        trained = features.select(known.item_ids)
        split = leave_one_out(
            known, vocabulary=trained.vocabulary, max_seq_length=arguments.positions
        )
        vocabulary = ItemVocabulary([*known.item_ids, *late])
        queries = late_queries(interactions, vocabulary, known.num_items, arguments)
        for id_dropout in arguments.id_dropout:
            name = f"id_dropout {id_dropout}"
            path = arguments.output / f"late-{name.replace(' ', '-')}-{seed}.json"
            if not path.exists():
                config = settings(arguments, id_dropout=id_dropout)
                model = train(trained, split, config, seed, arguments, path)
                model.add_items(features.select(late))
                among = AmongLate(queries, known.num_items)
                row = {
                    "of all": hit_rate(rank_targets(model, queries)["fused"]),
                    "of the late": hit_rate(rank_targets(model, among)["fused"]),
                }
                path.write_text(json.dumps(row))
            found.setdefault(name, []).append(json.loads(path.read_text()))
            print(f"seed {seed}, {name}: {found[name][-1]}", flush=True)
        found.setdefault("chance", []).append(chance(queries, len(vocabulary), len(late)))
        counts = np.concatenate([split.item_counts.numpy(), np.zeros(len(late), dtype=np.int64)])
        found.setdefault("popularity in training", []).append(
            popularity(queries, counts, len(late), generator)
        )
        rows = np.array(vocabulary.rows(interactions.item_ids))[interactions.item_codes]
        found.setdefault("popularity with all data (it looks ahead)", []).append(
            popularity(queries, np.bincount(rows, minlength=len(counts)), len(late), generator)
        )
    print(f"\n{len(queries):,} queries, {len(late)} late items of {len(vocabulary)}")
    print(f"\n| hit_rate@{CUT} | among all items | among the late items | by seed |")
    print("|---|---:|---:|---|")
    for name, rows_ in found.items():
        of_all, of_late = (np.mean([row[key] for row in rows_]) for key in rows_[0])
        seeds = ", ".join(f"{row['of all']:.4f} / {row['of the late']:.4f}" for row in rows_)
        print(f"| {name} | {of_all:.4f} | {of_late:.4f} | {seeds} |")


def late_queries(
    interactions: Interactions,
    vocabulary: ItemVocabulary,
    num_known: int,
    arguments: argparse.Namespace,
) -> RankingDataset:
    """One query per interaction with a late item; its history is the known items before it."""
    rows = np.array(vocabulary.rows(interactions.item_ids))[interactions.item_codes]
    histories, targets, users = [], [], []
    for user, piece in zip(
        interactions.user_ids, np.split(rows, interactions.offsets[1:-1]), strict=True
    ):
        for position in np.flatnonzero(piece > num_known):
            before = piece[:position]
            before = before[before <= num_known]
            if len(before) >= 2:
                histories.append(before)
                targets.append(piece[position])
                users.append(user)
    offsets = np.cumsum([0, *map(len, histories)])
    return RankingDataset(
        np.concatenate(histories),
        offsets,
        np.array(targets),
        users,
        max_seq_length=arguments.positions,
    )


class AmongLate(Dataset[dict[str, Any]]):
    """The same queries, ranked among late items only."""

    def __init__(self, queries: RankingDataset, num_known: int) -> None:
        self.queries = queries
        self.known = torch.arange(1, num_known + 1)

    def __len__(self) -> int:
        return len(self.queries)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.queries[index], "seen_ids": self.known}


def chance(queries: RankingDataset, num_items: int, num_late: int) -> dict[str, float]:
    """Hit rate of a random order."""
    seen = (len(np.unique(query["seen_ids"])) for query in iterate(queries))
    of_all = np.mean([CUT / (num_items - count) for count in seen])
    return {"of all": float(of_all), "of the late": CUT / num_late}


def popularity(
    queries: RankingDataset, counts: np.ndarray, num_late: int, generator: np.random.Generator
) -> dict[str, float]:
    """Hit rate of the popularity baseline, with ties in random order."""
    order = counts + generator.random(len(counts)) / 2
    order[0] = -1  # padding
    late = order[-num_late:]
    ranks, among = [], []
    for query in iterate(queries):
        target = order[query["target_ids"]]
        above = order > target
        above[query["seen_ids"]] = False
        ranks.append(1 + int(above.sum()))
        among.append(1 + int((late > target).sum()))
    return {
        "of all": hit_rate(torch.tensor(ranks)),
        "of the late": hit_rate(torch.tensor(among)),
    }


def iterate(queries: RankingDataset) -> Iterator[dict[str, Any]]:
    return (queries[index] for index in range(len(queries)))


# ------------------------------------------------------------------ training and metrics


def settings(arguments: argparse.Namespace, **changes: float) -> ODMTConfig:
    return ODMTConfig(
        distillation_weight=arguments.distillation_weight,
        modality_dropout=arguments.modality_dropout,
        **changes,
    )


def train(
    features: ItemFeatures,
    split: Split,
    config: ODMTConfig,
    seed: int,
    arguments: argparse.Namespace,
    path: Path,
) -> ODMTWrapper:
    torch.manual_seed(seed)
    if not arguments.no_standardize:
        features = features.standardize()
    backbone = SASRec(arguments.hidden_size, max_seq_length=arguments.positions)
    model = ODMTWrapper(backbone, features, config)
    result = fit(
        model,
        split,
        path.with_suffix(""),
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        warmup_steps=arguments.warmup_steps,
        patience=arguments.epochs,
        item_to_item=False,  # features are compared
        seed=seed,
        k=(CUT,),
        dataloader_pin_memory=False,
        disable_tqdm=True,
    )
    validation, test = (part[f"ndcg@{CUT}"] for part in (result.validation, result.test))
    print(
        f"{path.stem}: best epoch {result.best_epoch:.0f}, {validation:.4f}, {test:.4f}", flush=True
    )
    return model


def ndcg(ranks: torch.Tensor) -> torch.Tensor:
    """(Q,) ranks to (Q,) gains."""
    return torch.where(ranks <= CUT, 1 / torch.log2(ranks + 1.0), 0.0)


def hit_rate(ranks: torch.Tensor | Sequence[int]) -> float:
    return float((torch.as_tensor(ranks) <= CUT).float().mean())


if __name__ == "__main__":
    main()
