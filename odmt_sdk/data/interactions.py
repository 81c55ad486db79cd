"""Who interacted with what, in order of time.

E interactions, B users, N items.
"""

from collections.abc import Hashable, Iterable, Mapping
from itertools import chain, compress
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

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
from odmt_sdk.tables import Table, read_columns

Repeats = Literal["same_time", "in_a_row", "keep_first", "keep_last"]
_REPEATS = {
    "same_time": "one event of a user with an item at a time",
    "in_a_row": "of the same item several times in a row the first",
    "keep_first": "a user's first event with an item",
    "keep_last": "a user's last event with an item",
}


class Interactions:
    """User-item events, sorted by user and then by time.

    Users and items are numbered in the order in which they first appear in the input; events of a
    user at the same time keep their order in the input. Filters return new objects and leave this
    one as it is; `report` says what each of them dropped. Most people make one with
    `Interactions.from_table`.

    Args:
        user_ids: the B distinct users' ids.
        item_ids: the N distinct items' ids.
        item_codes: (E,) position in `item_ids` of each event's item, all events of the first user,
            then all of the second, each in order of time.
        offsets: (B + 1,) where each user's events start in `item_codes`; the last entry is E.
        times: (E,) when each event was, numbers or datetime64[ns]; None if only the order is known.
        report: the steps that led here; None starts a new one.

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
        self.user_ids: tuple[Hashable, ...] = tuple(user_ids)
        self.item_ids: tuple[Hashable, ...] = tuple(item_ids)
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
    ) -> "Interactions":
        """Read interactions from a table, one row per event.

        Args:
            table: pandas or Polars DataFrame, PyArrow Table, Hugging Face dataset, mapping of
                columns, list of dicts, or the path of a .csv, .tsv, .parquet or .jsonl file.
            user: the column of user ids, which may be any hashable.
            item: the column of item ids, which may be any hashable.
            timestamp: the column of times, numbers or datetimes; None if the rows are in order of
                time already.
            missing: "drop" leaves out rows in which a value is missing, "error" raises.

        Returns:
            All E rows as interactions; the same item twice counts twice, see `drop_repeats`.

        Raises:
            ValueError: if a column is absent, a value is missing, a time is neither number nor
                datetime, or there is no row.
            TypeError: if an id is not hashable.
        """
        if missing not in ("error", "drop"):
            raise ValueError(f"missing={missing!r} must be 'error' or 'drop'")
        names = [user, item] if timestamp is None else [user, item, timestamp]
        columns = read_columns(table, names)
        rows = len(columns[user])
        if missing == "drop":
            whole = ~np.logical_or.reduce([missing_cells(values) for values in columns.values()])
            columns = {name: values[whole] for name, values in columns.items()}
        if not len(columns[user]):
            raise ValueError(
                "the table of interactions has no rows; give at least one"
                if not rows
                else f"each of the {rows:,} rows misses a value of {', '.join(map(repr, names))}"
            )
        users, user_ids = encode_ids(user, columns[user])
        items, item_ids = encode_ids(item, columns[item])
        times = None if timestamp is None else read_times(timestamp, columns[timestamp])
        # Both sorts are stable: where times are equal, the order of the rows counts.
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
        """Take sequences of item ids, oldest first, one per user.

        Args:
            sequences: user id -> items; or the items of each user, who are then called 0, 1, ...;
                empty sequences are left out.

        Returns:
            All of them as interactions, without times.

        Raises:
            ValueError: if there is no item, or an id is missing.
            TypeError: if a sequence is a single string, or an id is not hashable.

        Examples:
            >>> Interactions.from_sequences([["mug", "lamp"], ["lamp"]])
            Interactions(3 events of 2 users with 2 items, 1 to 2 a user)
        """
        named = sequences if isinstance(sequences, Mapping) else dict(enumerate(sequences))
        for user, items in named.items():
            if isinstance(items, str | bytes) or not isinstance(items, Iterable):
                raise TypeError(
                    f"the sequence of user {user!r} is {items!r} ({type(items).__name__}); give a "
                    "list of item ids, for example items.split()"
                )
        filled = {user: list(items) for user, items in named.items()}
        filled = {user: items for user, items in filled.items() if items}
        if not filled:
            raise ValueError("the sequences hold no item; give at least one")
        flat = list(chain.from_iterable(filled.values()))
        values = np.fromiter(flat, dtype=object, count=len(flat))
        codes, item_ids = encode_ids("item_id", values)
        offsets = np.cumsum([0, *map(len, filled.values())])
        read = cls(filled, item_ids, codes, offsets)
        read.report = Report((read._step("read from sequences", 0),))
        return read

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

    def drop_repeats(self, keep: Repeats) -> "Interactions":
        """Keep one of several interactions of a user with the same item.

        Args:
            keep: which are repeats, and which one of them stays: "same_time", events logged twice,
                equal in user, item and time; "in_a_row", an item straight after itself, of which
                the first stays; "keep_first" and "keep_last", a user's first or last interaction
                with an item, whatever lies between.

        Returns:
            The remaining interactions.

        Raises:
            ValueError: if `keep` is none of these, or "same_time" finds no times.
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
                equal = times[order[1:]] == times[order[:-1]]  # each with the one before it
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
        kept: IntArray = np.arange(len(self))  # the surviving events, (<= E,)
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
        """Keep users with enough interactions.

        Args:
            n: the least number of interactions of a user.

        Returns:
            The remaining interactions.

        Raises:
            ValueError: if `n` is not a whole number of at least 1, or no user is left.
        """
        _check_count("n", n)
        lengths = np.diff(self.offsets)
        kept = np.flatnonzero(np.repeat(lengths >= n, lengths))  # (B,) -> (E,)
        return self._select(kept, f"min_length({n}), at least {n} interactions a user", "ask less")

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
        return self._select(kept, f"last({n}), the latest {n} of each user", "keep more")

    def before(self, time: Time) -> "Interactions":
        """Keep the interactions before a time.

        Args:
            time: a number or a datetime, as the times are; what happened at this time is dropped.

        Returns:
            The remaining interactions.

        Raises:
            ValueError: if the interactions have no times, or no user is left.
            TypeError: if `time` is of another kind than the times.
        """
        times = self._times("before")
        kept = np.flatnonzero(times < as_time("time", time, times))
        first = f"the first interaction is from {times.min()}"
        return self._select(kept, f"before({time!s})", first)

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

    def _times(self, wanted_by: str) -> Times:
        if self.times is None:
            raise ValueError(
                f"{wanted_by} needs the times of the interactions, which hold only their order: "
                "read them with from_table(..., timestamp=...)"
            )
        return self.times

    def _step(self, what: str, dropped: int) -> Step:
        return Step(what, dropped, len(self), self.num_users, self.num_items)

    def _select(self, kept: IntArray, what: str, way_out: str) -> "Interactions":
        """The events at the positions `kept`, users and items without any left out."""
        if not len(kept):
            raise ValueError(
                f"{what} leaves no user: all {len(self):,} interactions of {self.num_users:,} "
                f"users with {self.num_items:,} items fall away; {way_out}"
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
