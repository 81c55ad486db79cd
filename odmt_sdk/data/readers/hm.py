"""H&M Personalized Fashion Recommendations: transactions, articles and images."""

from pathlib import Path
from typing import Literal

import numpy as np

from odmt_sdk.data.interactions import Interactions
from odmt_sdk.data.readers.files import find_file, find_pictures
from odmt_sdk.data.readers.raw_data import RawData, described_items, make_items
from odmt_sdk.paths import user_path
from odmt_sdk.tables import read_columns
from odmt_sdk.text_files import TextFormat

TEXT = ("prod_name", "product_type_name", "colour_group_name", "detail_desc")
ID_DIGITS = 10


def read_hm(folder: str | Path, *, images: str | Path | Literal[False] | None = None) -> RawData:
    """Read the data set of the Kaggle competition.

    Buying several pieces of an article at once gives several interactions, see `drop_repeats`.

    Args:
        folder: folder with `transactions_train.csv`, `articles.csv` and the folder `images`.
        images: folder of the images, such as `010/0108775015.jpg`; None = `images` in the folder,
            False = no images.

    Returns:
        Interactions with dates as times, and the items. The text of an item is its name, type,
        colour and description. Article ids are strings of ten digits, like the image names.

    Raises:
        FileNotFoundError: if a file or folder does not exist.
        ValueError: if a file cannot be read.

    Source: https://www.kaggle.com/competitions/h-and-m-personalized-fashion-recommendations.
    """
    folder = user_path(folder)
    names = ["customer_id", "article_id", "t_dat"]
    transactions = read_columns(
        find_file(folder, ["transactions_train.csv"], "interactions"),
        names,
        text_format=TextFormat(strings=("customer_id", "article_id")),
    )
    # Restore leading zeros, which files saved by a spreadsheet program have lost.
    articles_bought = transactions["article_id"].tolist()
    whole = {item: item and item.zfill(ID_DIGITS) for item in set(articles_bought)}
    transactions["article_id"] = np.array([whole[item] for item in articles_bought], dtype=object)
    interactions = Interactions.from_table(
        transactions, user="customer_id", item="article_id", timestamp="t_dat"
    )
    articles = read_columns(
        find_file(folder, ["articles.csv"], "articles"),
        ["article_id", *TEXT],
        text_format=TextFormat(strings=("article_id", *TEXT)),
    )
    described = {
        item.zfill(ID_DIGITS): [text for text in texts if text]
        for item, *texts in zip(*(articles[name] for name in ("article_id", *TEXT)), strict=True)
    }
    item_ids = described_items(list(described), interactions)
    pictures = find_pictures(images, item_ids, within=folder, names=("images",))
    texts = [described.get(str(item), []) for item in item_ids]
    return RawData(
        interactions,
        make_items(
            item_ids,
            [text[0] if text else None for text in texts],
            [". ".join(text) for text in texts],
            pictures,
        ),
    )
