"""Runs the code of a page of the documentation in a folder with a newcomer's files.

The encoders that pages name lie in that folder under their names, tiny and with random weights.
Training takes one epoch.
"""

import csv
import re
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

import odmt_sdk
from odmt_sdk import make_shop
from odmt_sdk.toy_shop import tiny_image_encoder, tiny_text_encoder

ROOT = Path(__file__).parents[1]
TEXT_ENCODERS = ("bert-base-uncased", "sentence-transformers/all-MiniLM-L6-v2")
IMAGE_ENCODERS = ("openai/clip-vit-base-patch32", "facebook/deit-tiny-patch16-224")


def code_blocks(page: str) -> list[str]:
    """The Python of a page, without the examples that it includes from files."""
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^ *```python\n(.*?)^ *```", text, flags=re.DOTALL | re.MULTILINE)
    return [block for block in blocks if "--8<--" not in block]


def run_blocks(blocks: list[str], names: dict) -> dict:
    """Run blocks one after the other, as a reader would who pastes them into one session."""
    names.setdefault("__name__", "page")
    for block in blocks:
        exec(compile(block, block, "exec"), names)
    return names


def newcomer_folder(folder: Path, prefix: str = "item") -> Path:
    """Write tables, pictures and encoders; item ids are `prefix`-1, `prefix`-2, ..."""
    shop = make_shop(num_items=60, num_users=150, image_size=32)
    renamed = {old: f"{prefix}-{row}" for row, old in enumerate(shop.items["item_id"], 1)}
    (folder / "images").mkdir(parents=True)
    pictures = []
    for item_id, picture in zip(renamed.values(), shop.items["image"], strict=True):
        pictures.append(str(folder / "images" / f"{item_id}.png"))
        picture.save(pictures[-1])
    titles = list(shop.items["title"])
    items = {
        "item_id": list(renamed.values()),
        "title": titles,
        "text": titles,
        "image": pictures,
        "picture": pictures,
    }
    events = {
        "user_id": list(shop.interactions["user_id"]),
        "item_id": [renamed[item_id] for item_id in shop.interactions["item_id"]],
        "timestamp": list(shop.interactions["timestamp"]),
    }
    for name in ("items", "films"):
        pq.write_table(pa.table(items), folder / f"{name}.parquet")
    for name in ("interactions", "views"):
        pq.write_table(pa.table(events), folder / f"{name}.parquet")
    with (folder / "interactions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*events, "user", "film", "time"])
        columns = list(events.values())
        writer.writerows(zip(*columns, *columns, strict=True))
    for model, processor, names in (
        (*tiny_text_encoder(titles, width=16), TEXT_ENCODERS),
        (*tiny_image_encoder(width=16, image_size=32), IMAGE_ENCODERS),
    ):
        for part in (model, processor):
            part.save_pretrained(folder / names[0])
        for other in names[1:]:
            shutil.copytree(folder / names[0], folder / other)
    return folder


def train_one_epoch(monkeypatch) -> None:
    """Let `fit` train for one epoch, whatever a page asks for."""
    whole = odmt_sdk.fit

    def fit(model, split, output, **settings):
        return whole(model, split, output, **{**settings, "epochs": 1, "log_level": "error"})

    monkeypatch.setattr(odmt_sdk, "fit", fit)
