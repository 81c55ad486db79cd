"""The file of item ids: JSON, strings and integers in row order."""

import json
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import BinaryIO, cast

from odmt_sdk.errors import AdapterError
from odmt_sdk.hub.folder_files import read_json
from odmt_sdk.hub.layout import MAX_ID_BYTES
from odmt_sdk.vocabulary import ItemVocabulary

LONGEST = MAX_ID_BYTES // 12 - 1  # a character may take 12 bytes of JSON
MOST_BITS = 4096


def check_item_ids(item_ids: Sequence[Hashable]) -> None:
    """Raise `AdapterError` unless all can be saved."""
    for item_id in item_ids:
        if type(item_id) not in (str, int):
            raise AdapterError(
                f"item id {item_id!r} is a {type(item_id).__name__}; only strings and integers can "
                "be saved: use for example str(item_id) as the id"
            )
        longest, unit = (MOST_BITS, "bits") if isinstance(item_id, int) else (LONGEST, "characters")
        size = item_id.bit_length() if isinstance(item_id, int) else len(cast(str, item_id))
        if size > longest:
            raise AdapterError(
                f"an item id of {size} {unit} is too long to be saved, which takes at most "
                f"{longest}: use shorter ids"
            )


def write_item_ids(path: Path, item_ids: Sequence[Hashable], save_id: str) -> None:
    """Write the file.

    Args:
        path: where.
        item_ids: strings and integers.
        save_id: the mark of this save.
    """
    # ASCII: any string can be written, also one that is no valid Unicode.
    content = json.dumps({"save_id": save_id, "item_ids": item_ids})
    path.write_text(content, encoding="ascii")


def count_item_ids(path: Path) -> int:
    """How many item ids a file has that is known to be sound.

    Args:
        path: the file.

    Returns:
        Their number.
    """
    return len(json.loads(path.read_text(encoding="ascii"))["item_ids"])


def read_item_ids(file: BinaryIO, name: str, *, count: int) -> tuple[ItemVocabulary, object]:
    """Read the file.

    Args:
        file: open for reading.
        name: for messages.
        count: how many items the weights have; it limits how much is read.

    Returns:
        The item ids, and the mark of the save that wrote them.

    Raises:
        AdapterError: if it is damaged, or has another number of ids, or one twice.
    """
    content = read_json(file, name, max_bytes=256 + count * MAX_ID_BYTES)
    if not isinstance(content, dict) or set(content) != {"save_id", "item_ids"}:
        raise AdapterError(f"{name} is damaged: it is no object of save_id and item_ids")
    item_ids = content["item_ids"]
    if not isinstance(item_ids, list) or not all(type(i) in (str, int) for i in item_ids):
        raise AdapterError(f"{name} is damaged: its item ids are no list of strings and integers")
    if len(item_ids) != count:
        raise AdapterError(
            f"{name} is damaged: it has {len(item_ids)} item ids, the weights are for {count} items"
        )
    try:
        return ItemVocabulary(item_ids), content["save_id"]
    except ValueError as error:
        raise AdapterError(f"{name} is damaged: {error}") from error
