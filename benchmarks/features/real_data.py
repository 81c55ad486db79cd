"""End-to-end run on a real dataset: raw JPEG and text to recommendations, bare and wrapped.

The folder contains `items.parquet` (item_id, title, text), `interactions.parquet` (user_id,
item_id, timestamp) and `images/<item_id>.jpg`. As in the paper, a history is the last interactions
of a user; the last one is the test target and the one before it the validation target.

    python benchmarks/features/real_data.py --data FOLDER --text-encoder DIR --image-encoder DIR
"""

import argparse
import json
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # where this folder is a package

import torch
from film_data import film_table

from odmt_sdk import (
    Interactions,
    ItemFeatures,
    ODMTConfig,
    ODMTWrapper,
    SASRec,
    draw_recommendations,
    fit,
    leave_one_out,
)
from odmt_sdk.evaluation import metrics_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--text-encoder", required=True, help="folder or Hub name")
    parser.add_argument("--text-pooling", default="mean", choices=("first", "mean"))
    parser.add_argument("--image-encoder", required=True, help="folder or Hub name")
    parser.add_argument("--text-tokens", type=int, default=30)
    parser.add_argument("--image-tokens", type=int, default=None, help="default: all; 1 = pooled")
    parser.add_argument("--output", type=Path, default=Path("outputs/real-data"))
    parser.add_argument("--positions", type=int, default=12, help="of the input; the paper's 12")
    parser.add_argument("--hidden-size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--dropout", type=float, default=0.1, help="of backbone and item encoder")
    parser.add_argument("--warmup-steps", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--patience", type=int, help="epochs; default as in fit")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pictured", type=int, default=4, help="users in the picture")
    parser.add_argument("--published", action="store_true", help="wrap with ODMTConfig.paper()")
    parser.add_argument("--bf16", action="store_true", help="train under bfloat16 autocast")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)

    interactions = Interactions.from_table(arguments.data / "interactions.parquet")
    interactions = interactions.last(arguments.positions + 3).k_core(5)
    items = film_table(arguments.data, "title")
    print(interactions)

    start = time.perf_counter()
    features = ItemFeatures.from_items(
        items,
        text_encoder=arguments.text_encoder,
        text_pooling=arguments.text_pooling,
        image_encoder=arguments.image_encoder,
        max_text_tokens=arguments.text_tokens,
        max_image_tokens=arguments.image_tokens,
    ).select(interactions.item_ids)
    print(f"{features}, extracted in {time.perf_counter() - start:.0f} s")
    split = leave_one_out(
        interactions, vocabulary=features.vocabulary, max_seq_length=arguments.positions
    )

    def train(
        name: str, item_features: ItemFeatures | None, config: ODMTConfig
    ) -> dict[str, float]:
        torch.manual_seed(arguments.seed)
        backbone = SASRec(
            arguments.hidden_size, max_seq_length=arguments.positions, dropout=arguments.dropout
        )
        model = ODMTWrapper(backbone, item_features, config, vocabulary=split.vocabulary)
        start = time.perf_counter()
        result = fit(
            model,
            split,
            arguments.output / name,
            epochs=arguments.epochs,
            batch_size=arguments.batch_size,
            learning_rate=arguments.learning_rate,
            warmup_steps=arguments.warmup_steps,
            patience=arguments.patience,
            item_to_item=False,  # features are compared
            seed=arguments.seed,
            bf16=arguments.bf16,
        )
        seconds = time.perf_counter() - start
        print(f"{name}: best epoch {result.best_epoch:.0f}, {seconds:.0f} s of training")
        results[name] = result.test
        models[name] = model
        return result.test

    results: dict[str, dict[str, float]] = {}
    models: dict[str, ODMTWrapper] = {}
    train("SASRec", None, ODMTConfig(fusion="id"))
    config = ODMTConfig.paper if arguments.published else ODMTConfig
    train("SASRec wrapped", features, config(dropout=arguments.dropout))
    table = metrics_table(results)
    print(f"\n{table}\n")
    (arguments.output / "table.md").write_text(table + "\n")
    (arguments.output / "metrics.json").write_text(json.dumps(results, indent=1) + "\n")

    queries = [split.test[index] for index in range(arguments.pictured)]
    histories = [split.vocabulary.ids(query["seen_ids"].tolist()) for query in queries]
    recommended = models["SASRec wrapped"].recommend(histories, k=8)
    draw_recommendations(
        histories,
        recommended.item_ids,
        scores=recommended.scores,
        next_items=split.vocabulary.ids(query["target_ids"] for query in queries),
        titles=dict(zip(items["item_id"], items["title"], strict=True)),
        images=dict(zip(items["item_id"], items["image"], strict=True)),
        users=split.test.user_ids[: arguments.pictured],
        path=arguments.output / "recommendations.png",
    )
    print(f"picture: {arguments.output / 'recommendations.png'}")


if __name__ == "__main__":
    main()
