"""Train on real data that come with the package: 44,000 ratings of 1,007 wines by 3,000 people.

Nothing is downloaded: the text encoder is tiny and has random weights, so it only shows which words
two texts share. `python examples/quickstart_real.py --help` lists the settings.
"""

import argparse
import time
from pathlib import Path

import torch

from odmt_sdk import (
    ItemFeatures,
    ODMTConfig,
    ODMTWrapper,
    SASRec,
    fit,
    leave_one_out,
    load_wines,
)
from odmt_sdk.baselines import ItemToItem, Popularity
from odmt_sdk.evaluation import metrics_table
from odmt_sdk.toy_shop import tiny_text_encoder

HIDDEN_SIZE, MAX_SEQ_LENGTH = 64, 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("outputs/quickstart-real"))
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    started = time.time()

    print("1. Wines, and who rated which")
    interactions, items = load_wines()
    features = ItemFeatures.from_items(
        items,
        text_encoder=tiny_text_encoder(items["text"], width=128),
        text_pooling="mean",
        text_pooled_only=True,
    ).standardize()
    split = leave_one_out(
        interactions, vocabulary=features.vocabulary, max_seq_length=MAX_SEQ_LENGTH
    )
    print(f"   {interactions}\n   {features}")

    print("2. Counts, which need no training")
    results = {
        name: baseline.evaluate(split.test, k=(10, 20))
        for name, baseline in (
            ("popularity", Popularity(split)),
            ("item-to-item counts", ItemToItem(split)),
        )
    }

    def train(name: str, model: ODMTWrapper) -> dict[str, float]:
        return fit(
            model,
            split,
            arguments.output / name,
            epochs=arguments.epochs,
            batch_size=64,
            learning_rate=2e-3,
            patience=4,
            k=(10, 20),
            seed=arguments.seed,
        ).test

    print("3. SASRec alone, on item IDs")
    torch.manual_seed(arguments.seed)
    backbone = SASRec(HIDDEN_SIZE, max_seq_length=MAX_SEQ_LENGTH)
    bare = ODMTWrapper(
        backbone=backbone, config=ODMTConfig(fusion="id"), vocabulary=split.vocabulary
    )
    results["SASRec, with counts"] = train("bare", bare)

    print("4. The same SASRec, wrapped: IDs and texts")
    torch.manual_seed(arguments.seed)
    backbone = SASRec(HIDDEN_SIZE, max_seq_length=MAX_SEQ_LENGTH)
    model = ODMTWrapper(backbone=backbone, item_features=features)
    results["wrapped, with counts"] = train("adapter", model)
    print(f"\nTest targets among all {model.num_items:,} wines:\n\n{metrics_table(results)}\n")

    print("5. Load the adapter back and recommend")
    adapter = arguments.output / "adapter"
    loaded = ODMTWrapper.from_pretrained(adapter)
    titles = dict(zip(items["item_id"], items["title"], strict=True))
    query = split.test[0]
    history = list(loaded.vocabulary.ids(query["seen_ids"].tolist()))
    recommended = loaded.recommend([history], k=5)
    print(f"   The latest wines of user {split.test.user_ids[0]}:")
    for item_id in history[-3:]:
        print(f"     {titles[item_id]}")
    print("   Recommended next:")
    for item_id, score in zip(recommended.item_ids[0], recommended.scores[0], strict=True):
        print(f"     {titles[item_id]}  {score:.2f}")
    print(f"   adapter: {adapter}")
    print(f"   all of this took {time.time() - started:.0f} s")


if __name__ == "__main__":
    main()
