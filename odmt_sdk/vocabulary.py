"""The item vocabulary: maps the user's item ids to rows of the tables."""

import hashlib
import unicodedata
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import suppress
from decimal import Decimal
from enum import Enum
from functools import cached_property
from typing import Any, Literal

import numpy as np

from odmt_sdk.tables import Column, is_missing, plain, to_column


class ItemVocabulary:
    """Maps the user's item ids to rows 1..N; row 0 is padding.

    Ids may be any hashable values. They are compared by value and type: 1, 1.0, True and "1" are
    four different ids. Ids of different types that are equal in Python, such as 1 and True, cannot
    be in the same vocabulary. Scalars of NumPy, PyArrow and torch are converted to Python values.
    Arrays and series of floats or decimals that are all whole numbers are converted to integers,
    because table libraries turn integers into floats if a value is missing.

    Args:
        item_ids: the N item ids in row order; `item_ids[i]` gets row `i + 1`.

    Raises:
        ValueError: if there are no ids, or an id is repeated or missing (None, NaN).
        TypeError: if an id is not hashable or is not a single value, or `item_ids` is unordered.

    Examples:
        >>> vocabulary = ItemVocabulary(["mug", "lamp"])
        >>> vocabulary.rows(["lamp", "mug"])
        [2, 1]
        >>> vocabulary.ids([1])
        ['mug']
    """

    def __init__(self, item_ids: Iterable[Hashable]) -> None:
        self.item_ids: tuple[Hashable, ...] = tuple(plain_ids(item_ids))
        if not self.item_ids:
            raise ValueError("the item vocabulary is empty: give at least one item id")
        if not set(map(type, self.item_ids)) <= {str, int}:
            for row, item_id in enumerate(self.item_ids):
                if is_missing(item_id):
                    raise ValueError(
                        f"the item id in row {row:,} of {len(self.item_ids):,} is missing "
                        f"({item_id!r}; the first row is row 0); give the item an id, or drop it"
                    )
        self._rows = {item_id: row for row, item_id in enumerate(self.item_ids, start=1)}
        if len(self._rows) < len(self.item_ids):
            refuse_mixed_types(self.item_ids, "the list of item ids holds")
            seen: set[Hashable] = set()
            for twice in self.item_ids:
                if twice in seen:
                    break
                seen.add(twice)
            raise ValueError(
                f"item id {twice!r} stands more than once; item ids must be distinct: "
                "drop or merge the repeated rows"
            )

    def __len__(self) -> int:
        return len(self.item_ids)

    def __contains__(self, item_id: object) -> bool:
        return self._find(plain(item_id)) is not None

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self.item_ids)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, ItemVocabulary)
            and self.item_ids == other.item_ids
            and all(map(_same_type, self.item_ids, other.item_ids))
        )

    def __hash__(self) -> int:
        return hash(self.item_ids)

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self.ids(range(1, min(3, len(self)) + 1))))
        return f"ItemVocabulary({len(self)} items: {shown}{', ...' if len(self) > 3 else ''})"

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the ids, with their types, in the order of the rows."""
        digest = hashlib.sha256()
        for item_id in self:
            digest.update(f"{item_id!r};".encode("utf-8", "surrogatepass"))
        return digest.hexdigest()

    def rows(
        self, item_ids: Iterable[Hashable], *, unknown: Literal["error", "skip"] = "error"
    ) -> list[int]:
        """Look up the rows of item ids.

        Args:
            item_ids: the user's item ids, as a list, an array, a tensor or a series.
            unknown: what to do with ids that are not in the vocabulary: "error" raises, "skip"
                skips them.

        Returns:
            The row in 1..N of each known id, in the given order.

        Raises:
            ValueError: if an id is unknown and `unknown="error"`.
            TypeError: if an id is not hashable or is not a single value, or `item_ids` is
                unordered.
        """
        if unknown not in ("error", "skip"):
            raise ValueError(f'unknown={unknown!r} must be "error" or "skip"')
        rows: list[int] = []
        for item_id in plain_ids(item_ids):
            row = self._find(item_id)
            if row is not None:
                rows.append(row)
            elif unknown == "error":
                hint = did_you_mean(item_id, self.__contains__)
                raise ValueError(
                    f"item id {item_id!r} is not among the {len(self)} items of the vocabulary "
                    f"(for example {self._id_of(1)!r}{hint and '; ' + hint}); "
                    "ids are compared by value and type. "
                    'Pass unknown="skip" to leave unknown items out'
                )
        return rows

    def ids(self, rows: Iterable[int]) -> list[Hashable]:
        """Look up the user's item ids of rows.

        Args:
            rows: rows in 1..N.

        Returns:
            The id of each row, in the given order.

        Raises:
            ValueError: if a row is outside 1..N.
        """
        found = []
        for row in rows:
            if not 1 <= row <= len(self):
                raise ValueError(f"row {row} is outside 1..{len(self)}; row 0 is padding")
            found.append(self._id_of(row))
        return found

    def _find(self, item_id: Hashable) -> int | None:
        """Return the row of an id, or None."""
        row = self._rows.get(item_id)
        if row is None or not _same_type(item_id, self.item_ids[row - 1]):
            return None
        return row

    def _id_of(self, row: int) -> Hashable:
        return self.item_ids[row - 1]


def plain_ids(
    ids: Iterable[Any], what: str = "the list of item ids", *, ordered: bool = True
) -> list[Hashable]:
    """Convert ids in any container to a list of Python values.

    Args:
        ids: a list or another iterable, an array, a tensor, a series or a column.
        what: description of the ids, for messages.
        ordered: whether their order matters; if so, a set is rejected.

    Returns:
        The ids as Python values.

    Raises:
        ValueError: if floats are too large to represent every integer exactly.
        TypeError: if `ids` is not a sequence, or an id is not hashable, is not a single value, or
            is compared by identity.

    Examples:
        >>> plain_ids(np.array([3.0, 5.0]))
        [3, 5]
    """
    if isinstance(ids, str | bytes) or not hasattr(ids, "__iter__"):
        raise TypeError(f"{what} is {ids!r} ({type(ids).__name__}); give a list of ids")
    if ordered and isinstance(ids, set | frozenset):
        raise TypeError(f"{what} is a {type(ids).__name__}, which has no order; give a list")
    if hasattr(ids, "__array__") or hasattr(ids, "to_pylist"):
        values: list[Hashable] = id_column(what, to_column(what, ids)).tolist()
        return values
    values = list(ids)
    kinds = set(map(type, values))
    if not kinds <= {str, int}:
        values = list(map(plain, values))
        _check_types(what, values)
    return values


def id_column(what: str, column: Column) -> Column:
    """Normalize a column of ids.

    Args:
        what: description of the column, for messages.
        column: ids (E,) of any dtype; None and NaN are missing.

    Returns:
        The ids (E,). Floats and decimals that are all whole numbers are converted to integers, and
        scalars in an object array to Python values.

    Raises:
        ValueError: if floats are too large to represent every integer exactly.
        TypeError: if an id is not hashable, is not a single value, or is compared by identity.
    """
    if column.dtype.kind == "f":
        digits = np.finfo(column.dtype).nmant + 1
        if (np.abs(column) >= 2.0**digits).any():
            raise ValueError(
                f"{what} holds ids as floats of 2**{digits} and more, which cannot distinguish "
                "neighbouring whole numbers; read the ids as integers or strings"
            )
        missing = np.isnan(column)
        if missing.all() or (column[~missing] != np.floor(column[~missing])).any():
            return column
        if not missing.any():
            return column.astype(np.int64)
        whole = np.where(missing, 0, column).astype(np.int64).astype(object)
        whole[missing] = None
        return whole
    if column.dtype.kind in "iuUSb":
        return column
    kinds = set(map(type, column))
    if kinds <= {str, int}:
        return column
    ids = list(map(plain, column))
    _check_types(what, ids)
    present = [value for value in ids if not is_missing(value)]
    if len(set(map(type, present))) == 1 and all(map(_is_whole, present)):
        ids = [None if is_missing(value) else int(value) for value in ids]
    return np.fromiter(ids, dtype=object, count=len(ids))


def refuse_mixed_types(ids: Iterable[Hashable], what: str) -> None:
    """Raise `ValueError` if two ids have different types but are equal in Python.

    Args:
        ids: the ids.
        what: subject and verb of the message, such as "the list of item ids holds".
    """
    first: dict[Hashable, Hashable] = {}
    for item_id in ids:
        other = first.setdefault(item_id, item_id)
        if not _same_type(item_id, other):
            raise ValueError(
                f"{what} both {other!r} ({type(other).__name__}) and {item_id!r} "
                f"({type(item_id).__name__}), which are equal in Python; convert all of them "
                "to one type"
            )


def did_you_mean(item_id: Hashable, is_known: Callable[[Hashable], bool]) -> str:
    """Suggest a known id that equals an unknown one except for its type, spaces or Unicode form.

    Args:
        item_id: an unknown id.
        is_known: returns whether an id is known.

    Returns:
        A suggestion such as "did you mean the integer 1?", or "".
    """
    text = item_id.decode("utf-8", "replace") if isinstance(item_id, bytes) else str(item_id)
    candidates: list[Hashable] = [text, text.strip()]
    candidates += [unicodedata.normalize(form, text.strip()) for form in ("NFC", "NFD")]
    with suppress(ArithmeticError, ValueError):  # not a number
        number = Decimal(int(item_id) if isinstance(item_id, bool) else text.strip())
        if abs(number) < 2**63 and _is_whole(number):
            candidates = [int(number), *candidates, str(int(number)), float(number)]
    for other in candidates:
        if is_known(other):
            names: dict[type, str] = {int: "integer", str: "string"}
            shown = repr(other)
            if not shown.isascii() and other not in (text, text.strip()):
                shown = f"{other!a}, another Unicode form of the same text"
            return f"did you mean the {names.get(type(other), type(other).__name__)} {shown}?"
    return ""


def _is_whole(value: object) -> bool:
    if isinstance(value, Decimal):
        return value.is_finite() and value == value.to_integral_value()
    return isinstance(value, float) and value.is_integer()


def _same_type(one: object, other: object) -> bool:
    return type(one) is type(other)


def _check_types(what: str, ids: list[Any]) -> None:
    """Raise `TypeError` unless ids are hashable, single values that are compared by value."""
    for kind, example in {type(value): value for value in reversed(ids)}.items():
        if kind is type(None) or issubclass(kind, Enum | type):
            continue
        row = next(row for row, value in enumerate(ids) if value is example)
        shown = f"{str(example)[:60]!r}, a {kind.__name__}, in row {row:,}"
        if shape := getattr(example, "shape", None):
            raise TypeError(
                f"{what} holds {shown}, of shape {tuple(shape)}: that is not one id; give single "
                "values"
            )
        if getattr(kind, "__hash__", None) is None:
            raise TypeError(
                f"{what} holds an id that is not hashable: {shown}; ids may be strings, numbers, "
                "tuples or any other hashable"
            )
        if getattr(kind, "__eq__", None) is object.__eq__:
            raise TypeError(
                f"{what} holds {shown}, which is compared by identity, so every row would have a "
                "different id; give strings or numbers"
            )
