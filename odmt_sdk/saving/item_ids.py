"""The file of item ids: JSON, strings and integers in row order.

A large file is read in pieces, so that loading takes little more than the ids themselves.
"""

import json
import os
import re
from collections.abc import Hashable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from odmt_sdk.errors import AdapterError
from odmt_sdk.files.untrusted_files import JsonScan, read_json
from odmt_sdk.saving.layout import MAX_ID_BYTES
from odmt_sdk.saving.packed_vocabulary import PackedVocabulary
from odmt_sdk.vocabulary import ItemVocabulary

LONGEST = MAX_ID_BYTES // 12 - 1  # a character may take 12 bytes of JSON
MOST_BITS = 4096
SMALL = 64 << 10  # bytes of a file that is read as a whole
PIECE = 256 << 10
_BEGINNING = re.compile(
    rb'\s{0,99}\{\s{0,99}"save_id"\s{0,99}:\s{0,99}("[^"\\]{0,99}")\s{0,99},'
    rb'\s{0,99}"item_ids"\s{0,99}:\s{0,99}\['
)
_END = re.compile(rb"\]\s{0,99}\}\s{0,99}$")
_COMMA = ord(",")


def check_item_ids(item_ids: Iterable[Hashable]) -> None:
    """Raise `AdapterError` unless all can be saved.

    Args:
        item_ids: in row order.
    """
    for item_id in item_ids:
        if type(item_id) not in (str, int):
            raise AdapterError(
                f"item id {item_id!r} is a {type(item_id).__name__}; only strings and integers can "
                "be saved: use for example str(item_id) as the id"
            )
        longest, unit = (MOST_BITS, "bits") if isinstance(item_id, int) else (LONGEST, "characters")
        size = item_id.bit_length() if isinstance(item_id, int) else len(str(item_id))
        if size > longest:
            raise AdapterError(
                f"an item id has {size} {unit}, but at most {longest} can be saved: use shorter ids"
            )


def write_item_ids(path: Path, item_ids: Iterable[Hashable], save_id: str) -> None:
    """Write the file.

    Args:
        path: where.
        item_ids: strings and integers.
        save_id: the mark of this save.
    """
    # ASCII: any string can be written, also one that is no valid Unicode.
    with path.open("w", encoding="ascii") as file:
        file.write(f'{{"save_id": {json.dumps(save_id)}, "item_ids": [')
        item_ids, between = iter(item_ids), ""
        while batch := list(islice(item_ids, 10_000)):
            file.write(between + json.dumps(batch)[1:-1])
            between = ", "
        file.write("]}")


def count_item_ids(path: Path) -> int:
    """How many item ids a file has that is known to be sound.

    Args:
        path: the file.

    Returns:
        Their number.
    """
    with path.open(encoding="ascii") as file:
        return len(json.load(file)["item_ids"])


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
    size, most = os.fstat(file.fileno()).st_size, 256 + count * MAX_ID_BYTES
    try:
        if size > SMALL and size <= most:
            vocabulary, save_id = _read_large(file, count)
        else:
            content = read_json(file, name, max_bytes=most, max_values=count + 16)
            vocabulary, save_id = _from_json(content, count)
    except ValueError as error:
        raise AdapterError(f"{name} is damaged: {error}") from error
    if len(vocabulary) != count:
        raise AdapterError(f"{name} is damaged: {_other_number(len(vocabulary), count)}")
    return vocabulary, save_id


def _from_json(content: Any, count: int) -> tuple[ItemVocabulary, object]:
    if not isinstance(content, dict) or set(content) != {"save_id", "item_ids"}:
        raise ValueError("it must be an object with save_id and item_ids")
    item_ids = content["item_ids"]
    if not isinstance(item_ids, list):
        raise ValueError("its item ids must be a list of strings and integers")
    _check_kinds(item_ids)
    if len(item_ids) != count:
        raise ValueError(_other_number(len(item_ids), count))
    return ItemVocabulary(item_ids), content["save_id"]


def _other_number(found: int, count: int) -> str:
    return f"it has {found} item ids, but the weights are for {count} items"


def _check_kinds(item_ids: list[Any]) -> None:
    if set(map(type, item_ids)) - {str, int}:
        raise ValueError("its item ids must be a list of strings and integers")


def _read_large(file: BinaryIO, count: int) -> tuple[ItemVocabulary, object]:
    """Read a file as `write_item_ids` writes it, in pieces."""
    file.seek(0)
    start = file.read(1024)
    beginning = _BEGINNING.match(start)
    if beginning is None:
        raise ValueError("it must be an object with save_id and item_ids, in this order")
    file.seek(beginning.end())
    return PackedVocabulary(_batches(file, count)), json.loads(beginning[1])


def _batches(file: BinaryIO, count: int) -> Iterator[list[Any]]:
    """The ids, some thousands at a time."""
    found = 0
    for piece in _pieces(file):
        item_ids = json.loads(f"[{piece.decode('utf-8')}]")
        _check_kinds(item_ids)
        found += len(item_ids)
        if found > count:
            raise ValueError(_other_number(found, count))
        yield item_ids


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    """The ids of a JSON list, a few thousand at a time, with commas between them."""
    rest, longest = b"", PIECE + 2 * MAX_ID_BYTES
    while block := file.read(PIECE):
        rest += block
        scan = JsonScan()
        outside = scan.read(rest)
        commas = outside & (np.frombuffer(rest, np.uint8, len(outside)) == _COMMA)
        if scan.depth > 0:
            raise ValueError("its item ids must be a list of strings and integers")
        if commas.any():
            cut = len(commas) - 1 - int(commas[::-1].argmax())  # the last one
            yield rest[:cut]
            rest = rest[cut + 1 :]
        elif len(rest) > longest:
            raise ValueError(f"an item id has more than {MAX_ID_BYTES} bytes")
    end = _END.search(rest[-256:])
    if end is None:
        raise ValueError("it ends within its item ids")
    yield rest[: len(rest) - len(end[0])]
