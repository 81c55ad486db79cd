"""MicroLens: short videos with titles and covers."""

from pathlib import Path
from typing import Literal

from odmt_sdk.data.interactions import Interactions
from odmt_sdk.data.readers.files import find_file, find_pictures
from odmt_sdk.data.readers.raw_data import RawData, all_items, make_items
from odmt_sdk.data.readers.titles import read_titles

PAIRS = ("*_pairs.csv",)
TITLES = ("*_title_en.csv", "*_titles.csv", "*_title*.csv")
COVERS = ("*_covers", "*covers*", "images")


def read_microlens(
    folder: str | Path, *, images: str | Path | Literal[False] | None = None
) -> RawData:
    """Read MicroLens of any size.

    Args:
        folder: holds `MicroLens-50k_pairs.csv` (user, item, timestamp), `MicroLens-50k_titles.csv`
            or `MicroLens-100k_title_en.csv`, and the folder of covers, unpacked.
        images: the folder of covers, named `<item>.jpg`; None = the one named `*_covers`, False =
            none.

    Returns:
        Interactions with times in milliseconds, and the items; ids are integers.

    Raises:
        FileNotFoundError: if a file or folder is not there.
        ValueError: if several files match or one cannot be read.

    Source: https://github.com/westlake-repl/MicroLens.
    """
    folder = Path(folder)
    interactions = Interactions.from_table(
        find_file(folder, PAIRS, "interactions"), user="user", item="item"
    )
    path = find_file(folder, TITLES, "titles")
    try:
        titles = {int(item_id): title for item_id, title in read_titles(path).items()}
    except ValueError as error:
        raise ValueError(f"{path} holds an item id that is no whole number: {error}") from error
    item_ids = all_items(list(titles), interactions)
    pictures: list[Path | None] = [None] * len(item_ids)
    if images is not False:
        pictures = find_pictures(images, item_ids, within=folder, names=COVERS)
    texts = [titles.get(item_id) for item_id in item_ids]  # type: ignore[call-overload]
    return RawData(interactions, make_items(item_ids, texts, texts, pictures))
