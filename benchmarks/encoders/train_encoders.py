"""Frozen text features against a text encoder that is trained with the model, at equal CPU time.

Both train on the same users and items for the same processor time, which other processes on the
machine do not lengthen. A third method spends half of the time on frozen features and then trains
the encoder too. Results are kept in a folder, and a finished method is not repeated.

    python benchmarks/encoders/train_encoders.py --data FOLDER --encoder DIR --minutes 5
"""

import argparse
import itertools
import json
import time
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from torch.utils.data import DataLoader
from transformers import TrainerCallback

from odmt_sdk import (
    Interactions,
    ItemFeatures,
    ODMTConfig,
    ODMTWrapper,
    SASRec,
    SequenceCollator,
    TrainableText,
    fit,
    leave_one_out,
)
from odmt_sdk.data import Split, read_columns
from odmt_sdk.evaluation import rank_targets

HIDDEN_SIZE, POSITIONS, COLD = 64, 10, 5
METHODS = ("frozen", "trained", "frozen, then trained")


class StopAfter(TrainerCallback):
    """Stops after some processor time, and notes the validation results until then."""

    def __init__(self, seconds: float) -> None:
        self.start, self.seconds = time.process_time(), seconds
        self.steps = 0
        self.curve: list[tuple[float, float, float]] = []  # epoch, processor seconds, ndcg@10

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.steps += 1
        if time.process_time() > self.start + self.seconds:
            control.should_evaluate = control.should_save = control.should_training_stop = True

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        found = kwargs["metrics"].get("eval_ndcg@10")
        if found is not None:  # the test set has another prefix
            self.curve.append((state.epoch, round(time.process_time() - self.start, 1), found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--encoder", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--users", type=int, default=2000)
    parser.add_argument("--minutes", type=float, default=5, help="processor time of each method")
    parser.add_argument("--tokens", type=int, default=12, help="tokens per title")
    parser.add_argument("--layers", type=int, nargs="+", help="layers with LoRA; default: all")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--encoder-learning-rate", type=float, default=1e-4)
    parser.add_argument("--costs", action="store_true", help="measure single steps, and stop")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("outputs/encoders"))
    given = parser.parse_args()

    rows = read_columns(given.data / "interactions.parquet", ["user_id", "item_id", "timestamp"])
    users = set(sorted(set(rows["user_id"]))[: given.users])
    kept = [place for place, user in enumerate(rows["user_id"]) if user in users]
    interactions = Interactions.from_table({name: column[kept] for name, column in rows.items()})
    table = read_columns(given.data / "items.parquet", ["item_id", "text"])
    wanted = set(interactions.item_ids)
    here = [place for place, item in enumerate(table["item_id"]) if item in wanted]
    items = {name: column[here] for name, column in table.items()}
    settings = {"pooling": "mean", "max_tokens": given.tokens}
    features = ItemFeatures.from_items(
        items, text_encoder=given.encoder, text_pooling="mean", max_text_tokens=given.tokens
    ).standardize()
    split = leave_one_out(interactions, vocabulary=features.vocabulary, max_seq_length=POSITIONS)
    print(f"{len(users)} users, {features.num_items} items", flush=True)
    if given.costs:
        print(costs_table(features, split, items, settings, given))
        return
    given.output.mkdir(parents=True, exist_ok=True)
    results = {}
    for method in given.methods:
        path = given.output / f"{method.replace(', ', '-').replace(' ', '-')}-{given.seed}.json"
        if not path.exists():
            path.write_text(json.dumps(train(method, features, split, items, settings, given)))
        results[method] = json.loads(path.read_text())
    print(results_table(results, split.item_counts[split.test.targets] < COLD))


def costs_table(
    features: ItemFeatures,
    split: Split,
    items: dict[str, Any],
    settings: dict[str, Any],
    given: argparse.Namespace,
) -> str:
    """Processor seconds of a step, forward and backward, with the same batches for all encoders."""
    loader = DataLoader(split.train, given.batch_size, collate_fn=SequenceCollator())
    batches = list(itertools.islice(loader, 4))
    distinct = sum(len(batch["item_ids"].unique()) for batch in batches) / len(batches)
    lines = [
        f"| text encoder | step with {distinct:.0f} titles | LoRA weights |",
        "|---|---:|---:|",
    ]
    variants: dict[str, tuple[list[int] | None, bool]] = {"LoRA in all layers": (None, False)}
    if given.layers:
        name = f"LoRA in layers {', '.join(map(str, given.layers))}"
        variants |= {
            name: (given.layers, False),
            f"{name}, layers below kept": (given.layers, True),
        }
    for name, variant in {"frozen": None, **variants}.items():
        encoders = None
        if variant is not None:
            encoders = {"text": trainable_text(given.encoder, items, *variant, settings)}
        model = new_model(features, encoders)
        for batch in batches:  # what is kept is computed here
            model(**batch)
        start = time.process_time()
        for batch in batches:
            model(**batch).loss.backward()
        seconds = (time.process_time() - start) / len(batches)
        weights = sum(w.numel() for w in model.encoders.parameters() if w.requires_grad)
        lines.append(f"| {name} | {seconds:.2f} | {f'{weights:,}' if weights else ''} |")
    return "\n".join(lines)


