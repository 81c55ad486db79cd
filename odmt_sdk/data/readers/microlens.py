"""MicroLens: short videos with titles and covers."""

from collections.abc import Hashable
from pathlib import Path
from typing import Literal

from odmt_sdk.data.interactions import Interactions
from odmt_sdk.data.readers.files import find_file, find_pictures
from odmt_sdk.data.readers.raw_data import RawData, described_items, make_items
from odmt_sdk.data.readers.titles import read_titles
from odmt_sdk.paths import user_path

PAIRS = ("*_pairs.csv",)
TITLES = ("*_title_en.csv", "*_titles.csv", "*_title*.csv")
COVERS = ("*_covers", "*covers*", "images")


def read_microlens(
    folder: str | Path, *, images: str | Path | Literal[False] | None = None
) -> RawData:
    """Read a MicroLens release of any size.

    Args:
        folder: folder with the interactions (such as `MicroLens-50k_pairs.csv`: user, item,
            timestamp), the titles (such as `MicroLens-50k_titles.csv` or
            `MicroLens-100k_title_en.csv`), and the unpacked folder of covers.
        images: folder of the covers, named `<item>.jpg`; None = the folder named `*_covers`,
            False = no images.

    Returns:
        Interactions with times in milliseconds, and the items. Ids are integers.

    Raises:
        FileNotFoundError: if a file or folder does not exist.
        ValueError: if several files match, or a file cannot be read.

    Source: https://github.com/westlake-repl/MicroLens.
    """
    folder = user_path(folder)
    interactions = Interactions.from_table(
        find_file(folder, PAIRS, "interactions"), user="user", item="item"
    )
    path = find_file(folder, TITLES, "titles")
    try:
        titles: dict[Hashable, str] = {int(i): title for i, title in read_titles(path).items()}
    except ValueError as error:
        raise ValueError(f"{path} has an item id that is not a whole number: {error}") from error
    item_ids = described_items(list(titles), interactions)
    pictures = find_pictures(images, item_ids, within=folder, names=COVERS)
    texts = [titles.get(item_id) for item_id in item_ids]
    return RawData(interactions, make_items(item_ids, texts, texts, pictures))
