"""The file layout of the paper's authors: sequences, titles and a folder of images."""

from pathlib import Path
from typing import Literal

from odmt_sdk.data.interactions import Interactions
from odmt_sdk.data.readers.files import find_file, find_pictures
from odmt_sdk.data.readers.raw_data import RawData, described_items, make_items
from odmt_sdk.data.readers.titles import read_titles
from odmt_sdk.paths import user_path
from odmt_sdk.text_files import decoded

BEHAVIOURS = ("*_pairs*.tsv", "*_users*.tsv", "*_user_behaviours.tsv")
TEXTS = ("*_title*.csv", "*_items*.tsv", "*_text.tsv")
PICTURES = ("images", "covers", "*images", "*image", "*covers", "*cover")


def read_paper(
    folder: str | Path,
    *,
    interactions: str | Path | None = None,
    texts: str | Path | None = None,
    images: str | Path | Literal[False] | None = None,
) -> RawData:
    r"""Read a data set in the file layout of the paper's authors (Stream, Arts, Office, H&M).

    Each line of the interactions is `user \t item item ...`, oldest first. Each line of the texts
    is `item \t text` (.tsv) or `item,text` (.csv). Ids are strings. The file name of an image is
    its item id or, for ids such as "v00017", the number in it.

    Args:
        folder: folder with the files.
        interactions: file of the sequences; None = the file named `*_pairs.tsv`, `*_users*.tsv` or
            `*_user_behaviours.tsv`.
        texts: file of the texts; None = the file named `*_title*.csv`, `*_items*.tsv` or
            `*_text.tsv`.
        images: folder of the images; None = the folder named `images` or similar, False = no
            images.

    Returns:
        Interactions without times, and the items.

    Raises:
        FileNotFoundError: if a file or folder does not exist.
        ValueError: if several files match, a line cannot be parsed, or the images are in an LMDB
            file, which is not supported because it contains pickles.

    Source: https://github.com/xyliugo/ODMT.
    """
    folder = user_path(folder)
    behaviours = user_path(interactions or find_file(folder, BEHAVIOURS, "interactions"))
    titles = read_titles(user_path(texts or find_file(folder, TEXTS, "texts")))
    read = read_sequence_lines(behaviours)
    item_ids = described_items(list(titles), read)
    names = [str(item_id) for item_id in item_ids]
    by_name = find_pictures(images, names, within=folder, names=PICTURES)
    numbers = [name.removeprefix("v").lstrip("0") for name in names]
    by_number = find_pictures(images, numbers, within=folder, names=PICTURES)
    pictures = [one or other for one, other in zip(by_name, by_number, strict=True)]
    texts_ = [titles.get(name) for name in names]
    return RawData(read, make_items(item_ids, texts_, texts_, pictures))


def read_sequence_lines(path: Path) -> Interactions:
    r"""Read lines of `user \t item item ...`, oldest first.

    Args:
        path: the file.

    Returns:
        The interactions, with strings as ids.

    Raises:
        ValueError: if a line has no tab, a user is repeated, or the file is not in UTF-8.
    """
    sequences: dict[str, list[str]] = {}
    with decoded(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            user, tab, items = line.partition("\t")
            if not tab:
                raise ValueError(
                    f"{path}, line {number}, has no tab between user and items: "
                    f"{line[:60].strip()!r}"
                )
            if user in sequences:
                raise ValueError(
                    f"{path}, line {number}: user {user!r} stands twice; join the two lines"
                )
            sequences[user] = items.split()
    return Interactions.from_sequences(sequences)
