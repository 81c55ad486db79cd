"""`load_folder`: a folder of your own with items, interactions and pictures."""

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from odmt_sdk.data.interactions import Interactions
from odmt_sdk.data.readers.files import pictures_by_id
from odmt_sdk.data.readers.raw_data import RawData, all_items, make_items
from odmt_sdk.paths import user_path
from odmt_sdk.tables import Column, column_names, is_missing, read_columns
from odmt_sdk.vocabulary import did_you_mean

SUFFIXES = (".parquet", ".csv", ".tsv", ".jsonl", ".csv.gz", ".tsv.gz", ".jsonl.gz")
TITLE, TEXT, IMAGE, IMAGES = "title", "text", "image", "images"


def load_folder(
    folder: str | os.PathLike[str],
    *,
    user: str = "user_id",
    item: str = "item_id",
    timestamp: str | None = "timestamp",
    text: str | None = None,
    image: str | None = None,
    encoding: str = "utf-8",
    csv_options: Mapping[str, Any] | None = None,
) -> RawData:
    """Read a folder with a table of items, a table of interactions and, if there are any, pictures.

    The folder has this layout. A table is a Parquet, CSV, TSV or JSON lines file, or a folder of
    Parquet files:

        my-shop/
            items.parquet           item_id, text or title, and image if there is no folder images
            interactions.csv        user_id, item_id, timestamp
            images/                 <item_id>.jpg, .jpeg, .png or .webp

    Ids in text files become integers only if that loses nothing: with leading zeros they stay
    strings.

    Args:
        folder: the folder.
        user: name of the user column of the interactions.
        item: name of the item column of both tables.
        timestamp: name of the time column; None if the rows are already in chronological order.
        text: name of the column of texts of the items; None = "text", or "title" if there is none.
        image: name of the column of pictures: paths relative to `folder`, or bytes; None = "image",
            or the folder `images` if there is no such column or it is empty.
        encoding: encoding of text files.
        csv_options: format of .csv and .tsv files, see `Interactions.from_table`.

    Returns:
        Interactions and items, `item_id`, `title`, `text` and `image`. Items that occur only in the
        interactions come last and have neither text nor picture; a warning counts them.

    Raises:
        FileNotFoundError: if the folder, one of the tables or a picture does not exist.
        ValueError: if there are several candidates for a table, a column is missing, an item stands
            twice or has no id, the two tables have no item in common, the names of the pictures do
            not match the ids, or a picture is a URL.
        TypeError: if a text or a picture is a list or the like.

    Examples:
        >>> interactions, items = load_folder("my-shop")                         # doctest: +SKIP
        >>> features = ItemFeatures.from_items(                                  # doctest: +SKIP
        ...     items, text_encoder="bert-base-uncased",
        ...     image_encoder="openai/clip-vit-base-patch32")
    """
    folder = user_path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    items_file, events_file = table_file(folder, "items"), table_file(folder, "interactions")
    options: dict[str, Any] = {"encoding": encoding, "csv_options": csv_options}
    names = column_names(items_file, **options)
    texts = [text] if text else [name for name in (TEXT, TITLE) if name in names]
    if not texts and image is None and IMAGE not in names and not (folder / IMAGES).is_dir():
        raise ValueError(
            f"{items_file} has the columns {', '.join(map(repr, names))}, and there is no folder "
            f"{folder / IMAGES}, so the items have neither text nor pictures. Name the column of "
            f"texts {TEXT!r} or {TITLE!r}, or pass text= or image="
        )
    images = image or (IMAGE if IMAGE in names else None)
    shown = TITLE if TITLE in names else None
    chosen = [item, *texts[:1], *([shown] if shown else []), *([images] if images else [])]
    words_in = [*texts[:1], *([shown] if shown else []), *([images] if images else [])]
    table = _read(items_file, dict.fromkeys(chosen), ids=[item], texts=words_in, **options)
    times = [] if timestamp is None else [timestamp]
    events = _read(events_file, [user, item, *times], ids=[user, item], **options)
    _align(table, events, item)
    _check_items(items_file, table[item].tolist())
    interactions = Interactions.from_table(events, user=user, item=item, timestamp=timestamp)
    known = table[item].tolist()
    item_ids = all_items(known, interactions)
    _compare(len(known), item_ids, interactions, items_file, events_file, table[item])
    more: list[Any] = [None] * (len(item_ids) - len(known))
    if images and (image or any(not _is_empty(cell) for cell in table[images].tolist())):
        pictures = [_picture(folder, cell) for cell in table[images].tolist()] + more
    else:
        within = folder / IMAGES
        pictures = pictures_by_id(within, item_ids) if within.is_dir() else [None] * len(item_ids)
    words = _words(items_file, texts[0], table, item) + more if texts else None
    titles = _words(items_file, shown, table, item) + more if shown else words
    nothing: list[Any] = [None] * len(item_ids)
    return RawData(
        interactions, make_items(item_ids, titles or nothing, words or nothing, pictures)
    )