def trainable_text(
    encoder: str, items: dict[str, Any], layers: list[int] | None, kept: bool, settings: Any
) -> TrainableText:
    # PEFT takes layers only with names of modules, here those of BERT
    modules = "all-linear" if layers is None else ["query", "key", "value", "dense"]
    lora = LoraConfig(r=8, lora_alpha=16, target_modules=modules, layers_to_transform=layers)
    return TrainableText(encoder, items, lora=lora, keep_frozen_layers=kept, **settings)


def new_model(
    features: ItemFeatures, encoders: dict[str, TrainableText] | None = None
) -> ODMTWrapper:
    config = ODMTConfig(max_seq_length=POSITIONS, id_dropout=0.2)
    return ODMTWrapper(new_backbone(), features, config, encoders=encoders)


def new_backbone() -> SASRec:
    return SASRec(HIDDEN_SIZE, max_seq_length=POSITIONS)


def results_table(results: dict[str, dict[str, Any]], cold: torch.Tensor) -> str:
    """ndcg@10 on the test set: on all targets, cold ones and the others, and what it took."""
    lines = [
        f"| text encoder | all {len(cold):,} targets | against the first | {cold.sum():,} cold "
        "| others | text alone | with counts | steps | best epoch of all | processor minutes |",
        "|---|" + "---:|" * 9,
    ]
    reference = None
    for name, found in results.items():
        gains = {source: gain(torch.tensor(ranks)) for source, ranks in found["ranks"].items()}
        fused = gains["fused"]
        reference = fused if reference is None else reference
        more = fused - reference
        error = more.std() / len(more) ** 0.5  # of the mean over users; not over seeds
        values = [fused[cold], fused[~cold], gains["text"], gains["with counts"]]
        lines.append(
            f"| {name} | {fused.mean():.4f} | {more.mean():+.4f} ± {error:.4f} "
            f"| {' | '.join(f'{value.mean():.4f}' for value in values)} | {found['steps']:,} "
            f"| {found['best_epoch']:.0f} of {found['curve'][-1][0]:.0f} "
            f"| {found['seconds'] / 60:.1f} |"
        )
    return "\n".join(lines)


def gain(ranks: torch.Tensor) -> torch.Tensor:
    """ndcg@10 of each user."""
    return torch.where(ranks <= 10, 1 / (ranks + 1.0).log2(), 0.0)


def train(
    method: str,
    features: ItemFeatures,
    split: Split,
    items: dict[str, Any],
    settings: dict[str, Any],
    given: argparse.Namespace,
) -> dict[str, Any]:
    torch.manual_seed(given.seed)
    folder = given.output / f"run-{method.replace(', ', '-').replace(' ', '-')}-{given.seed}"
    encoders = None
    if method != "frozen":
        kept = 0 not in (given.layers or [0])
        text = trainable_text(given.encoder, items, given.layers, kept, settings)
        encoders = {"text": text}
    seconds, first = given.minutes * 60, StopAfter(0)
    if method == "frozen, then trained":
        model = new_model(features)
        first = run(model, split, folder, seconds / 2, given)[1]
        model = ODMTWrapper.from_pretrained(
            folder, new_backbone(), item_features=features, encoders=encoders
        ).train()
        seconds /= 2
    else:
        model = new_model(features, encoders)
    result, timer = run(model, split, folder, seconds, given)
    ranks = {"with counts": rank_targets(model, split.test, progress=False)["fused"]}
    model.item_to_item_weight = 0
    ranks |= rank_targets(model, split.test, progress=False)
    return {
        "ranks": {source: found.tolist() for source, found in ranks.items()},
        "steps": first.steps + timer.steps,
        "best_epoch": result.best_epoch,
        "seconds": sum(part.curve[-1][1] for part in (first, timer) if part.curve),
        "first_curve": first.curve,
        "curve": timer.curve,
    }


def run(
    model: ODMTWrapper, split: Split, folder: Path, seconds: float, given: argparse.Namespace
) -> tuple[Any, StopAfter]:
    timer = StopAfter(seconds)
    rates = {"encoder_learning_rate": given.encoder_learning_rate} if len(model.encoders) else {}
    result = fit(
        model,
        split,
        folder,
        epochs=1000,
        patience=1000,
        batch_size=given.batch_size,
        seed=given.seed,
        callbacks=[timer],
        disable_tqdm=True,
        **rates,
    )
    return result, timer


if __name__ == "__main__":
    main()
