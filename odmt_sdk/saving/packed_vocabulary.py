"""An item vocabulary for large catalogues: ids one after another, found by their hashes.

A Python object for each id, and a dictionary of them, take ten times the room of the ids' text.
Letters: N items.
"""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from odmt_sdk.vocabulary import ItemVocabulary

_INTEGER = 0x2545F4914F6CDD1D  # changes the hash of an integer's text: 1 and "1" are two ids
_BATCH = 10_000


class PackedVocabulary(ItemVocabulary):
    """Maps item ids that are strings and integers to rows 1..N, in little memory.

    Args:
        batches: lists of ids; together the N ids in row order.

    Raises:
        ValueError: if an id stands twice, or there is none.

    Examples:
        >>> vocabulary = PackedVocabulary([["mug", "lamp"], [7]])
        >>> vocabulary.rows([7, "mug"])
        [3, 1]
        >>> vocabulary.ids([2])
        ['lamp']
    """

    def __init__(self, batches: Iterable[Sequence[Any]]) -> None:
        texts, lengths, integers, hashes = bytearray(), [], [], []
        for item_ids in batches:
            words = list(map(str, item_ids))
            text = "".join(words)
            encoded = text.encode("utf-8", "surrogatepass")
            sizes = map(len, words) if len(encoded) == len(text) else map(_size, words)
            is_integer = np.fromiter((type(i) is int for i in item_ids), np.bool_, len(words))
            texts += encoded
            lengths.append(np.fromiter(sizes, np.uint32, len(words)))
            integers.append(is_integer)
            hashes.append(_hashes(words, is_integer))
        if not lengths:
            raise ValueError("the item vocabulary is empty: give at least one item id")
        self._text = texts
        place = np.uint32 if len(texts) < 2**32 else np.int64
        self._ends = np.cumsum(np.concatenate(lengths), dtype=place)
        self._is_integer = np.concatenate(integers)
        lengths.clear()
        integers.clear()
        found = np.concatenate(hashes)
        hashes.clear()
        self._index(found)

    def _index(self, hashes: npt.NDArray[np.int64]) -> None:
        """Remember hashes (N,) in order, and refuse ids that stand twice."""
        order = hashes.argsort().astype(np.uint32)
        hashes.sort()
        self._hashes, self._order = hashes, order
        same = np.nonzero(hashes[1:] == hashes[:-1])[0]  # the same id, or two of the same hash
        group: set[Hashable] = set()
        last = None
        for place in same:  # not as a list: it may be long
            if hashes[place] != last:
                group, last = {self._id_of(int(order[place]) + 1)}, hashes[place]
            item_id = self._id_of(int(order[place + 1]) + 1)
            if item_id in group:
                raise ValueError(
                    f"item id {item_id!r} stands more than once; item ids must be distinct: "
                    "drop or merge the repeated rows"
                )
            group.add(item_id)

    @cached_property
    def item_ids(self) -> tuple[Hashable, ...]:  # type: ignore[override]  # made when read
        """All ids in row order; an object for each."""
        return tuple(self)

    def __len__(self) -> int:
        return len(self._ends)

    def __iter__(self) -> Iterator[Hashable]:
        for batch in self._batches():
            yield from batch

    def __eq__(self, other: object) -> bool:
        if isinstance(other, PackedVocabulary):
            return self._text == other._text and all(
                np.array_equal(mine, theirs)
                for mine, theirs in (
                    (self._ends, other._ends),
                    (self._is_integer, other._is_integer),
                )
            )
        if not isinstance(other, ItemVocabulary) or len(other) != len(self):
            return False
        return all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    def __hash__(self) -> int:
        return hash(self.item_ids)

    def __getstate__(self) -> dict[str, Any]:
        """What another process can use: there, the same text has another hash."""
        return {"text": self._text, "ends": self._ends, "is_integer": self._is_integer}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._text, self._ends = state["text"], state["ends"]
        self._is_integer = state["is_integer"]
        self._index(
            np.concatenate(
                [
                    _hashes(list(map(str, batch)), self._is_integer[start : start + _BATCH])
                    for start, batch in zip(
                        range(0, len(self), _BATCH), self._batches(), strict=True
                    )
                ]
            )
        )

    def _batches(self) -> Iterator[list[Hashable]]:
        begin = 0
        for start in range(0, len(self), _BATCH):
            ends = self._ends[start : start + _BATCH].tolist()
            integers = self._is_integer[start : start + _BATCH].tolist()
            batch = []
            for end, is_integer in zip(ends, integers, strict=True):
                batch.append(_decode(self._text[begin:end], is_integer))
                begin = end
            yield batch

    def _id_of(self, row: int) -> Hashable:
        start = int(self._ends[row - 2]) if row > 1 else 0
        return _decode(
            self._text[start : int(self._ends[row - 1])], bool(self._is_integer[row - 1])
        )

    def _find(self, item_id: Hashable) -> int | None:
        """The row of an id, or None."""
        if type(item_id) not in (str, int):
            return None
        integer = np.array([type(item_id) is int])
        wanted = _hashes([str(item_id)], integer)[0]
        place = int(self._hashes.searchsorted(wanted))
        while place < len(self) and self._hashes[place] == wanted:
            row = int(self._order[place]) + 1
            if self._id_of(row) == item_id:
                return row
            place += 1  # two ids of the same hash
        return None


def _hashes(words: Sequence[str], is_integer: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Hashes that nobody can choose ids for: Python draws a key for them in every process."""
    found = np.fromiter(map(hash, words), np.int64, len(words))
    found[is_integer] ^= _INTEGER
    return found


def _size(word: str) -> int:
    return len(word.encode("utf-8", "surrogatepass"))


def _decode(encoded: bytes | bytearray, is_integer: bool) -> Hashable:
    text = encoded.decode("utf-8", "surrogatepass")
    return int(text) if is_integer else text
