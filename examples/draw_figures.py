"""Train on a small synthetic shop for a few epochs and draw all figures for inspecting models.

`python examples/draw_figures.py --help` lists the settings.
"""

import argparse
from pathlib import Path

import torch

from odmt_sdk import (
    GRU4Rec,
    Interactions,
    ItemFeatures,
    ODMTWrapper,
    draw_attention,
    draw_contributions,
    draw_item_map,
    draw_learning_curves,
    fit,
    leave_one_out,
    make_shop,
)
from odmt_sdk.toy_shop import tiny_image_encoder, tiny_text_encoder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("outputs/figures"))
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--users", type=int, default=400)
    arguments = parser.parse_args()
    folder = arguments.output

    shop = make_shop(num_items=150, num_users=arguments.users)
    ids = shop.items["item_id"]
    titles = dict(zip(ids, shop.items["title"], strict=True))
    images = dict(zip(ids, shop.items["image"], strict=True))
    colours = dict(zip(ids, shop.attributes["colour"], strict=True))
    text_encoder, tokenizer = tiny_text_encoder(shop.items["title"])
    image_encoder, image_processor = tiny_image_encoder()
    features = ItemFeatures.from_items(
        shop.items,
        text="title",
        text_encoder=(text_encoder, tokenizer),
        image_encoder=(image_encoder, image_processor),
        text_pooling="mean",
    ).standardize()
    interactions = Interactions.from_table(shop.interactions)
    split = leave_one_out(interactions, vocabulary=features.vocabulary, max_seq_length=12)

    torch.manual_seed(0)
    model = ODMTWrapper(backbone=GRU4Rec(32), item_features=features)
    result = fit(
        model, split, folder / "adapter", epochs=arguments.epochs, batch_size=32, warmup_steps=20
    )

    query = split.test[0]
    history = model.vocabulary.ids(query["seen_ids"].tolist())
    (bought,) = model.vocabulary.ids([query["target_ids"]])
    draw_contributions(
        model,
        history,
        next_item=bought,
        titles=titles,
        images=images,
        user=split.test.user_ids[0],
        path=folder / "contributions.png",
    )
    draw_attention(
        model,
        bought,
        text=titles[bought],
        tokenizer=tokenizer,
        text_pooling="mean",
        image=images[bought],
        image_processor=image_processor,
        path=folder / "attention.png",
    )
    draw_item_map(
        model, labels=colours, label_name="colour", images=images, path=folder / "item_map.png"
    )
    draw_learning_curves(result, path=folder / "learning_curves.png")
    print(f"four figures: {folder}")


if __name__ == "__main__":
    main()
