"""Who interacted with what, in order of time.

E interactions, B users, N items.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable
from datetime import UTC, date, datetime
from itertools import compress
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from odmt_sdk.tables import Table, read_columns

IntArray = npt.NDArray[np.int64]


class Interactions:
    """User-item events, sorted by user and then by time.

    Users and items are numbered in the order in which they first appear in the input; events of a
    user at the same time keep their order in the input. Filters return new objects and leave this
    one as it is. Most people make one with `Interactions.from_table`.

    Args:
        user_ids: the B distinct users' ids.
        item_ids: the N distinct items' ids.
        item_codes: (E,) position in `item_ids` of each event's item, all events of the first user,
            then all of the second, each in order of time.
        offsets: (B + 1,) where each user's events start in `item_codes`; the last entry is E.

    Examples:
        >>> table = {"user_id": ["ann", "bob", "ann"], "item_id": [7, 7, 5], "timestamp": [2, 1, 1]}
        >>> interactions = Interactions.from_table(table)
        >>> interactions
        Interactions(3 events of 2 users with 2 items, 1 to 2 a user)
        >>> interactions.last(1).item_ids
        (7,)
    """

    def __init__(
        self,
        user_ids: Iterable[Hashable],
        item_ids: Iterable[Hashable],
        item_codes: IntArray,
        offsets: IntArray,
    ) -> None:
        self.user_ids: tuple[Hashable, ...] = tuple(user_ids)
        self.item_ids: tuple[Hashable, ...] = tuple(item_ids)
        self.item_codes = item_codes
        self.offsets = offsets

    @classmethod
    def from_table(
        cls,
        table: Table,
        *,
        user: str = "user_id",
        item: str = "item_id",
        timestamp: str | None = "timestamp",
    ) -> "Interactions":
        """Read interactions from a table, one row per event.

        Args:
            table: pandas or Polars DataFrame, PyArrow Table, Hugging Face dataset, mapping of
                columns, list of dicts, or the path of a .csv, .tsv or .parquet file.
            user: the column of user ids, which may be any hashable.
            item: the column of item ids, which may be any hashable.
            timestamp: the column of times, numbers or datetimes; None if the rows are in order of
                time already.

        Returns:
            All E rows as interactions; the same item twice counts twice.

        Raises:
            ValueError: if a column is absent, a value is missing, a time is neither number nor
                datetime, or there is no row.
            TypeError: if an id is not hashable.
        """
        names = [user, item] if timestamp is None else [user, item, timestamp]
        columns = read_columns(table, names)
        if not len(columns[user]):
            raise ValueError("the table of interactions has no rows; give at least one")
        users, user_ids = _encode_ids(user, columns[user])
        items, item_ids = _encode_ids(item, columns[item])
        if timestamp is None:
            order = np.argsort(users, kind="stable")
        else:
            order = np.lexsort((_read_times(timestamp, columns[timestamp]), users))  # stable
        return cls(user_ids, item_ids, items[order], _offsets(users, len(user_ids)))

    @property
    def num_users(self) -> int:
        """The number of distinct users, B."""
        return len(self.user_ids)

    @property
    def num_items(self) -> int:
        """The number of distinct items, N."""
        return len(self.item_ids)

    def __len__(self) -> int:
        return len(self.item_codes)

    def __repr__(self) -> str:
        lengths = np.diff(self.offsets)
        return (
            f"Interactions({len(self):,} events of {self.num_users:,} users with "
            f"{self.num_items:,} items, {lengths.min():,} to {lengths.max():,} a user)"
        )

    def k_core(
        self, k: int = 5, *, min_user: int | None = None, min_item: int | None = None
    ) -> "Interactions":
        """Keep the largest part in which every user and every item has enough interactions.

        Dropping a rare item can leave a user with too few, and the other way round, so both rules
        are applied in turn until nothing changes.

        Args:
            k: the least number of interactions of a user and of an item.
            min_user: that number for users, if it differs.
            min_item: that number for items, if it differs; 1 keeps rare items.

        Returns:
            The remaining interactions.

        Raises:
            ValueError: if a number is not a whole number of at least 1, or no user is left.
        """
        min_user, min_item = (k if least is None else least for least in (min_user, min_item))
        for name, value in (("k", k), ("min_user", min_user), ("min_item", min_item)):
            _check_count(name, value)
        kept = np.arange(len(self))  # the surviving events, (<= E,)
        users, items = self._user_codes(), self.item_codes
        while len(kept):
            enough = np.bincount(users)[users] >= min_user
            enough &= np.bincount(items)[items] >= min_item
            if enough.all():
                break
            kept, users, items = kept[enough], users[enough], items[enough]
        return self._select(
            kept,
            f"k_core with at least {min_user} interactions a user and {min_item} an item",
            "ask for fewer",
        )

    def last(self, n: int) -> "Interactions":
        """Keep the latest interactions of each user.

        Args:
            n: how many to keep of each user.

        Returns:
            The remaining interactions.

        Raises:
            ValueError: if `n` is not a whole number of at least 1.
        """
        _check_count("n", n)
        starts = np.maximum(self.offsets[:-1], self.offsets[1:] - n)  # (B,)
        kept = np.flatnonzero(np.arange(len(self)) >= starts[self._user_codes()])
        return self._select(kept, f"last({n})", "keep more")

    def keep_items(self, item_ids: Iterable[Hashable]) -> "Interactions":
        """Keep the interactions with some items, for instance those that have features.

        Args:
            item_ids: the ids to keep, or an `ItemVocabulary`; ids that nobody interacted with are
                ignored.

        Returns:
            The remaining interactions.

        Raises:
            ValueError: if no interaction is left.
        """
        wanted = set(item_ids)
        known = np.fromiter((item in wanted for item in self.item_ids), bool, self.num_items)
        example = f"the interactions have ids such as {self.item_ids[0]!r}"
        if wanted:
            example += f", the items to keep such as {next(iter(wanted))!r}"
        return self._select(
            np.flatnonzero(known[self.item_codes]),
            f"keep_items with {len(wanted):,} ids",
            f"{example}; ids are compared by value and type",
        )

    def _user_codes(self) -> IntArray:
        return np.repeat(np.arange(self.num_users), np.diff(self.offsets))  # (B,) -> (E,)

    def _select(self, kept: IntArray, what: str, way_out: str) -> "Interactions":
        """The events at the positions `kept`, users and items without any left out."""
        if not len(kept):
            raise ValueError(
                f"{what} leaves no user: all {len(self):,} interactions of {self.num_users:,} "
                f"users with {self.num_items:,} items fall away; {way_out}"
            )
        users, some_users = _renumber(self._user_codes()[kept], self.num_users)
        items, some_items = _renumber(self.item_codes[kept], self.num_items)
        return Interactions(
            compress(self.user_ids, some_users),
            compress(self.item_ids, some_items),
            items,
            _offsets(users, int(some_users.sum())),
        )


def _offsets(users: IntArray, num_users: int) -> IntArray:
    """Where each user's events start once they are sorted by user, (B + 1,)."""
    return np.concatenate(([0], np.cumsum(np.bincount(users, minlength=num_users))))


