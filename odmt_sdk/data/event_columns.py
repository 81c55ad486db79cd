"""Converts columns of users, items and times to numbers.

Letters: E rows.
"""

import unicodedata
import warnings
from collections import defaultdict
from collections.abc import Hashable
from datetime import UTC, date, datetime
from decimal import Decimal
from math import isfinite
from numbers import Real
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from odmt_sdk.tables import is_missing, plain
from odmt_sdk.vocabulary import refuse_mixed_types

# What pandas, NumPy and databases make of a missing value when ids are converted to texts.
_MISSING_AS_TEXT = {"", "nan", "NaN", "None", "<NA>", "NaT", "null", "NULL"}

IntArray = npt.NDArray[np.int64]
Times = npt.NDArray[Any]  # numbers, or datetime64[ns]
Time: TypeAlias = float | str | date | np.datetime64


def encode_ids(name: str, values: npt.NDArray[Any]) -> tuple[IntArray, list[Hashable]]:
    """Number the distinct ids by first appearance; return codes (E,) and the distinct ids."""
    if values.dtype.kind in "iu":
        distinct, first, inverse = np.unique(values, return_index=True, return_inverse=True)
        order = np.argsort(first)
        ranks = np.empty_like(order)
        ranks[order] = np.arange(len(order))
        return ranks[inverse], distinct[order].tolist()
    values = values.tolist()
    if len(set(map(type, values))) > 1:
        refuse_mixed_types(values, f"column {name!r} holds")
    numbers: defaultdict[Any, int] = defaultdict()
    numbers.default_factory = numbers.__len__
    codes = np.fromiter(map(numbers.__getitem__, values), np.int64, len(values))
    ids = list(numbers)
    missing = np.fromiter(map(is_missing, ids), bool, len(ids))
    if missing.any():
        _refuse_missing(name, missing[codes])
    _warn_of_doubtful_ids(name, ids, codes)
    return codes, ids


def _warn_of_doubtful_ids(name: str, ids: list[Hashable], codes: IntArray) -> None:
    """Warn of texts that were missing values, and of ids that look alike but are not equal."""
    if doubtful := _MISSING_AS_TEXT.intersection(ids):
        text = min(doubtful, key=ids.index)
        count = int((codes == ids.index(text)).sum())
        _warn(
            f"column {name!r} holds the id {text!r} in {count:,} of {len(codes):,} rows, which "
            "looks like a missing value that became a text: all of these rows count as one. Drop "
            "them, or read the column again without .astype(str) and pass missing='drop'"
        )
    if twins := _look_alikes(ids):
        shown = "; ".join(f"{one!a} and {other!a}" for one, other in twins[:3])
        _warn(
            f"column {name!r} holds {len(twins):,} pairs of ids that differ only in their type, in "
            f"spaces around them or in their Unicode form: {shown}. They are different ids. If "
            "they should be one, convert all of them alike, for example with "
            "unicodedata.normalize('NFC', str(id).strip())"
        )


def _look_alikes(ids: list[Hashable]) -> list[tuple[Hashable, Hashable]]:
    """Find pairs of ids that only their type, surrounding spaces or Unicode form tells apart."""
    texts = [item_id for item_id in ids if type(item_id) is str]
    if not texts:
        return []
    pairs: list[tuple[Hashable, Hashable]] = []
    known = set(texts)
    if len(texts) < len(ids):
        numbers = (item_id for item_id in ids if type(item_id) is int)
        pairs += [(number, text) for number in numbers if (text := str(number)) in known]
    first: dict[str, str] = {}
    for text in [text for text in texts if not text.isascii() or text.strip() != text]:
        form = unicodedata.normalize("NFC", text.strip())
        other = form if form in known else first.setdefault(form, text)
        if other != text:
            pairs.append((other, text))
    return pairs


