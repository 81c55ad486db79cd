"""Recommending without training: content adapters on catalogues that they have not seen.

Small adapters of one text source are trained on single data sets and on several at once. Each is
evaluated on every other data set, alone and together with the popularity of that catalogue, as
`recommend(..., popularity=counts)` adds it. The weight of the popularity for a data set is chosen
on the validation targets of the other data sets. Finished runs are kept and not repeated.

    python benchmarks/transfer/zero_shot.py --folder DATA --text-encoder DIR --seeds 0 1 2 \\
        --train ml-1m-posters xwines amazon-instruments --test ml-latest-posters hm-fashion \\
        --adapters shipped:films-content=ml-1m-posters

Letters: N items, Q queries, W width of a vector, d feature width.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # where this folder is a package

import numpy as np
import torch
from accuracy.significance import gains, mean_and_deviation, paired_bootstrap
from film_data import ENCODERS, TEXTS, film_interactions
from torch.nn.utils.rnn import pad_sequence
from transformers import TrainingArguments

from odmt_sdk import (
    Interactions,
    ItemFeatures,
    ODMTConfig,
    ODMTTrainer,
    ODMTWrapper,
    SASRec,
    leave_one_out,
)
from odmt_sdk.data import RankingDataset, SequenceDataset, Split, read_columns
from odmt_sdk.evaluation import markdown_table, ranking_metrics, target_ranks
from odmt_sdk.retrieval import PopularityPrior, fused_vectors

METRICS = ("hit_rate@10", "ndcg@10")
WEIGHTS = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0)  # of the popularity
POSITIONS = 20
POPULARITY, ALONE = "popularity", "alone"
SHARED = {"ml-1m-posters": "films", "ml-100k-posters": "films"}  # data sets with the same items
SHORTEST = {"hm-fashion": 3}  # events of a user; 5 elsewhere
WITHOUT = {"ml-latest-posters": "ml-1m-posters"}  # ids that both have are left out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path(), help="where the data sets are")
    parser.add_argument("--train", nargs="*", default=[], help="data sets to train on and test on")
    parser.add_argument("--test", nargs="*", default=[], help="data sets to test on alone")
    parser.add_argument(
        "--adapters",
        nargs="*",
        default=[],
        help="others: NAME=DATA,... seen; NAME,NAME for the seeds of one adapter",
    )
    parser.add_argument("--text-encoder", default=ENCODERS["text"], help="folder or Hub name")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, default=300, help="training steps of an adapter")
    parser.add_argument("--logq", action="store_true", help="train with the logQ correction")
    parser.add_argument("--features", type=Path, default=Path("outputs/features"))
    parser.add_argument("--output", type=Path, default=Path("outputs/zero-shot"))
    arguments = parser.parse_args()

    arguments.output.mkdir(parents=True, exist_ok=True)
    data = {name: load(name, arguments) for name in (*arguments.train, *arguments.test)}
    adapters = []  # label, name or folder, what it was trained on, seed
    for seed, size in itertools.product(arguments.seeds, range(1, len(arguments.train) + 1)):
        for names in itertools.combinations(arguments.train, size):
            if size < len(arguments.train) or arguments.test:
                folder = str(trained(names, data, seed, arguments))
                adapters.append((" + ".join(names), folder, names, seed))
    for given in arguments.adapters:
        adapters += seeds_of(given)
    rows = []
    for (label, adapter, names, seed), target in itertools.product(adapters, data):
        if domains([target]).isdisjoint(domains(names)):
            path = arguments.output / "ranks" / f"{target}-{label.replace(' ', '')}-{seed}.json"
            found = ranked(path, adapter, *data[target])
            users = len(data[target][0].validation)
            rows.append({"data": target, "users": users, "adapter": label, "seed": seed, **found})
            print(label, seed, target, found["weights"], flush=True)
    text = report(rows)
    (arguments.output / "zero_shot.md").write_text(text + "\n")
    print(text)


def seeds_of(given: str) -> list[tuple[str, str, tuple[str, ...], int]]:
    """Read "NAME,NAME=DATA,DATA": label, adapter, data sets it has seen and seed, of each one."""
    adapters, _, seen = (part.split(",") for part in given.rpartition("="))
    label = Path(adapters[0]).name
    return [(label, adapter, tuple(seen), seed) for seed, adapter in enumerate(adapters)]


def domains(names: Iterable[str]) -> set[str]:
    """Data sets that share items have one name."""
    return {SHARED.get(name, name) for name in names}


def load(name: str, arguments: argparse.Namespace) -> tuple[Split, ItemFeatures]:
    """Split a data set, and load the texts of its items; they are encoded on first use."""
    folder, path = arguments.folder / name, arguments.features / f"{name}-text"
    if path.is_dir():
        features = ItemFeatures.open(path)
    else:
        items = read_columns(folder / "items.parquet", ["item_id", "text"])
        features = ItemFeatures.from_items(
            items, path=path, text_encoder=arguments.text_encoder, **TEXTS
        )
    seen = set()
    if name in WITHOUT:
        known = arguments.folder / WITHOUT[name] / "items.parquet"
        seen = set(read_columns(known, ["item_id"])["item_id"])
    if name.startswith("ml-"):
        interactions = film_interactions(folder, without=seen)
    else:
        interactions = Interactions.from_table(folder / "interactions.parquet")
        interactions = interactions.min_length(SHORTEST.get(name, 5))
    made = {"text": {**features.provenance["text"], "encoder": ENCODERS["text"]}}
    features = ItemFeatures(features.vocabulary, {"text": features["text"]})
    features.provenance = made
    features = features.select(interactions.item_ids).standardize()
    split = leave_one_out(
        interactions,
        vocabulary=features.vocabulary,
        max_seq_length=POSITIONS,
        windows="last",
    )
    return split, features


# ------------------------------------------------------------------ training


def trained(
    names: Sequence[str],
    data: dict[str, tuple[Split, ItemFeatures]],
    seed: int,
    arguments: argparse.Namespace,
) -> Path:
    """Train an adapter of one text source on one or several data sets; return its folder.

    Every item of a batch is a candidate for every position, whatever data set it is from. Without
    the logQ correction the scores learn how much likelier an item is after a history than it is
    anywhere, and a catalogue's own popularity completes them.
    """
    folder: Path = arguments.output / f"{'+'.join(names)}-{seed}"
    if (folder / "config.json").exists():
        return folder
    split, features = mixed([data[name] for name in names])
    torch.manual_seed(seed)
    config = ODMTConfig(
        fusion="only:text", max_seq_length=POSITIONS, logq_correction=arguments.logq
    )
    model = ODMTWrapper(SASRec(64, max_seq_length=POSITIONS), features, config, check=False)
    settings = TrainingArguments(
        output_dir=str(folder / "training"),
        max_steps=arguments.steps,
        per_device_train_batch_size=64,
        learning_rate=1e-3,
        weight_decay=0.1,
        warmup_steps=50,
        lr_scheduler_type="constant_with_warmup",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=seed,
    )
    ODMTTrainer(model, settings, train_dataset=split[0], item_counts=split[1]).train()
    model.eval().save_pretrained(folder, content_only=True)
    return folder


def mixed(
    parts: Sequence[tuple[Split, ItemFeatures]],
) -> tuple[tuple[SequenceDataset, torch.Tensor], ItemFeatures]:
    """Put data sets side by side: sequences, training counts (N + 1,), and features.

    The features of each data set are standardized by its own moments, as those of a new catalogue
    are.
    """
    rows, offsets, counts, tokens, ids = [], [np.zeros(1, dtype=np.int64)], [torch.zeros(1)], [], []
    before, events = 0, 0
    for number, (split, features) in enumerate(parts):
        own, ends = split.train.sequences()
        rows.append(np.asarray(own) + before)
        offsets.append(np.asarray(ends[1:]) + events)
        counts.append(split.item_counts[1:])
        tokens.append(features["text"].tokens[1:].float())
        ids += [f"{number}/{item_id}" for item_id in features.vocabulary]
        before, events = before + len(features.vocabulary), events + len(own)
    padding = torch.zeros(1, 1, tokens[0].shape[-1])
    together = ItemFeatures.from_tensors(item_ids=ids, text=torch.cat([padding, *tokens]))
    together.provenance = parts[0][1].provenance
    sequences = SequenceDataset(
        np.concatenate(rows), np.concatenate(offsets), max_seq_length=POSITIONS, windows="last"
    )
    return (sequences, torch.cat(counts).long()), together


# ------------------------------------------------------------------ evaluation


def ranked(path: Path, adapter: str, split: Split, features: ItemFeatures) -> dict[str, Any]:
    """Metrics of an adapter that was not trained on a data set, for each weight of popularity.

    Returns:
        "weights" -> weight -> validation ndcg@10; "test" -> weight -> metrics and the paired
        bootstrap of ndcg@10 against popularity. Two of the "weights" are names.
    """
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_text())
        return found
    model = ODMTWrapper.from_pretrained(adapter, item_features=features, transfer=True)
    ranks = {
        part: ranks_of(model, getattr(split, part), split.item_counts)
        for part in ("validation", "test")
    }
    popular = gains(ranks["test"][POPULARITY], "ndcg@10")
    metrics = {name: ranking_metrics(of, (10,)) for name, of in ranks["test"].items()}
    found = {
        "weights": {
            name: ranking_metrics(of, (10,))["ndcg@10"] for name, of in ranks["validation"].items()
        },
        "test": {
            name: {
                **{metric: metrics[name][metric] for metric in METRICS},
                "over": paired_bootstrap(gains(of, "ndcg@10"), popular, samples=1000),
            }
            for name, of in ranks["test"].items()
        },
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found) + "\n")
    return found


@torch.no_grad()
def ranks_of(
    model: ODMTWrapper, dataset: RankingDataset, counts: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Ranks (Q,) of the targets by popularity, by the adapter, and by both for each weight."""
    catalogue = model.encode_catalogue()
    items = fused_vectors(catalogue, model.sources)  # (N + 1, W)

    def encode(rows: Sequence[torch.Tensor]) -> torch.Tensor:
        found = []
        for start in range(0, len(rows), 256):
            batch = pad_sequence(rows[start : start + 256], batch_first=True, padding_side="left")
            encoded = model.encode_sequences(batch, item_embeddings=catalogue)
            found.append(fused_vectors(encoded, model.sources))
        return torch.cat(found)  # (B, W)

    histories = [query["item_ids"] for query in dataset]
    seen = [query["seen_ids"] for query in dataset]
    queries = encode(histories)
    prior = PopularityPrior(
        counts, model.vocabulary, items, encode, max_seq_length=model.max_seq_length
    )
    ways = {
        POPULARITY: (torch.ones(len(queries), 1), prior.items[:, -1:]),
        ALONE: (queries, items),
    }
    for prior.weight in WEIGHTS:
        ways[f"{prior.weight:g}"] = (prior.extended(queries, histories)[0], prior.items)
    return {
        name: target_ranks(*both, dataset.targets, excluded=seen) for name, both in ways.items()
    }