def _renumber(codes: IntArray, size: int) -> tuple[IntArray, npt.NDArray[np.bool_]]:
    """Codes without gaps in the same order, and which of the old codes (size,) still occur."""
    occurs = np.bincount(codes, minlength=size) > 0
    return (np.cumsum(occurs) - 1)[codes], occurs


def _check_count(name: str, value: object) -> None:
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}={value!r} must be a whole number of at least 1")


# ------------------------------------------------------------------ reading columns


def _encode_ids(name: str, values: npt.NDArray[Any]) -> tuple[IntArray, list[Hashable]]:
    """Number the distinct ids in order of first appearance: (E,) codes and the ids."""
    if values.dtype.kind in "iu":
        distinct, first, inverse = np.unique(values, return_index=True, return_inverse=True)
        order = np.argsort(first)
        ranks = np.empty_like(order)
        ranks[order] = np.arange(len(order))
        return ranks[inverse], distinct[order].tolist()
    if values.dtype.kind == "f" and (np.abs(values) >= 2**53).any():
        raise ValueError(
            f"column {name!r} holds ids as floats of 2**53 and more, which no longer tell "
            "neighbouring whole numbers apart; read the ids as integers or strings"
        )
    numbers: defaultdict[Any, int] = defaultdict()
    numbers.default_factory = numbers.__len__
    try:
        codes = np.fromiter(map(numbers.__getitem__, values.tolist()), np.int64, len(values))
    except TypeError as error:
        raise TypeError(
            f"column {name!r} holds an id that is not hashable ({error}); ids may be strings, "
            "numbers, tuples or any other hashable"
        ) from error
    ids = [_plain(value) for value in numbers]
    missing = np.fromiter(map(_is_missing, ids), bool, len(ids))
    if missing.any():
        _refuse_missing(name, missing[codes])
    return codes, ids


