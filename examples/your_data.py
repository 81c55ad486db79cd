"""From raw tables to batches: filters and their report, two kinds of splits, incomplete items.

The example generates its own data and needs nothing but the package:
`python examples/your_data.py`.
"""

import csv
import tempfile
from pathlib import Path

from torch.utils.data import DataLoader

from odmt_sdk import (
    Interactions,
    ItemFeatures,
    ODMTWrapper,
    SASRec,
    SequenceCollator,
    leave_one_out,
    make_shop,
    time_split,
)
from odmt_sdk.toy_shop import tiny_image_encoder, tiny_text_encoder

shop = make_shop(num_items=60, num_users=80)

with tempfile.TemporaryDirectory() as folder:  # interactions usually come from a file
    path = Path(folder) / "interactions.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(shop.interactions)
        writer.writerows(zip(*shop.interactions.values(), strict=True))
    interactions = Interactions.from_table(path)

interactions = interactions.drop_repeats("keep_first").k_core(5).last(10)
print("What was dropped, and why", interactions.report, sep="\n", end="\n\n")

by_user = leave_one_out(interactions, max_seq_length=8)
by_time = time_split(interactions, shares=(0.1, 0.1), max_seq_length=8)
print("Split by time", by_time.report, sep="\n", end="\n\n")

# Half of the images are missing; leave their cells empty.
pictures = [picture if row % 2 else None for row, picture in enumerate(shop.items["image"])]
items = {**shop.items, "image": pictures}
encoders = {
    "text_encoder": tiny_text_encoder(shop.items["title"], width=16),
    "image_encoder": tiny_image_encoder(width=16),
}
for title, chosen in {
    "only text": ["text_encoder"],
    "only pictures": ["image_encoder"],
    "text, and pictures where there are any": ["text_encoder", "image_encoder"],
}.items():
    features = ItemFeatures.from_items(
        items,
        text="title",
        text_pooling="mean",
        progress=False,
        **{name: encoders[name] for name in chosen},
    ).select(by_user.vocabulary)
    model = ODMTWrapper(SASRec(16, max_seq_length=8), features)
    model.set_item_popularity(by_user.item_counts)
    batch = next(iter(DataLoader(by_user.train, batch_size=16, collate_fn=SequenceCollator())))
    print(f"{title}: sources {', '.join(model.sources)}; loss {model(**batch).loss:.2f}")
