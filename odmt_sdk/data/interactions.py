"""User-item interactions in chronological order.

Letters: E interactions, B users, N items.
"""

import warnings
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from itertools import chain, compress
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from odmt_sdk.config import whole_number
from odmt_sdk.data.event_columns import (
    IntArray,
    Time,
    Times,
    as_time,
    encode_ids,
    missing_cells,
    read_times,
)
from odmt_sdk.data.report import Report, Step
from odmt_sdk.tables import (
    Table,
    is_missing,
    is_series,
    is_table,
    plain,
    read_columns,
    warn_of_changed_ids,
)
from odmt_sdk.vocabulary import did_you_mean, id_column, plain_ids

Repeats = Literal["same_time", "in_a_row", "keep_first", "keep_last"]
_REPEATS = {
    "same_time": "one event of a user with an item at a time",
    "in_a_row": "of the same item several times in a row the first",
    "keep_first": "a user's first event with an item",
    "keep_last": "a user's last event with an item",
}


class Interactions:
    """User-item events, sorted by user and then by time.

    Users and items are numbered by first appearance in the input. Events of a user with equal times
    keep their input order. Filters do not modify the object but return a new one; `report` lists
    how many interactions each step dropped. Use `Interactions.from_table` to create interactions
    from a table.

    Args:
        user_ids: ids of the B distinct users.
        item_ids: ids of the N distinct items.
        item_codes: (E,) index into `item_ids` of each event's item, grouped by user and in
            chronological order.
        offsets: (B + 1,) index of each user's first event in `item_codes`; the last entry is E.
        times: (E,) time of each event, numbers or datetime64[ns]; None if only the order is known.
        report: the steps so far; None starts a new report.

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
        times: Times | None = None,
        report: Report | None = None,
    ) -> None:
        self.user_ids: tuple[Hashable, ...] = tuple(plain_ids(user_ids, "the list of user ids"))
        self.item_ids: tuple[Hashable, ...] = tuple(plain_ids(item_ids))
        self.item_codes = item_codes
        self.offsets = offsets
        self.times = times
        self.report = report or Report((self._step("given", 0),))

    @classmethod
    def from_table(
        cls,
        table: Table,
        *,
        user: str = "user_id",
        item: str = "item_id",
        timestamp: str | None = "timestamp",
        missing: Literal["error", "drop"] = "error",
        encoding: str = "utf-8",
        csv_options: Mapping[str, Any] | None = None,
    ) -> "Interactions":
        """Read interactions from a table with one row per event.

        Args:
            table: pandas or Polars DataFrame, PyArrow Table, Hugging Face dataset, mapping of
                columns, list of dicts, or the path of a .csv, .tsv, .parquet or .jsonl file or of
                a folder of Parquet files.
            user: name of the user id column. Ids may be any hashable value.
            item: name of the item id column. Ids may be any hashable value. A float column with
                only whole numbers is read as integers, because missing values turn integer columns
                into floats.
            timestamp: name of the time column, numbers or datetimes; None if the rows are already
                in chronological order.
            missing: what to do with rows that miss a value: "error" raises, "drop" drops them.
            encoding: encoding of the text file `table`, for example "latin-1".
            csv_options: format of the .csv or .tsv file: any of `separator`, `names` (column names
                if there is no header), `strings` (columns not to be parsed as numbers) and
                `quoted`.

        Returns:
            The interactions. Repeated interactions are kept, see `drop_repeats`.

        Raises:
            ValueError: if a column does not exist, a value is missing, a time is neither a number
                nor a datetime, a file cannot be read, or there are no rows.
            TypeError: if an id is not hashable or is not a single value.
        """
        if missing not in ("error", "drop"):
            raise ValueError(f"missing={missing!r} must be 'error' or 'drop'")
        names = [user, item] if timestamp is None else [user, item, timestamp]
        columns = read_columns(table, names, encoding=encoding, csv_options=csv_options)
        warn_of_changed_ids(
            table,
            {name: columns[name] for name in (user, item)},
            encoding=encoding,
            csv_options=csv_options,
            stacklevel=2,
        )
        rows = len(columns[user])
        if missing == "drop":
            whole = ~np.logical_or.reduce([missing_cells(values) for values in columns.values()])
            columns = {name: values[whole] for name, values in columns.items()}
        if not len(columns[user]):
            raise ValueError(
                "the table of interactions has no rows; give at least one"
                if not rows
                else f"each of the {rows:,} rows lacks a value in {', '.join(map(repr, names))}"
            )
        users, user_ids = encode_ids(user, id_column(f"column {user!r}", columns[user]))
        items, item_ids = encode_ids(item, id_column(f"column {item!r}", columns[item]))
        times = None if timestamp is None else read_times(timestamp, columns[timestamp])
        # Both sorts are stable, so rows with equal times keep their order.
        order = np.argsort(users, kind="stable") if times is None else np.lexsort((times, users))
        read = cls(
            user_ids,
            item_ids,
            items[order],
            _offsets(users, len(user_ids)),
            None if times is None else times[order],
        )
        what = "read from the table"
        if missing == "drop":
            what += ", rows without missing values"
        read.report = Report((read._step(what, rows - len(read)),))
        return read

    @classmethod
    def from_sequences(
        cls, sequences: Mapping[Hashable, Iterable[Hashable]] | Iterable[Iterable[Hashable]]
    ) -> "Interactions":
        """Create interactions from one sequence of item ids per user, oldest first.

        Args:
            sequences: user id -> items, as a mapping or as a pandas Series indexed by user; or an
                iterable with the items of each user as lists, arrays, tensors or series. In the
                second case the user ids are 0, 1, .... Empty sequences are dropped.

        Returns:
            The interactions, without times.

        Raises:
            ValueError: if there are no items, an id is missing, or a user is repeated.
            TypeError: if a sequence is a single string or is unordered, an id is not hashable or is
                not a single value, or `sequences` is a table.

        Examples:
            >>> Interactions.from_sequences([["mug", "lamp"], ["lamp"]])
            Interactions(3 events of 2 users with 2 items, 1 to 2 a user)
        """
        if is_table(sequences):
            raise TypeError(
                f"a {type(sequences).__name__} is not a sequence of sequences: read a table of "
                "events with Interactions.from_table, or pass its column of sequences"
            )
        _warn_of_padding(sequences)
        filled: dict[Hashable, list[Hashable]] = {}
        for user, items in _by_user(sequences):
            items = plain(items)
            if isinstance(items, str | bytes) or not isinstance(items, Iterable):
                raise TypeError(
                    f"the sequence of user {user!r} is {items!r} ({type(items).__name__}); give a "
                    "list of item ids, for example items.split()"
                )
            if ids := plain_ids(items, f"the sequence of user {user!r}"):
                filled[user] = ids
        if not filled:
            raise ValueError("the sequences have no items; give at least one")
        flat = list(chain.from_iterable(filled.values()))
        values = np.fromiter(flat, dtype=object, count=len(flat))
        codes, item_ids = encode_ids("item_id", values)
        offsets = np.cumsum([0, *map(len, filled.values())])
        read = cls(filled, item_ids, codes, offsets)
        read.report = Report((read._step("read from sequences", 0),))
        return read

    @property
    def num_users(self) -> int:
        """Number of distinct users, B."""
        return len(self.user_ids)

    @property
    def num_items(self) -> int:
        """Number of distinct items, N."""
        return len(self.item_ids)

    def __len__(self) -> int:
        return len(self.item_codes)

    def __repr__(self) -> str:
        lengths = np.diff(self.offsets)
        return (
            f"Interactions({len(self):,} events of {self.num_users:,} users with "
            f"{self.num_items:,} items, {lengths.min():,} to {lengths.max():,} a user)"
        )

    def drop_repeats(self, keep: Repeats) -> "Interactions":
        """Drop repeated interactions of a user with the same item.

        Args:
            keep: which interactions to keep. "same_time" drops duplicate log entries with the same
                user, item and time. "in_a_row" keeps the first of consecutive interactions with the
                same item. "keep_first" and "keep_last" keep a user's first or last interaction with
                each item.

        Returns:
            The remaining interactions.

        Raises:
            ValueError: if `keep` is unknown, or is "same_time" and the interactions have no times.
        """
        if keep not in get_args(Repeats):
            raise ValueError(f"keep={keep!r} must be one of {get_args(Repeats)}")
        pairs = self._user_codes() * self.num_items + self.item_codes  # (E,)
        if keep == "in_a_row":
            repeated = np.concatenate(([False], pairs[1:] == pairs[:-1]))
        else:
            if keep == "same_time":
                times = self._times("drop_repeats('same_time')")
                order = np.lexsort((times, pairs))
                equal = times[order[1:]] == times[order[:-1]]  # each event with its predecessor
            else:
                order, equal = np.argsort(pairs, kind="stable"), True
            repeated = np.zeros(len(self), dtype=bool)
            equal &= pairs[order[1:]] == pairs[order[:-1]]
            repeated[order[:-1] if keep == "keep_last" else order[1:]] = equal
        what = f"drop_repeats({keep!r}), {_REPEATS[keep]}"
        return self._select(np.flatnonzero(~repeated), what, "")

    def k_core(
        self, k: int = 5, *, min_user: int | None = None, min_item: int | None = None
    ) -> "Interactions":
        """Keep the k-core: the largest subset in which all users and items have k interactions.

        Dropping a rare item can leave a user with too few interactions, and vice versa. Both rules
        are therefore applied repeatedly until nothing changes.

        Args:
            k: minimum number of interactions per user and per item.
            min_user: minimum per user; None = k.
            min_item: minimum per item; None = k. 1 keeps rare items.

        Returns:
            The remaining interactions.

        Raises:
            ValueError: if a minimum is not an integer of at least 1, or no user is left.
        """
        min_user, min_item = (k if least is None else least for least in (min_user, min_item))
        k = _count("k", k)
        min_user, min_item = _count("min_user", min_user), _count("min_item", min_item)
        kept: IntArray = np.arange(len(self))  # remaining events, (<= E,)
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

    def min_length(self, n: int) -> "Interactions":
        """Keep users with at least n interactions.

        Args:
            n: minimum number of interactions per user.

        Returns:
            The remaining interactions.

        Raises:
            ValueError: if `n` is not an integer of at least 1, or no user is left.
        """
        n = _count("n", n)
        lengths = np.diff(self.offsets)
        kept = np.flatnonzero(np.repeat(lengths >= n, lengths))  # (B,) -> (E,)
        return self._select(kept, f"min_length({n}), at least {n} interactions a user", "ask less")

    def last(self, n: int) -> "Interactions":
        """Keep the latest n interactions of each user.

        Args:
            n: maximum number of interactions per user.

        Returns:
            The remaining interactions.

        Raises:
            ValueError: if `n` is not an integer of at least 1.
        """
        n = _count("n", n)
        starts = np.maximum(self.offsets[:-1], self.offsets[1:] - n)  # (B,)
        kept = np.flatnonzero(np.arange(len(self)) >= starts[self._user_codes()])
        return self._select(kept, f"last({n}), the latest {n} of each user", "keep more")

    def before(self, time: Time) -> "Interactions":
        """Keep the interactions before a point in time.

        Args:
            time: a number or a datetime, matching the times. Interactions at exactly this time are
                dropped.

        Returns:
            The remaining interactions.

        Raises:
            ValueError: if the interactions have no times, or no user is left.
            TypeError: if the type of `time` does not match the times.
        """
        times = self._times("before")
        kept = np.flatnonzero(times < as_time("time", time, times))
        first = f"the first interaction is from {times.min()}"
        return self._select(kept, f"before({time!s})", first)

    def keep_items(self, item_ids: Iterable[Hashable]) -> "Interactions":
        """Keep the interactions with the given items, for example items that have features.

        Args:
            item_ids: item ids to keep, or an `ItemVocabulary`. Ids without interactions are
                ignored.

        Returns:
            The remaining interactions.

        Raises:
            ValueError: if no interaction is left.
        """
        ids = plain_ids(item_ids, "the list of items to keep", ordered=False)
        wanted = {(type(item), item) for item in ids}
        known = np.fromiter(
            ((type(item), item) in wanted for item in self.item_ids), bool, self.num_items
        )
        example = f"the interactions have ids such as {self.item_ids[0]!r}"
        if ids:
            mine = {(type(item), item) for item in self.item_ids}
            hint = did_you_mean(ids[0], lambda item: (type(item), item) in mine)
            example += f", the items to keep such as {ids[0]!r}{hint and f' ({hint})'}"
        return self._select(
            np.flatnonzero(known[self.item_codes]),
            f"keep_items with {len(wanted):,} ids",
            f"{example}; ids are compared by value and type",
        )

    def _user_codes(self) -> IntArray:
        return np.repeat(np.arange(self.num_users), np.diff(self.offsets))  # (B,) -> (E,)

    def _times(self, wanted_by: str) -> Times:
        if self.times is None:
            raise ValueError(
                f"{wanted_by} needs the times of the interactions, but only their order is known: "
                "read them with from_table(..., timestamp=...)"
            )
        return self.times

    def _step(self, what: str, dropped: int) -> Step:
        return Step(what, dropped, len(self), self.num_users, self.num_items)

    def _select(self, kept: IntArray, what: str, way_out: str) -> "Interactions":
        """Keep the events at positions `kept` and drop users and items without events."""
        if not len(kept):
            raise ValueError(
                f"{what} leaves no user: all {len(self):,} interactions of {self.num_users:,} "
                f"users with {self.num_items:,} items are dropped; {way_out}"
            )
        users, some_users = _renumber(self._user_codes()[kept], self.num_users)
        items, some_items = _renumber(self.item_codes[kept], self.num_items)
        selected = Interactions(
            compress(self.user_ids, some_users),
            compress(self.item_ids, some_items),
            items,
            _offsets(users, int(some_users.sum())),
            None if self.times is None else self.times[kept],
        )
        selected.report = self.report.then(selected._step(what, len(self) - len(kept)))
        return selected


def _by_user(sequences: Any) -> Iterable[tuple[Hashable, Any]]:
    """Return pairs of user id and sequence."""
    if isinstance(sequences, Mapping):
        users = plain_ids(sequences.keys(), "the list of users")
        for user, count in Counter(users).items():
            if count > 1 or is_missing(user):
                raise ValueError(
                    f"the keys of the mapping name its users, but hold {user!r} {count:,} times; "
                    "give each user one id and one sequence"
                )
        return zip(users, sequences.values(), strict=True)
    if not is_series(sequences):
        return enumerate(sequences)
    users = plain_ids(sequences.index, "the list of users")
    for user, count in Counter(users).items():
        if count > 1 or is_missing(user):
            raise ValueError(
                f"the index of the series names its users, but holds {user!r} {count:,} times; "
                "give each user one row, for example with groupby(user)[item].agg(list), or "
                "series.reset_index(drop=True) to call them 0, 1, ..."
            )
    return zip(users, sequences, strict=True)


def _offsets(users: IntArray, num_users: int) -> IntArray:
    """Return the index (B + 1,) of each user's first event after sorting by user."""
    return np.concatenate(([0], np.cumsum(np.bincount(users, minlength=num_users))))


