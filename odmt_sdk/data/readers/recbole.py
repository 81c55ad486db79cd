"""RecBole atomic files: interactions and items as tables with typed columns."""

import glob
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from odmt_sdk.data.interactions import Interactions
from odmt_sdk.data.readers.files import find_file, find_files, find_pictures
from odmt_sdk.data.readers.raw_data import RawData, described_items, make_items
from odmt_sdk.tables import Column, read_columns
from odmt_sdk.text_files import TextFormat, read_header

TYPES = ("token", "token_seq", "float", "float_seq")


def read_recbole(
    folder: str | Path,
    *,
    item_text: Sequence[str] | None = None,
    user: str = "user_id",
    item: str = "item_id",
    timestamp: str | None = "timestamp",
    min_rating: float | None = None,
    encoding: str = "utf-8",
    images: str | Path | Literal[False] | None = None,
) -> RawData:
    """Read a data set of atomic files, the format of RecBole and RecDatasets.

    Atomic files are tab-separated tables. The header has the name and type of each column, such as
    `user_id:token`. Types are token, token_seq (words separated by spaces), float and float_seq.
    User features (`.user`) and other kinds of files are not read.

    Args:
        folder: folder with an `.inter` file and optionally an `.item` file, which may be compressed
            (.gz). If there are several, the ones named like the folder are used.
        item_text: columns of the `.item` file, without types, to join into the text of an item, in
            this order, such as `["movie_title", "class"]`; None = columns with "title" or "name" in
            their name, then columns of type token_seq.
        user: name of the user column.
        item: name of the item column.
        timestamp: name of the time column; None if the rows are already in chronological order.
        min_rating: minimum `rating`; interactions with a lower or missing rating are dropped.
            None keeps all.
        encoding: encoding of the files.
        images: folder of the images, named by item id; None = `images` in the folder, if it
            exists; False = no images.

    Returns:
        Interactions and items. Ids are strings.

    Raises:
        FileNotFoundError: if the folder has no `.inter` file.
        ValueError: if several files match, a column is missing or has an unknown type, or a file
            cannot be read.

    Source: https://recbole.io/docs/user_guide/data/atomic_files.html.

    Examples:
        >>> interactions, items = read_recbole(                                  # doctest: +SKIP
        ...     "ml-1m", item_text=["movie_title", "genre"])
    """
    folder = Path(folder)
    interactions = _read_interactions(
        _AtomicFile(find_file(folder, _patterns(folder, "inter"), "interactions"), encoding),
        user=user,
        item=item,
        timestamp=timestamp,
        min_rating=min_rating,
    )
    described: dict[str, list[str]] = {}
    if find_files(folder, _patterns(folder, "item")):
        file = _AtomicFile(find_file(folder, _patterns(folder, "item"), "items"), encoding)
        chosen = _text_columns(file.types) if item_text is None else list(item_text)
        if not chosen:
            raise ValueError(
                f"{file.path} has no column of words, only {', '.join(file.types)}; choose the "
                "columns of the items' text with item_text=[...]"
            )
        described = _read_texts(file, item, chosen)
    elif item_text is not None:
        raise FileNotFoundError(
            f"{folder} has no .item file, but item_text={list(item_text)} names columns of it"
        )
    item_ids = described_items(list(described), interactions)
    pictures = find_pictures(images, item_ids, within=folder, names=("images",))
    texts = [described.get(str(item_id), [""]) for item_id in item_ids]
    return RawData(
        interactions,
        make_items(
            item_ids,
            [text[0] for text in texts],
            [". ".join(filter(None, text)) for text in texts],
            pictures,
        ),
    )


def _patterns(folder: Path, kind: str) -> list[str]:
    """Return patterns for a kind of file, in order of preference."""
    name = glob.escape(folder.resolve().name)
    return [f"{stem}.{kind}{end}" for stem in (name, "*") for end in ("", ".gz")]