def read_times(name: str, values: npt.NDArray[Any]) -> Times:
    """Convert times to a sortable array: datetimes to datetime64[ns] in UTC; keep numbers."""
    if values.dtype == object:
        values = _unbox_times(name, values)
    kind = values.dtype.kind
    if kind == "M":
        _refuse_missing(name, np.isnat(values))
        nanoseconds = values.astype("datetime64[ns]")
        if (nanoseconds.astype(values.dtype) != values).any():  # astype wraps around silently
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
    if len(values):
        _warn_of_doubtful_times(name, values)
    return values


def _warn_of_doubtful_times(name: str, values: Times) -> None:
    """Warn if the dtype is too small for times, or if units such as seconds and ms are mixed."""
    size = values.dtype.itemsize
    if values.dtype.kind == "f" and size < 8:
        step = float(np.spacing(np.abs(values).max()))
        if step > 1:
            _warn(
                f"column {name!r} holds times as {values.dtype}, which has a resolution of "
                f"{step:.0f} for numbers as large as {np.abs(values).max():.0f}: events that are "
                "closer in time keep the order of their rows. Read the times as int64 or "
                "float64"
            )
    if values.dtype.kind == "i" and size < 8 and values.min() < -np.iinfo(values.dtype).max // 20:
        _warn(
            f"column {name!r} holds times as {values.dtype}, down to {values.min()}: they seem to "
            f"have passed {np.iinfo(values.dtype).max} and wrapped around. Read the times as int64"
        )
    # The years 1980 to 2096 in seconds, milliseconds, microseconds and nanoseconds.
    if float(values.min()) < 3.2e8 or float(values.max()) < 3.2e11:
        return
    values = values.astype(np.float64)
    counts, inside = {}, np.zeros(len(values), dtype=bool)
    for power, unit in enumerate(("seconds", "milliseconds", "microseconds", "nanoseconds")):
        of_unit = (values >= 3.2e8 * 1000**power) & (values < 4e9 * 1000**power)
        inside |= of_unit
        if of_unit.any():
            counts[unit] = of_unit
    if len(counts) > 1 and inside.all():
        shown = " and ".join(
            f"{rows.sum():,} times in {unit}, such as {values[rows.argmax()]:.0f} in row "
            f"{rows.argmax():,}"
            for unit, rows in counts.items()
        )
        _warn(f"column {name!r} seems to mix units: {shown}; convert all of them to one unit")


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=5)  # the caller of Interactions.from_table


def as_time(name: str, value: Time, times: Times) -> Any:
    """Convert a point in time so that it can be compared with `times`."""
    if is_missing(value):
        raise ValueError(f"{name}={value!r} is missing; give a point in time")
    if times.dtype.kind == "M":
        if isinstance(value, str):
            try:
                value = datetime.fromisoformat(value)
            except ValueError as error:
                raise ValueError(
                    f"{name}={value!r} is not a date ({error}); write it as '2024-05-01' or "
                    "'2024-05-01 12:30'"
                ) from None
        if isinstance(value, date | np.datetime64):
            return _in_nanoseconds(_as_datetime64(value))
        kind = "a datetime such as '2024-05-01', as the times are datetimes"
    elif isinstance(value, Real) and not isinstance(value, bool):
        return value
    else:
        kind = "a number, as the times are numbers"
    raise TypeError(f"{name}={value!r} ({type(value).__name__}) must be {kind}")


def _in_nanoseconds(time: Any) -> Any:
    """Convert to nanoseconds; a time beyond their range becomes the first or last one in it."""
    converted = time.astype("datetime64[ns]")
    if converted.astype(time.dtype) == time:
        return converted
    if np.datetime_data(time.dtype)[0] in ("ps", "fs", "as"):  # finer than nanoseconds
        return converted
    # `astype` wraps around silently
    last = np.iinfo(np.int64).max
    return np.datetime64(last if time > np.datetime64(0, "s") else -last, "ns")


def _as_datetime64(value: Any) -> Any:
    """Convert a date or a datetime; nanoseconds of a pandas Timestamp are kept."""
    if isinstance(value, np.datetime64):
        return value
    value = _without_zone(value)
    if hasattr(value, "to_datetime64"):
        return value.to_datetime64()
    return np.datetime64(value, "us")


