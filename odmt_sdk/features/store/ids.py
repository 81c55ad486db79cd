"""Item ids in a compact file, loaded without building Python objects.

The file holds the concatenated texts of the ids, and their sorted hashes for lookup by binary
search. Letters: N items.
"""

import hashlib
from collections.abc import Hashable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from odmt_sdk.features.store.reading import Kind, read_tensors
from odmt_sdk.files.atomic_files import write_tensors
from odmt_sdk.vocabulary import ItemVocabulary

_KINDS = {
    "text": Kind(torch.uint8),
    "ends": Kind(torch.int64),
    "is_integer": Kind(torch.bool),
    "hashes": Kind(torch.int64),
    "rows": Kind(torch.int64),
}


def write_ids(path: Path, item_ids: Sequence[Hashable]) -> None:
    """Write item ids to a file.

    Args:
        path: the file.
        item_ids: N distinct strings or integers in row order.

    Raises:
        ValueError: if an id is neither a string nor an integer.
    """
    encoded = []
    for item_id in item_ids:
        if type(item_id) not in (str, int):
            raise ValueError(
                f"item id {item_id!r} is a {type(item_id).__name__}; only strings and integers can "
                "be kept on disk: use for example str(item_id) as the id"
            )
        encoded.append(_encode(item_id))
    hashes = np.fromiter(map(_hash, item_ids, encoded), np.int64, len(encoded))
    order = hashes.argsort(kind="stable")
    write_tensors(
        path,
        {
            "text": torch.frombuffer(
                bytearray(b"".join(encoded)) or bytearray(1), dtype=torch.uint8
            ),
            "ends": torch.from_numpy(np.cumsum([len(text) for text in encoded], dtype=np.int64)),
            "is_integer": torch.tensor([type(item_id) is int for item_id in item_ids]),
            "hashes": torch.from_numpy(hashes[order]),
            "rows": torch.from_numpy(order + 1),
        },
    )


def _encode(item_id: Hashable) -> bytes:
    return str(item_id).encode("utf-8", "surrogatepass")


def _hash(item_id: Hashable, encoded: bytes) -> int:
    key = b"i" if type(item_id) is int else b"s"
    digest = hashlib.blake2b(encoded, digest_size=8, key=key).digest()
    return int.from_bytes(digest, "little", signed=True)


class StoredVocabulary(ItemVocabulary):
    """The item vocabulary of a store, which decodes ids on demand.

    Args:
        path: a file written by `write_ids`.

    Examples:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "items.safetensors")
        >>> write_ids(path, ["mug", 7])
        >>> StoredVocabulary(path).rows([7, "mug"])
        [2, 1]
    """

    def __init__(self, path: Path) -> None:
        found, _ = read_tensors(path, _KINDS)
        tensors = {name: tensor.numpy() for name, tensor in found.items()}
        self._path = path
        self._text: npt.NDArray[np.uint8] = tensors["text"]
        self._ends: npt.NDArray[np.int64] = tensors["ends"]
        self._is_integer: npt.NDArray[np.bool_] = tensors["is_integer"]
        self._hashes: npt.NDArray[np.int64] = tensors["hashes"]
        self._order: npt.NDArray[np.int64] = tensors["rows"]
        count = len(self._ends)
        if (
            not count
            or {len(tensors[name]) for name in ("is_integer", "hashes", "rows")} != {count}
            or self._ends[0] < 0
            or self._ends[-1] > len(self._text)
            or (self._ends[1:] < self._ends[:-1]).any()
            or self._order.min() < 1
            or self._order.max() > count
        ):
            raise ValueError(f"{path} is damaged: it does not hold item ids one after another")

    @cached_property
    def item_ids(self) -> tuple[Hashable, ...]:  # type: ignore[override]  # made when read
        """All ids in row order, decoded on first access."""
        return tuple(self)

    def __len__(self) -> int:
        return len(self._ends)

    def __iter__(self) -> Iterator[Hashable]:
        text, start = self._text.tobytes(), 0
        for end, is_integer in zip(self._ends.tolist(), self._is_integer.tolist(), strict=True):
            yield self._decode(text[start:end], is_integer)
            start = end

    def __eq__(self, other: object) -> bool:
        if isinstance(other, StoredVocabulary) and other._path == self._path:
            return True
        if not isinstance(other, ItemVocabulary) or len(other) != len(self):
            return False
        return all(
            type(mine) is type(theirs) and mine == theirs
            for mine, theirs in zip(self, other, strict=True)
        )

    def __hash__(self) -> int:
        return hash(self.item_ids)

    def _id_of(self, row: int) -> Hashable:
        start = int(self._ends[row - 2]) if row > 1 else 0
        text = self._text[start : self._ends[row - 1]].tobytes()
        return self._decode(text, bool(self._is_integer[row - 1]))

    def _decode(self, encoded: bytes, is_integer: bool) -> Hashable:
        try:
            text = encoded.decode("utf-8", "surrogatepass")
            return int(text) if is_integer else text
        except ValueError as error:
            raise ValueError(
                f"{self._path} is damaged: {encoded[:20]!r} is no item id ({error})"
            ) from error

    def _find(self, item_id: Hashable) -> int | None:
        """Return the row of an id, or None."""
        if type(item_id) not in (str, int):
            return None
        wanted = _hash(item_id, _encode(item_id))
        place = int(self._hashes.searchsorted(wanted))
        while place < len(self) and self._hashes[place] == wanted:
            row = int(self._order[place])
            if self._id_of(row) == item_id:
                return row
            place += 1  # hash collision: try the next id
        return None