def table_file(folder: Path, name: str) -> Path:
    """Find the only table of a name in a folder.

    Args:
        folder: the folder.
        name: such as "items".

    Returns:
        The file, or the folder of Parquet files.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if there are several.
    """
    there = sorted(folder.iterdir())
    named = [path for path in there if path.name.lower().partition(".")[0] == name]
    found = [
        path
        for path in named
        if path.name.lower().removeprefix(name) in SUFFIXES or (path.is_dir() and path.name == name)
    ]
    if len(found) > 1:
        names = " and ".join(path.name for path in found)
        raise ValueError(f"{folder} has several tables of {name}: {names}; keep one of them there")
    if not found:
        listed = ", ".join(path.name for path in there[:10]) or "no files"
        raise FileNotFoundError(
            f"{folder} has no table of {name}: name it {name}.parquet, .csv, .tsv or .jsonl; there "
            f"{'is' if len(there) == 1 else 'are'} {listed}{', ...' if len(there) > 10 else ''}"
        )
    return found[0]


def _read(
    path: Path,
    names: Mapping[str, None] | Sequence[str],
    *,
    ids: Sequence[str],
    texts: Sequence[str] = (),
    encoding: str,
    csv_options: Mapping[str, Any] | None,
) -> dict[str, Column]:
    """Read columns of a table.

    In CSV and TSV files, ids become integers only if that loses nothing, and texts never do.
    """
    is_csv = path.is_file() and path.name.lower().removesuffix(".gz")[-4:] in (".csv", ".tsv")
    if not is_csv:
        return read_columns(path, list(names), encoding=encoding)
    options = dict(csv_options or {})
    kept = list(options.get("strings", ()))
    options["strings"] = list(dict.fromkeys([*kept, *ids, *texts]))
    table = read_columns(path, list(names), encoding=encoding, csv_options=options)
    for name in ids:
        if name not in kept and all(_is_plain_number(cell) for cell in table[name]):
            table[name] = np.array([int(cell) for cell in table[name]], dtype=object)
    return table


def _is_plain_number(cell: object) -> bool:
    """Whether the text is how Python writes a whole number: 7, and not 007 or 7.0."""
    text = str(cell)
    return text.removeprefix("-").isdecimal() and str(int(text)) == text


def _align(table: dict[str, Column], events: dict[str, Column], item: str) -> None:
    """Make the item ids of both tables strings if one table has strings and the other numbers."""
    kinds = [{type(cell) for cell in part[item].tolist()} for part in (table, events)]
    if kinds == [{int}, {str}] or kinds == [{str}, {int}]:
        part = table if kinds[0] == {int} else events
        part[item] = np.array([str(cell) for cell in part[item].tolist()], dtype=object)


def _check_items(path: Path, item_ids: Sequence[Any]) -> None:
    if not item_ids:
        raise ValueError(f"{path} has no rows; give one for each item")
    seen = set()
    for row, item_id in enumerate(item_ids):
        if is_missing(item_id):
            raise ValueError(f"{path} has no item id in row {row:,}, the first being row 0")
        if item_id in seen:
            raise ValueError(
                f"{path} has item {item_id!r} a second time in row {row:,}, the first being row 0; "
                "remove the row"
            )
        seen.add(item_id)


def _compare(
    known: int,
    item_ids: Sequence[Any],
    interactions: Interactions,
    items_file: Path,
    events_file: Path,
    first: Column,
) -> None:
    """Raise if the tables have no item in common; warn of items that have no row."""
    absent = len(item_ids) - known
    if absent == len(interactions.item_ids):
        raise ValueError(
            f"{items_file.name} and {events_file.name} have no item in common: the first has ids "
            f"such as {first.tolist()[0]!r}, the second such as {interactions.item_ids[0]!r}"
        )
    if absent:
        hint = did_you_mean(item_ids[known], set(item_ids[:known]).__contains__)
        warnings.warn(
            f"{absent} of the {len(interactions.item_ids)} items of {events_file.name}, such as "
            f"{item_ids[known]!r}, are not in {items_file.name}: they have neither text nor "
            f"picture{hint and f' ({hint})'}",
            UserWarning,
            stacklevel=3,
        )


def _is_empty(cell: Any) -> bool:
    return is_missing(cell) or not str(cell).strip()


def _picture(folder: Path, cell: Any) -> Any:
    """Return the path of a picture; bytes of a picture as they are."""
    if isinstance(cell, Mapping):  # the format in which `datasets` stores pictures
        cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, bytes | bytearray):
        return bytes(cell) or None
    if _is_empty(cell):
        return None
    if not isinstance(cell, str | os.PathLike):
        raise TypeError(
            f"the items table has the picture {str(cell)[:60]!r} ({type(cell).__name__}), but a "
            "picture must be a path or bytes: give one for each item"
        )
    if "://" in str(cell):
        raise ValueError(
            f"the items table has the picture {str(cell)[:80]!r}, which is a URL: download the "
            "pictures first and give their paths"
        )
    path = folder / user_path(str(cell))
    if not path.is_file() and "\\" in str(cell):  # written on Windows
        path = folder / user_path(str(cell).replace("\\", "/"))
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no picture {path}, which the items table names; leave the cell empty if the "
            "item has none"
        )
    return path


def _words(path: Path, name: str, table: Mapping[str, Column], item: str) -> list[str | None]:
    """Return the texts of a column; numbers are written out."""
    found: list[str | None] = []
    for item_id, cell in zip(table[item].tolist(), table[name].tolist(), strict=True):
        if isinstance(cell, list | tuple | Mapping | bytes):
            raise TypeError(
                f"column {name!r} of {path} holds {str(cell)[:60]!r} ({type(cell).__name__}) for "
                f"item {item_id!r}, but a text must be one string: join its parts first"
            )
        found.append(None if is_missing(cell) else str(cell))
    return found
