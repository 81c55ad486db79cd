"""Amazon Reviews 2023: reviews or ratings, and product metadata."""

from collections.abc import Container, Hashable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from odmt_sdk.data.interactions import Interactions
from odmt_sdk.data.readers.files import find_files, find_pictures
from odmt_sdk.data.readers.raw_data import RawData, all_items, make_items
from odmt_sdk.paths import user_path
from odmt_sdk.tables import read_columns
from odmt_sdk.text_files import TextFormat, iterate_json_lines

COLUMNS = ("user_id", "parent_asin", "timestamp")
PARTS = (".train", ".valid", ".test")


def read_amazon(
    folder: str | Path, category: str, *, images: str | Path | Literal[False] | None = None
) -> RawData:
    """Read one category, from ratings or reviews.

    The metadata gives images as URLs, and the reader does not download them. The column "image_url"
    of the items has the URL of each main image. Save the images as `<parent_asin>.jpg`.

    Args:
        folder: folder with `meta_<category>.jsonl` and one of: the ratings `<category>.csv`
            ("rating only"); their three parts `<category>.train.csv`, `.valid.csv` and `.test.csv`;
            or the reviews `<category>.jsonl`. Files may be compressed (.gz).
        category: name of the category, such as "All_Beauty".
        images: folder of the images; None = `images` in the folder, if it exists; False = no
            images.

    Returns:
        Interactions with times in milliseconds, and the items with interactions. The text of an
        item is its title and features. Ids are strings (`parent_asin`).

    Raises:
        FileNotFoundError: if a file or folder does not exist.
        ValueError: if a file cannot be read.

    Source: https://amazon-reviews-2023.github.io/.
    """
    folder = user_path(folder)
    interactions = _read_interactions(folder, category)
    products = _read_products(folder, category, set(interactions.item_ids))
    item_ids = all_items([], interactions)
    known = [products.get(item_id, ("", "", None)) for item_id in item_ids]
    pictures = find_pictures(images, item_ids, within=folder, names=("images",))
    items = make_items(item_ids, [row[0] for row in known], [row[1] for row in known], pictures)
    items["image_url"] = [row[2] for row in known]
    return RawData(interactions, items)


def _read_interactions(folder: Path, category: str) -> Interactions:
    whole = find_files(folder, [f"{category}.csv", f"{category}.csv.gz"])
    parts = [
        path
        for part in PARTS
        for path in find_files(folder, [f"{category}{part}.csv", f"{category}{part}.csv.gz"])
    ]
    reviews = find_files(folder, [f"{category}.jsonl", f"{category}.jsonl.gz"])
    if not whole and len(parts) not in (0, len(PARTS)):
        raise FileNotFoundError(
            f"{folder} holds only {', '.join(path.name for path in parts)} of the three parts "
            f"{', '.join(PARTS)} of {category!r}: training alone is not the whole data set"
        )
    paths = whole or parts or reviews
    if not paths:
        there = sorted(path.name for path in folder.iterdir())
        raise FileNotFoundError(
            f"{folder} holds neither {category}.csv nor its parts nor {category}.jsonl; there are "
            f"{', '.join(there[:10]) or 'no files'}"
        )
    strings = TextFormat(strings=COLUMNS[:2])
    read = [
        read_columns(path, COLUMNS, text_format=None if path in reviews else strings)
        for path in paths
    ]
    return Interactions.from_table(
        {name: np.concatenate([columns[name] for columns in read]) for name in COLUMNS},
        item="parent_asin",
    )


def _read_products(
    folder: Path, category: str, wanted: Container[Hashable]
) -> dict[Hashable, tuple[str, str, str | None]]:
    """Return id -> title, text and main image URL of the wanted products."""
    found = find_files(folder, [f"meta_{category}.jsonl", f"meta_{category}.jsonl.gz"])
    if not found:
        raise FileNotFoundError(f"{folder} holds no metadata, that is meta_{category}.jsonl")
    products: dict[Hashable, tuple[str, str, str | None]] = {}
    for product in iterate_json_lines(found[0]):
        if product.get("parent_asin") in wanted:
            title = product.get("title") or ""
            features = product.get("features") or []
            features = [features] if isinstance(features, str) else features
            text = ". ".join(str(part) for part in [title, *features] if part)
            picture = _main_picture(product.get("images") or [])
            products[product["parent_asin"]] = (title, text, picture)
    if not products:
        raise ValueError(
            f"{found[0]} describes none of the products of the interactions: are the two files of "
            "the same category?"
        )
    return products


def _main_picture(pictures: Any) -> str | None:
    """Return the URL of the main image, from the format of the files or of the Hub data set."""
    if isinstance(pictures, dict):  # {"hi_res": [...], "large": [...], "variant": [...]}
        pictures = [
            dict(zip(pictures, row, strict=True)) for row in zip(*pictures.values(), strict=True)
        ]
    ordered = sorted(pictures, key=lambda picture: picture.get("variant") != "MAIN")  # stable
    addresses = (picture.get("hi_res") or picture.get("large") for picture in ordered)
    return next(filter(None, addresses), None)
