"""SASRec of this package, RecTools and RePlay, trained on one thread for the same CPU time.

All read the last 50 films of a history, have a hidden size of 64, 2 blocks of 2 heads and a dropout
of 0.2, and train with a learning rate of 0.001. The loss is the default of each library. The batch
is that of `fit`, and 128 sequences in the other libraries. They train on the last 51 films of each
history, this package on all of it, or with `odmt-sdk-last` on the last 51 too. After every epoch
the clock stands still while the validation targets are ranked among all films except those of the
history.

Install each library beside this package in an environment of its own, and train it; then draw all
of them. RecTools 0.19 installs NumPy 1, with which the newest pyarrow cannot be imported.

    python benchmarks/libraries/same_time.py train odmt-sdk --data FOLDER --output outputs/libraries
    pip install "rectools[torch]" "pyarrow<21"
    python benchmarks/libraries/same_time.py train rectools --data FOLDER --output outputs/libraries
    pip install "replay-rec[torch]"
    python benchmarks/libraries/same_time.py train replay --data FOLDER --output outputs/libraries
    python benchmarks/libraries/same_time.py draw --output outputs/libraries
"""

import argparse
import importlib.metadata
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # where this folder is a package

import torch
from film_data import film_interactions
from torch.utils.data import DataLoader

from odmt_sdk import SequenceCollator, leave_one_out
from odmt_sdk.data import Split
from odmt_sdk.evaluation import markdown_table, ranking_metrics

LENGTH, WIDTH, BLOCKS, HEADS, DROPOUT = 50, 64, 2, 2, 0.2
LEARNING_RATE, BATCH = 1e-3, 128
K = 10


class Curve:
    """The metrics after each epoch, by CPU seconds of training.

    Args:
        seconds: CPU seconds after which training stops.
    """

    def __init__(self, seconds: float) -> None:
        self.limit, self.used = seconds, 0.0
        self.points: list[dict[str, float]] = []
        self._since = 0.0

    def start(self) -> None:
        self._since = time.process_time()

    def stop(self) -> None:
        self.used += time.process_time() - self._since

    def add(self, metrics: dict[str, float]) -> None:
        kept = {name: metrics[name] for name in (f"hit_rate@{K}", f"ndcg@{K}")}
        self.points.append({"seconds": self.used, **kept})
        print(f"{self.used:7.1f} s  ndcg@{K} {kept[f'ndcg@{K}']:.4f}", flush=True)

    @property
    def done(self) -> bool:
        return self.used >= self.limit