def _renumber(codes: IntArray, size: int) -> tuple[IntArray, npt.NDArray[np.bool_]]:
    """Renumber codes without gaps; return the new codes and a mask (size,) of the used ones."""
    occurs = np.bincount(codes, minlength=size) > 0
    return (np.cumsum(occurs) - 1)[codes], occurs


def _count(name: str, value: Any) -> int:
    try:
        return whole_number(name, value)
    except (TypeError, ValueError):
        raise ValueError(f"{name}={value!r} must be a whole number of at least 1") from None


def _warn_of_padding(sequences: Any) -> None:
    """Warn if an array of rows of one length is padded with zeros, which would become an item."""
    if getattr(sequences, "ndim", 0) != 2 or is_table(sequences) or not all(sequences.shape):
        return
    values = np.asarray(sequences)
    zeros = values == 0
    if values.dtype.kind not in "iuf" or zeros.sum(1).max() < 2:
        return
    rising, falling = zeros[:, 1:] >= zeros[:, :-1], zeros[:, 1:] <= zeros[:, :-1]
    if rising.all() or falling.all():
        warnings.warn(
            f"the sequences are an array in which the {zeros.any(1).sum():,} rows with 0 "
            f"{'end' if rising.all() else 'begin'} with it: 0 is read as an item. If it is "
            "padding, leave it out: [row[row != 0] for row in sequences]",
            UserWarning,
            stacklevel=3,
        )
