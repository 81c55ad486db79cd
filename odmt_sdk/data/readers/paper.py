"""The layout of the paper's authors: sequences, titles and a folder of pictures."""

from pathlib import Path
from typing import Literal

from odmt_sdk.data.interactions import Interactions
from odmt_sdk.data.readers.files import find_file, find_pictures
from odmt_sdk.data.readers.raw_data import RawData, all_items, make_items
from odmt_sdk.data.readers.titles import read_titles

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
    r"""Read a data set as the authors of the paper keep theirs (Stream, Arts, Office, H&M).

    Lines of interactions are `user \t item item ...`, oldest first; lines of texts `item \t text`
    (.tsv) or `item,text` (.csv). Ids stay strings. A picture is named by its item's id, or by the
    number in it where the id is such as "v00017".

    Args:
        folder: holds the files.
        interactions: the file of sequences; None = the one named `*_pairs.tsv`, `*_users*.tsv` or
            `*_user_behaviours.tsv`.
        texts: the file of texts; None = the one named `*_title*.csv`, `*_items*.tsv` or
            `*_text.tsv`.
        images: the folder of pictures; None = the one named `images` or the like, False = none.

    Returns:
        Interactions without times, and the items.

    Raises:
        FileNotFoundError: if a file or folder is not there.
        ValueError: if several files match, a line cannot be read, or the pictures are in an LMDB
            file: it holds pickles, which are not read.

    Source: https://github.com/xyliugo/ODMT.
    """
    folder = Path(folder)
    behaviours = Path(interactions or find_file(folder, BEHAVIOURS, "interactions"))
    titles = read_titles(Path(texts or find_file(folder, TEXTS, "texts")))
    read = read_sequence_lines(behaviours)
    item_ids = all_items(list(titles), read)
    names = [str(item_id) for item_id in item_ids]
    pictures: list[Path | None] = [None] * len(names)
    if images is not False:
        pictures = find_pictures(images, names, within=folder, names=PICTURES)
        numbers = [name.removeprefix("v").lstrip("0") for name in names]
        by_number = find_pictures(images, numbers, within=folder, names=PICTURES)
        pictures = [one or other for one, other in zip(pictures, by_number, strict=True)]
    texts_ = [titles.get(name) for name in names]
    return RawData(read, make_items(item_ids, texts_, texts_, pictures))


def read_sequence_lines(path: Path) -> Interactions:
    r"""Read lines of `user \t item item ...`, oldest first.

    Args:
        path: the file.

    Returns:
        The interactions; ids are strings.

    Raises:
        ValueError: if a line has no tab or a user stands twice.
    """
    sequences: dict[str, list[str]] = {}
    with path.open(encoding="utf-8") as file:
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