def _read_times(name: str, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Times as numbers that sort: datetimes as int64 nanoseconds, numbers as they are."""
    if values.dtype == object:
        values = _unbox_times(name, values)
    kind = values.dtype.kind
    if kind == "M":
        _refuse_missing(name, np.isnat(values))
        nanoseconds = values.astype("datetime64[ns]")
        if (nanoseconds.astype(values.dtype) != values).any():  # it wraps around silently
            raise ValueError(
                f"column {name!r} holds datetimes from {values.min()} to {values.max()}, outside "
                "the years 1678 to 2261 that nanoseconds can express; correct them or pass numbers"
            )
        return nanoseconds.astype(np.int64)
    if kind == "f":
        _refuse_missing(name, np.isnan(values))
        if np.isinf(values).any():
            raise ValueError(
                f"column {name!r} holds infinite times in {np.isinf(values).sum():,} of "
                f"{len(values):,} rows; drop those rows"
            )
    elif kind not in "iu":
        _refuse_times(name, values, 0)
    return values


def _unbox_times(name: str, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Python numbers or datetimes as an array of numbers or datetime64."""
    _refuse_missing(name, np.fromiter(map(_is_missing, values), bool, len(values)))
    times = [_plain(value) for value in values]
    kind = date if isinstance(times[0], date) else Real
    for row, value in enumerate(times):
        if not isinstance(value, kind) or isinstance(value, bool):
            _refuse_times(name, values, row)
    if kind is Real:
        return np.array(times)
    aware = {getattr(value, "tzinfo", None) is not None for value in times}
    if len(aware) > 1:
        raise ValueError(
            f"column {name!r} mixes datetimes with and without a time zone; give all of its "
            f"{len(values):,} rows one, or none"
        )
    return np.array([_without_zone(value) for value in times], dtype="datetime64[us]")


def _without_zone(value: date) -> date:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC).replace(tzinfo=None)
    return value


def _refuse_times(name: str, values: npt.NDArray[Any], row: int) -> None:
    value = _plain(values[row])
    raise ValueError(
        f"column {name!r} holds {value!r} ({type(value).__name__}) in row {row:,} of "
        f"{len(values):,} rows; times must be numbers or datetimes: convert the column, for "
        "example with pandas.to_datetime, or pass timestamp=None to take the rows in their order"
    )


def _refuse_missing(name: str, missing: npt.NDArray[np.bool_]) -> None:
    if missing.any():
        raise ValueError(
            f"column {name!r} has {missing.sum():,} missing values in {len(missing):,} rows, the "
            f"first in row {missing.argmax():,}; drop those rows or fill them in first"
        )


def _is_missing(value: Any) -> bool:
    """None, NaN, NaT, or the NA of pandas, which refuses to be compared."""
    return value is None or type(value).__name__ == "NAType" or bool(value != value)


def _plain(value: Any) -> Any:
    """The Python value of a numpy scalar; anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value
