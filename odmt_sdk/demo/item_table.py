"""Titles and pictures of the items that a model recommends, and a search in them."""

from __future__ import annotations

import functools
import os
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

from odmt_sdk.demo.thumbnails import SUFFIXES, thumbnail
from odmt_sdk.features.extractor import is_missing
from odmt_sdk.paths import user_path
from odmt_sdk.tables import Table, plain, read_columns

if TYPE_CHECKING:
    from odmt_sdk.vocabulary import ItemVocabulary

TITLE_COLUMNS = ("title", "text", "name")
LONGEST_TITLE = 160
CACHED_PICTURES = 2048
_TEXT_TABLES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")


class ItemTable:
    """Titles and pictures by row of a model's vocabulary.

    Args:
        vocabulary: the item ids of the model.
        items: table with the columns `item_id` and, if there are any, titles and pictures; None =
            item ids only.
        image_folder: folder of the pictures. Paths of the image column are relative to it;
            without such a column, the file `<item_id>.jpg`, `.jpeg`, `.png` or `.webp` is used.
            No file outside it is read.
        title_column: column of the titles; None = "title", "text" or "name", whichever there is.
        image_column: column of the pictures (paths, bytes or PIL images), if there is one.

    Raises:
        ValueError: if the column `item_id` or the given title column is missing, or no item of the
            table is in the vocabulary.
        NotADirectoryError: if the folder does not exist.
    """

    def __init__(
        self,
        vocabulary: ItemVocabulary,
        items: Table | None = None,
        image_folder: str | os.PathLike[str] | None = None,
        *,
        title_column: str | None = None,
        image_column: str = "image",
    ) -> None:
        self.vocabulary = vocabulary
        self._folder = None if image_folder is None else user_path(image_folder).absolute()
        if self._folder is not None and not self._folder.is_dir():
            raise NotADirectoryError(f"image_folder={str(image_folder)!r} is not a folder")
        ids = vocabulary.ids(range(1, len(vocabulary) + 1))
        self.titles = ["", *(_shortened(item) for item in ids)]  # by row
        self._pictures: dict[int, Any] = {}
        self._has_pictures = False
        if items is not None:
            self._read(items, title_column, image_column)
        if self._folder is not None and not self._has_pictures:
            self._pictures = dict(enumerate(map(str, ids), start=1))
        self._searched = [title.casefold() for title in self.titles]
        for row, item in enumerate(ids, start=1):
            self._searched[row] += f" {item}".casefold()
        self.picture = functools.lru_cache(CACHED_PICTURES)(self._picture)

    @property
    def has_pictures(self) -> bool:
        """Whether there is any place to look for pictures."""
        return bool(self._pictures)

    def search(self, query: str, limit: int, first: Sequence[int] = ()) -> list[int]:
        """Find items whose title or id contains all words of the query.

        Args:
            query: words, in any order and case; "" finds all items.
            limit: most rows to return.
            first: rows that come first, if they are found.

        Returns:
            Rows, in the order of the catalogue after those of `first`.
        """
        words = str(query).casefold().split()
        found: dict[int, None] = {}
        for row in (*first, *range(1, len(self.titles))):
            if all(word in self._searched[row] for word in words):
                found[row] = None
                if len(found) == limit:
                    break
        return list(found)

    def _picture(self, row: int) -> str | None:
        """The thumbnail of an item as a data URI; None if there is no readable picture."""
        picture = self._pictures.get(row)
        if self._folder is None or self._has_pictures:
            return thumbnail(picture, self._folder)
        for suffix in SUFFIXES:
            found = thumbnail(f"{picture}{suffix}", self._folder)
            if found is not None:
                return found
        return None

    def _read(self, items: Table, title_column: str | None, image_column: str) -> None:
        options: dict[str, Any] = {}
        is_text = isinstance(items, str | os.PathLike) and str(items).endswith(_TEXT_TABLES)
        if is_text and all(isinstance(item, str) for item in self.vocabulary):
            options["csv_options"] = {"strings": ["item_id"]}  # "007" keeps its zeros
        ids = [plain(item) for item in read_columns(items, ["item_id"], **options)["item_id"]]
        rows = [self._row(item) for item in ids]
        if not any(rows):
            mine = next(iter(self.vocabulary))
            raise ValueError(
                f"none of the {len(ids)} items of the table is in the model: the table has item "
                f"ids such as {ids[0] if ids else None!r}, but the model has {mine!r}. Pass the "
                "table that the model was trained with, with its ids in the column item_id"
            )
        titles = None
        for name in TITLE_COLUMNS if title_column is None else (title_column,):
            titles = _optional(items, name, options)
            if titles is not None:
                break
        if titles is None and title_column is not None:
            read_columns(items, [title_column], **options)  # says which columns there are
        pictures = _optional(items, image_column, options)
        self._has_pictures = pictures is not None
        for place, row in enumerate(rows):
            if not row:
                continue
            if titles is not None and not is_missing(titles[place]):
                self.titles[row] = _shortened(titles[place])
            if pictures is not None and not is_missing(pictures[place]):
                self._pictures[row] = pictures[place]

    def _row(self, item: Hashable) -> int:
        return self.vocabulary.rows([item])[0] if item in self.vocabulary else 0


def _optional(items: Table, column: str, options: dict[str, Any]) -> Any:
    try:
        return read_columns(items, [column], **options)[column]
    except ValueError as error:
        if str(error).startswith(f"column {column!r} is not in"):
            return None
        raise


def _shortened(title: object) -> str:
    text = " ".join(str(title).split()) or "(no title)"
    return text if len(text) <= LONGEST_TITLE else f"{text[: LONGEST_TITLE - 1]}…"