class _AtomicFile:
    """A table whose header has the name and type of each column."""

    def __init__(self, path: Path, encoding: str) -> None:
        self.path = path
        self.encoding = encoding
        self.types: dict[str, str] = {}
        for cell in read_header(path, "\t", encoding):
            name, colon, kind = cell.rpartition(":")
            if not colon or kind not in TYPES or ":" in name:
                raise ValueError(
                    f"{path} has the column {cell!r}, which does not end in one of "
                    f"{', '.join(':' + kind for kind in TYPES)}: is it an atomic file, with tabs "
                    "between the cells?"
                )
            if name in self.types:
                raise ValueError(f"{path} has two columns {name!r}; rename one")
            self.types[name] = kind

    def read(self, names: Sequence[str]) -> dict[str, Column]:
        """Read columns by name, without type: floats as numbers, all others as strings."""
        if absent := [name for name in names if name not in self.types]:
            raise ValueError(
                f"{self.path} has no column {absent[0]!r}; it has {', '.join(self.types)}: give "
                "one of these"
            )
        headers = [f"{name}:{self.types[name]}" for name in names]
        text_format = TextFormat(
            "\t",
            strings=[header for header in headers if not header.endswith(":float")],
            quoted=False,  # quotes have no meaning in atomic files
            encoding=self.encoding,
        )
        columns = read_columns(self.path, headers, text_format=text_format)
        return dict(zip(names, columns.values(), strict=True))


def _read_interactions(
    file: _AtomicFile, *, user: str, item: str, timestamp: str | None, min_rating: float | None
) -> Interactions:
    if f"{item}_list" in file.types:
        raise ValueError(
            f"{file.path} holds whole sequences ({item}_list), which would not be read: give the "
            "file of single interactions, or pass the sequences to Interactions.from_sequences"
        )
    if timestamp is not None and timestamp not in file.types:
        raise ValueError(
            f"{file.path} has no column {timestamp!r}, only {', '.join(file.types)}: pass "
            "timestamp= with the name of the time column, or timestamp=None if the rows are in "
            "chronological order"
        )
    names = [user, item]
    names += [] if timestamp is None else [timestamp]
    names += [] if min_rating is None else ["rating"]
    columns = file.read(names)
    if min_rating is not None:
        high = _numbers(file, columns["rating"]) >= min_rating
        if not high.any():
            raise ValueError(f"min_rating={min_rating} is above every rating in {file.path}")
        columns = {name: values[high] for name, values in columns.items()}
    return Interactions.from_table(columns, user=user, item=item, timestamp=timestamp)


def _numbers(file: _AtomicFile, ratings: Column) -> Column:
    """Convert ratings to floats, NaN where they are missing."""
    found = np.full(len(ratings), np.nan)
    for row, rating in enumerate(ratings.tolist()):
        try:
            found[row] = np.nan if rating is None else float(rating)
        except ValueError:
            raise ValueError(
                f"{file.path} has the rating {rating!r} in row {row:,}, the first being row 0, "
                "which is not a number: repair it, or leave out min_rating="
            ) from None
    return found


def _read_texts(file: _AtomicFile, item: str, chosen: Sequence[str]) -> dict[str, list[str]]:
    """Return item id -> texts of the chosen columns, "" for empty cells."""
    columns = file.read(list(dict.fromkeys([item, *chosen])))
    texts: dict[str, list[str]] = {}
    for row, item_id in enumerate(columns[item]):
        if item_id is None or item_id in texts:
            raise ValueError(
                f"{file.path} has "
                + ("no item id" if item_id is None else f"item {item_id!r} a second time")
                + f" in row {row:,}, the first being row 0; remove the row"
            )
        texts[item_id] = [_as_text(columns[name][row]) for name in chosen]
    return texts


def _text_columns(types: Mapping[str, str]) -> list[str]:
    """Return the text columns, titles first."""
    titles = [
        name
        for name, kind in types.items()
        if kind.startswith("token") and ("title" in name.lower() or "name" in name.lower())
    ]
    words = [name for name, kind in types.items() if kind == "token_seq"]
    return list(dict.fromkeys([*titles, *words]))


def _as_text(cell: object) -> str:
    """Return the text of a cell, "" if it is empty."""
    if cell is None or cell != cell:
        return ""
    if isinstance(cell, float):
        return f"{cell:.15g}"
    return " ".join(str(cell).split())