def _unbox_times(name: str, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Convert an object array of numbers or datetimes to a numeric or datetime64 array."""
    _refuse_missing(name, np.fromiter(map(is_missing, values), bool, len(values)))
    times = [plain(value) for value in values]
    kind = date if isinstance(times[0], date) else Real | Decimal
    for row, value in enumerate(times):
        if not isinstance(value, kind) or isinstance(value, bool):
            _refuse_times(name, values, row)
    if kind is not date:
        dtypes = {str(getattr(value, "dtype", "")).removeprefix("torch.") for value in values}
        narrow = dtypes.pop() if len(dtypes) == 1 else ""
        if narrow in ("float16", "float32"):
            return np.array(times, dtype=narrow)
        return _exact_numbers(name, times)
    aware = {getattr(value, "tzinfo", None) is not None for value in times}
    if len(aware) > 1:
        raise ValueError(
            f"column {name!r} mixes datetimes with and without a time zone; give all of its "
            f"{len(values):,} rows one, or none"
        )
    found = [
        _as_datetime64(given if isinstance(given, np.datetime64) else value)
        for given, value in zip(values, times, strict=True)
    ]
    finest = {np.datetime_data(time.dtype)[0] for time in found} - {"D", "h", "m", "s", "ms", "us"}
    micros = np.array(found, dtype="datetime64[us]")
    if not finest:
        return micros
    nanos = np.array(found, dtype="datetime64[ns]")
    return nanos if (nanos.astype(micros.dtype) == micros).all() else micros  # `astype` wraps


def _exact_numbers(name: str, times: list[Any]) -> npt.NDArray[Any]:
    """Convert numbers of any types to an array that holds each of them exactly."""
    if not set(map(type, times)) <= {int, float}:  # decimals, fractions
        times = [int(t) if isfinite(t) and t == t // 1 else float(t) for t in times]
    if set(map(type, times)) == {int, float}:
        big = next((time for time in times if type(time) is int and float(time) != time), None)
        if big is not None and all(isinstance(t, int) or t.is_integer() for t in times):
            times = [int(time) for time in times]
        elif big is not None:
            raise ValueError(
                f"column {name!r} mixes whole numbers such as {big}, which floats cannot hold "
                "exactly, and fractions; convert all of them to one type"
            )
    found = np.array(times)
    if found.dtype.kind == "f" and type(times[0]) is int and set(map(type, times)) == {int}:
        raise ValueError(
            f"column {name!r} holds whole numbers from {min(times)} to {max(times)}, which do not "
            "fit into 64 bits; correct them, or use a larger unit such as seconds"
        )
    return found


def _without_zone(value: date) -> date:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC).replace(tzinfo=None)
    return value


def _refuse_times(name: str, values: npt.NDArray[Any], row: int) -> None:
    value = plain(values[row])
    is_number = isinstance(value, str) and value.strip().lstrip("-").replace(".", "", 1).isdigit()
    convert = "to_numeric" if is_number else "to_datetime"
    raise ValueError(
        f"column {name!r} holds {value!r} ({type(value).__name__}) in row {row:,} of "
        f"{len(values):,} rows; times must be numbers or datetimes: convert the column, for "
        f"example table[{name!r}] = pandas.{convert}(table[{name!r}]), or pass timestamp=None to "
        "keep the rows in their order"
    )


def _refuse_missing(name: str, missing: npt.NDArray[np.bool_]) -> None:
    if missing.any():
        raise ValueError(
            f"column {name!r} has {missing.sum():,} missing values in {len(missing):,} rows, the "
            f"first in row {missing.argmax():,}; drop those rows or fill them in first"
        )


def missing_cells(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return a mask (E,) of the missing cells."""
    if values.dtype == object:
        return np.fromiter(map(is_missing, values), bool, len(values))
    missing: npt.NDArray[np.bool_] = values != values  # NaN and NaT
    return missing