def weight_without(rows: Sequence[dict[str, Any]], target: str) -> str:
    """The weight with the highest validation ndcg@10 over all users of the other data sets."""
    others = [row for row in rows if row["data"] != target]
    return max(
        (f"{weight:g}" for weight in WEIGHTS),
        key=lambda weight: sum(row["users"] * row["weights"][weight] for row in others),
    )


def report(rows: Sequence[dict[str, Any]]) -> str:
    """Format the results as a table; each row is a data set and an adapter, over seeds."""
    header = ["catalogue", "adapter trained on", "weight", *METRICS, "over popularity", "95 %"]
    table = [header]
    for target in dict.fromkeys(row["data"] for row in rows):
        weight = weight_without(rows, target)
        here = [row for row in rows if row["data"] == target]
        first = here[0]["test"][POPULARITY]
        table.append([target, "popularity", "", *(f"{first[m]:.4f}" for m in METRICS), "", ""])
        for label in dict.fromkeys(row["adapter"] for row in here):
            runs = [row["test"] for row in here if row["adapter"] == label]
            for way in (ALONE, weight):
                shown = []
                for metric in METRICS:
                    value, deviation = mean_and_deviation([run[way][metric] for run in runs])
                    shown.append(f"{value:.4f}" + f" ± {deviation:.4f}" * (len(runs) > 1))
                gain = mean(run[way]["ndcg@10"] for run in runs) / first["ndcg@10"] - 1
                low = min(run[way]["over"]["low"] for run in runs)
                high = max(run[way]["over"]["high"] for run in runs)
                interval = f"{low:+.4f} to {high:+.4f}"
                table.append(
                    [target, label, "-" if way == ALONE else way, *shown, f"{gain:+.0%}", interval]
                )
    return markdown_table(table)


if __name__ == "__main__":
    main()
