"""Compare a bare and a wrapped backbone on a small shop, and save the adapter.

Nothing is downloaded: the images and titles of the shop are generated, and the two encoders are
tiny and have random weights. `python examples/quickstart.py --help` lists the settings.
"""

import argparse
import time
from pathlib import Path

import torch

from odmt_sdk import (
    Interactions,
    ItemFeatures,
    ODMTConfig,
    ODMTWrapper,
    SASRec,
    draw_recommendations,
    fit,
    leave_one_out,
    make_shop,
)
from odmt_sdk.evaluation import metrics_table
from odmt_sdk.toy_shop import tiny_image_encoder, tiny_text_encoder

HIDDEN_SIZE, MAX_SEQ_LENGTH = 32, 12
# Both models are tuned on the validation set: the bare model over dropout 0.1, 0.2, ..., 0.5; the
# wrapped model over backbone dropout 0, 0.1 and 0.2, item encoder dropout 0 and 0.05, and
# distillation weight 0 and 0.2. The bare backbone needs more dropout, because it overfits.
BARE_DROPOUT, WRAPPED_DROPOUT = 0.4, 0.1
CONFIG = ODMTConfig(dropout=0.05, distillation_weight=0.2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("outputs/quickstart"))
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    started = time.time()

    print("1. A shop, and what its pictures and titles show")
    shop = make_shop(num_items=1200, seed=arguments.seed)
    print(f"   {shop}")
    features = ItemFeatures.from_items(
        shop.items,
        text="title",
        text_encoder=tiny_text_encoder(shop.items["title"], width=128),
        image_encoder=tiny_image_encoder(width=128),
        text_pooling="mean",
        image_pooling="mean",
        max_text_tokens=14,
        max_image_tokens=1,
    )
    interactions = Interactions.from_table(shop.interactions).k_core(5)
    features = features.select(interactions.item_ids).standardize()
    split = leave_one_out(
        interactions, vocabulary=features.vocabulary, max_seq_length=MAX_SEQ_LENGTH
    )
    print(f"   {interactions}\n   {features}")

    def train(name: str, model: ODMTWrapper) -> dict[str, float]:
        return fit(
            model,
            split,
            arguments.output / name,
            epochs=arguments.epochs,
            batch_size=64,
            learning_rate=3e-3,
            patience=arguments.epochs,
            seed=arguments.seed,
            eval_strategy="steps",
            eval_steps=200,
            save_strategy="steps",
            save_steps=200,
        ).test

    def backbone(dropout: float) -> SASRec:
        torch.manual_seed(arguments.seed)
        return SASRec(HIDDEN_SIZE, max_seq_length=MAX_SEQ_LENGTH, dropout=dropout)

    print("2. SASRec alone, on item IDs")
    bare = ODMTWrapper(
        backbone=backbone(BARE_DROPOUT),
        config=ODMTConfig(fusion="id"),
        vocabulary=split.vocabulary,
    )
    results = {"SASRec": train("bare", bare)}

    print("3. The same SASRec, wrapped")
    model = ODMTWrapper(
        backbone=backbone(WRAPPED_DROPOUT),
        item_features=features,
        config=CONFIG,
    )
    results["SASRec, wrapped"] = train("adapter", model)
    print(f"\nTest targets among the full catalogue:\n\n{metrics_table(results)}\n")
    gain = results["SASRec, wrapped"]["ndcg@10"] / results["SASRec"]["ndcg@10"] - 1
    print(f"Wrapping changes ndcg@10 by {gain:+.0%}.\n")

    print("4. Load the adapter back and recommend")
    adapter = arguments.output / "adapter"
    loaded = ODMTWrapper.from_pretrained(adapter, backbone=backbone(WRAPPED_DROPOUT))
    users = split.test.user_ids[:3]
    queries = [split.test[index] for index in range(3)]
    histories = [loaded.vocabulary.ids(query["seen_ids"].tolist()) for query in queries]
    recommended = loaded.recommend(histories, k=8)
    if recommended != model.recommend(histories, k=8):
        raise RuntimeError("the loaded adapter recommends other items than the trained model")
    print(f"   after {histories[0][-3:]} try {recommended.item_ids[0][:3]}")
    draw_recommendations(
        histories,
        recommended.item_ids,
        scores=recommended.scores,
        next_items=loaded.vocabulary.ids(query["target_ids"] for query in queries),
        titles=dict(zip(shop.items["item_id"], shop.items["title"], strict=True)),
        images=dict(zip(shop.items["item_id"], shop.items["image"], strict=True)),
        users=users,
        path=arguments.output / "recommendations.png",
    )
    print(f"   adapter: {adapter}")
    print(f"   picture: {arguments.output / 'recommendations.png'}")
    print(f"   all of this took {time.time() - started:.0f} s")


if __name__ == "__main__":
    main()