def train_odmt_sdk(split: Split, curve: Curve, output: Path) -> None:
    """`fit`, without what it adds after training."""
    from transformers import TrainerCallback

    from odmt_sdk import ItemFeatures, ODMTConfig, ODMTWrapper, SASRec, fit

    class Clock(TrainerCallback):
        def on_epoch_begin(self, *_: Any, **__: Any) -> None:
            curve.start()

        def on_epoch_end(self, *_: Any, **__: Any) -> None:
            curve.stop()

        def on_evaluate(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            metrics = given["metrics"]
            if len(curve.points) < round(state.epoch):  # not the last evaluation of the best epoch
                curve.add({name.removeprefix("eval_"): value for name, value in metrics.items()})
            control.should_training_stop |= curve.done

    backbone = SASRec(
        WIDTH, num_layers=BLOCKS, num_heads=HEADS, max_seq_length=LENGTH, dropout=DROPOUT
    )
    model = ODMTWrapper(
        backbone=backbone,
        item_features=ItemFeatures(split.vocabulary, {}),
        config=ODMTConfig(fusion="id", max_seq_length=LENGTH),
    )
    fit(
        model, split, output, epochs=1000, learning_rate=LEARNING_RATE, item_to_item=False,
        k=(K,), callbacks=[Clock()], compare=False, use_cpu=True, disable_tqdm=True,
        log_level="error",
    )  # fmt: skip


def train_rectools(split: Split, curve: Curve, output: Path) -> None:
    """`SASRecModel`, which trains on the last 51 items of each history."""
    import pandas as pd
    import pytorch_lightning as lightning
    from rectools import Columns
    from rectools.dataset import Dataset
    from rectools.models import SASRecModel

    class Clock(lightning.Callback):
        def on_train_epoch_start(self, *_: Any) -> None:
            curve.start()

        def on_train_epoch_end(self, *_: Any) -> None:
            curve.stop()

    def trainer() -> lightning.Trainer:
        return lightning.Trainer(
            max_epochs=1, accelerator="cpu", callbacks=[Clock()], logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip

    rows, offsets = split.train.sequences()
    users = torch.repeat_interleave(
        torch.arange(len(offsets) - 1), torch.as_tensor(offsets).diff()
    ).numpy()
    table = pd.DataFrame({Columns.User: users, Columns.Item: rows, Columns.Weight: 1.0})
    table[Columns.Datetime] = pd.to_datetime(range(len(table)), unit="s")  # keeps the order
    dataset = Dataset.construct(table)
    model = SASRecModel(
        n_blocks=BLOCKS, n_heads=HEADS, n_factors=WIDTH, dropout_rate=DROPOUT,
        session_max_len=LENGTH, lr=LEARNING_RATE, batch_size=BATCH, get_trainer_func=trainer,
        recommend_torch_device="cpu",
    )  # fmt: skip
    targets = split.validation.targets
    queries = range(len(targets))  # validation has all users, in the order of training
    while not curve.done:
        model.fit_partial(dataset, min_epochs=1, max_epochs=1)
        found = model.recommend(queries, dataset, k=K, filter_viewed=True)
        place = found.set_index([Columns.User, Columns.Item])[Columns.Rank].to_dict()
        ranks = [place.get(query, K + 1) for query in enumerate(targets.tolist())]
        curve.add(ranking_metrics(torch.tensor(ranks), (K,)))


def train_replay(split: Split, curve: Curve, output: Path) -> None:
    """`SasRec`, which is given the last 51 items of each history, as its examples do."""
    import lightning
    import pandas as pd
    from replay.data import FeatureHint, FeatureSource, FeatureType
    from replay.data.nn import ParquetModule, TensorFeatureInfo, TensorFeatureSource, TensorSchema
    from replay.nn.lightning import LightningModule
    from replay.nn.lightning.optimizer import OptimizerFactory
    from replay.nn.sequential import SasRec
    from replay.nn.transform.template import make_default_sasrec_transforms

    class Clock(lightning.Callback):
        def on_train_epoch_start(self, *_: Any) -> None:
            curve.start()

        def on_train_epoch_end(self, trainer: Any, *_: Any) -> None:
            curve.stop()
            network.eval()
            curve.add(evaluate(last_logits, split))
            network.train()
            trainer.should_stop |= curve.done

    number = len(split.vocabulary)  # items are 0..number - 1 there, and number is padding
    rows, offsets = split.train.sequences()
    histories = [rows[start:end].astype("int64") - 1 for start, end in itertools.pairwise(offsets)]
    path = output / "train.parquet"
    pd.DataFrame({"item_id": histories}).to_parquet(path)
    schema = TensorSchema(
        TensorFeatureInfo(
            "item_id", is_seq=True, feature_type=FeatureType.CATEGORICAL, embedding_dim=WIDTH,
            padding_value=number, cardinality=number, feature_hint=FeatureHint.ITEM_ID,
            feature_sources=[TensorFeatureSource(FeatureSource.INTERACTIONS, "item_id")],
        )
    )  # fmt: skip
    network = SasRec.from_params(
        schema, embedding_dim=WIDTH, num_heads=HEADS, num_blocks=BLOCKS,
        max_sequence_length=LENGTH, dropout=DROPOUT,
    )  # fmt: skip

    def last_logits(items: torch.Tensor) -> torch.Tensor:
        left = torch.nn.functional.pad(items, (LENGTH - items.shape[1], 0))
        padded = torch.where(left > 0, left - 1, number)
        found = network(feature_tensors={"item_id": padded}, padding_mask=left > 0)
        return torch.nn.functional.pad(found["logits"], (1, 0))

    data = ParquetModule(
        batch_size=BATCH,
        metadata={"train": {"item_id": {"shape": LENGTH + 1, "padding": number}}},
        transforms=make_default_sasrec_transforms(schema),
        train_path=str(path),
    )
    trainer = lightning.Trainer(
        max_epochs=1000, accelerator="cpu", callbacks=[Clock()], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        limit_val_batches=0,
    )  # fmt: skip
    optimizer = OptimizerFactory(learning_rate=LEARNING_RATE)
    trainer.fit(LightningModule(network, optimizer_factory=optimizer), data)


@torch.no_grad()
def evaluate(score: Callable[[torch.Tensor], torch.Tensor], split: Split) -> dict[str, float]:
    """Rank the validation targets.

    Args:
        score: from the latest items (B, L), padded with 0 on the left, to scores (B, N + 1).
        split: the split.
    """
    ranks = []
    for batch in DataLoader(split.validation, batch_size=256, collate_fn=SequenceCollator()):
        scores, targets = score(batch["item_ids"]), batch["target_ids"][:, None]
        of_target = scores.gather(1, targets)
        scores[:, 0] = -torch.inf
        scores.scatter_(1, batch["seen_ids"], -torch.inf)
        ranks.append(1 + (scores.scatter_(1, targets, -torch.inf) >= of_target).sum(1))
    return ranking_metrics(torch.cat(ranks), (K,))


class Run(NamedTuple):
    """One curve of the comparison."""

    name: str
    train: Callable[[Split, Curve, Path], None]
    package: str  # whose version is shown
    windows: Literal["all", "last"] = "all"


RUNS = {
    "odmt-sdk": Run("odmt-sdk {}", train_odmt_sdk, "odmt-sdk"),
    # the last window of each history alone, as in the others
    "odmt-sdk-last": Run("odmt-sdk {}, last window", train_odmt_sdk, "odmt-sdk", "last"),
    "rectools": Run("RecTools {}", train_rectools, "RecTools"),
    "replay": Run("replay-rec {}", train_replay, "replay-rec"),
}


def draw(curves: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the metric by CPU time.

    Args:
        curves: contents of the files.
        path: of the picture.
    """
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 4))
    for about in curves:
        seconds = [point["seconds"] / 60 for point in about["curve"]]
        values = [point[f"ndcg@{K}"] for point in about["curve"]]
        axis.plot(seconds, values, marker=".", label=about["name"])
    axis.set_xlabel("minutes of training on one thread of a CPU")
    axis.set_ylabel(f"validation ndcg@{K}")
    axis.set_ylim(bottom=0)
    axis.set_xlim(left=0)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, loc="lower right")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def table(curves: Sequence[dict[str, Any]]) -> str:
    """The best epoch of each library, and after how much time it was reached, as Markdown."""
    rows = [["library", "seconds of an epoch", "epochs", f"hit_rate@{K}", f"ndcg@{K}", "after"]]
    for about in curves:
        points = about["curve"]
        best = max(points, key=lambda point: point[f"ndcg@{K}"])
        values = [f"{best[name]:.4f}" for name in (f"hit_rate@{K}", f"ndcg@{K}")]
        each = f"{points[-1]['seconds'] / len(points):.1f}"
        rows.append([about["name"], each, str(len(points)), *values, f"{best['seconds']:.0f} s"])
    return markdown_table(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train one library")
    train.add_argument("run", choices=RUNS)
    train.add_argument("--data", type=Path, required=True, help="folder with interactions.parquet")
    train.add_argument("--seconds", type=float, default=600, help="CPU seconds of training")
    drawing = commands.add_parser("draw", help="draw what was trained, and print a table")
    for command in (train, drawing):
        command.add_argument("--output", type=Path, default=Path("outputs/libraries"))
    given = parser.parse_args()
    if given.command == "draw":
        paths = [given.output / f"{run}.json" for run in RUNS]
        found = [json.loads(path.read_text()) for path in paths if path.exists()]
        draw(found, given.output / "same-time.png")
        print(table(found))
        return
    torch.set_num_threads(1)
    torch.manual_seed(0)
    run = RUNS[given.run]
    interactions = film_interactions(given.data)
    split = leave_one_out(interactions, max_seq_length=LENGTH, windows=run.windows)
    given.output.mkdir(parents=True, exist_ok=True)
    curve = Curve(given.seconds)
    with tempfile.TemporaryDirectory() as folder:
        run.train(split, curve, Path(folder))
    name = run.name.format(importlib.metadata.version(run.package))
    about = {"name": name, "curve": curve.points}
    (given.output / f"{given.run}.json").write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
