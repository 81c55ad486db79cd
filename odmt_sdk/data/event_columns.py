"""Columns of users, items and times as numbers; E rows."""

from collections import defaultdict
from collections.abc import Hashable
from datetime import UTC, date, datetime
from numbers import Real
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
Times = npt.NDArray[Any]  # numbers, or datetime64[ns]
Time: TypeAlias = float | str | date | np.datetime64


def encode_ids(name: str, values: npt.NDArray[Any]) -> tuple[IntArray, list[Hashable]]:
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


def read_times(name: str, values: npt.NDArray[Any]) -> Times:
    """Times that sort: datetimes as datetime64[ns] in UTC, numbers as they are."""
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
        return nanoseconds
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


def as_time(name: str, value: Time, times: Times) -> Any:
    """A point in time that can be compared with times."""
    if times.dtype.kind == "M":
        if isinstance(value, str | date | np.datetime64):
            if isinstance(value, str):
                value = datetime.fromisoformat(value)
            if isinstance(value, date):
                value = np.datetime64(_without_zone(value))
            return value.astype("datetime64[ns]")
        kind = "a datetime such as '2024-05-01', as the times are datetimes"
    elif isinstance(value, Real) and not isinstance(value, bool):
        return value
    else:
        kind = "a number, as the times are numbers"
    raise TypeError(f"{name}={value!r} ({type(value).__name__}) must be {kind}")


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


def missing_cells(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which cells are missing, (E,)."""
    if values.dtype == object:
        return np.fromiter(map(_is_missing, values), bool, len(values))
    missing: npt.NDArray[np.bool_] = values != values  # NaN and NaT
    return missing


def _is_missing(value: Any) -> bool:
    """None, NaN, NaT, or the NA of pandas, which refuses to be compared."""
    return value is None or type(value).__name__ == "NAType" or bool(value != value)


def _plain(value: Any) -> Any:
    """The Python value of a numpy scalar; anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value
