"""Extract features to disk: with broken images, an interrupted run, new items, and training.

The example generates its own data and needs nothing but the package:

    python examples/features_on_disk.py
"""

import tempfile
from pathlib import Path

import torch

from odmt_sdk import ItemFeatures, ODMTWrapper, SASRec, make_shop
from odmt_sdk.toy_shop import tiny_image_encoder, tiny_text_encoder

shop = make_shop(num_items=50, num_users=10)
settings = {
    "text_encoder": tiny_text_encoder(shop.items["title"], width=16),
    "image_encoder": tiny_image_encoder(width=16),
    "text": "title",
    "shard_items": 16,  # chosen from the number of items by default
    "progress": False,
}

with tempfile.TemporaryDirectory() as temporary:
    folder = Path(temporary)
    pictures = []  # your table usually has the paths already
    for item_id, picture in zip(shop.items["item_id"], shop.items["image"], strict=True):
        picture.save(folder / f"{item_id}.png")
        pictures.append(folder / f"{item_id}.png")
    pictures[3] = None  # this item has no image
    pictures[5].write_bytes(pictures[5].read_bytes()[:200])  # this one is truncated
    items = {**shop.items, "image": pictures}
    first = {name: column[:30] for name, column in items.items()}

    features = ItemFeatures.from_items(first, path=folder / "features", **settings)
    print(features, features.report, sep="\n", end="\n\n")

    lost = folder / "features" / "image" / "0000-00001.safetensors"
    whole = lost.read_bytes()
    lost.unlink()  # as if the run had been killed before writing this file
    ItemFeatures.from_items(first, path=folder / "features", **settings)
    print("the same bytes after going on:", lost.read_bytes() == whole)

    ItemFeatures.from_items(items, path=folder / "features", **settings)
    features = ItemFeatures.open(folder / "features")
    print("with the new items:", features.num_items)
    try:
        ItemFeatures.from_items(
            items, path=folder / "features", **{**settings, "text_pooling": "mean"}
        )
    except ValueError as error:
        print("refused:", str(error).partition("made in another way: ")[2].partition(".")[0])

    model = ODMTWrapper(SASRec(16, max_seq_length=8), features.standardize())
    loss = model(torch.randint(1, 51, (8, 8))).loss  # reads only the rows of these items
    print(f"trains from disk: loss {loss:.2f}")
