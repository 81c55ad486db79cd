"""Reading columns out of whatever table the user brings.

A table is a pandas or Polars DataFrame, a PyArrow Table, a Hugging Face dataset, a mapping of
columns, a list of dicts, or the path of a CSV, TSV or Parquet file. No table library is imported
unless the user brought one of its tables or names a file.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Table: TypeAlias = Any
Column: TypeAlias = npt.NDArray[Any]

# What an empty cell of a CSV or TSV file may look like, whichever library reads it.
_NULLS = ["", "NA", "N/A", "NaN", "nan", "NULL", "null"]
_SEPARATORS = {".csv": ",", ".tsv": "\t"}


def read_columns(table: Table, columns: Sequence[str]) -> dict[str, Column]:
    """Read columns as numpy arrays, in the table's row order.

    Values stay as they are: strings and other objects come in arrays of dtype object, missing
    values are None in those, NaN among floats and NaT among datetimes. Datetimes with a time zone
    become UTC. In CSV and TSV files, ids that look like numbers are read as numbers; read the file
    yourself to keep leading zeros.

    Args:
        table: pandas or Polars DataFrame, PyArrow Table, Hugging Face dataset, mapping of columns,
            list of dicts, or the path of a .csv, .tsv (also .gz) or .parquet file.
        columns: the names to read.

    Returns:
        One 1-D array per name, all of the same length.

    Raises:
        ValueError: if a column is absent or not one-dimensional, columns differ in length, or a
            file cannot be parsed.
        TypeError: if the table is none of the above.
        FileNotFoundError: if the path does not exist.
        ImportError: if a file is given and no library that reads it is installed.

    Examples:
        >>> read_columns([{"user": "ann", "item": 3}, {"user": "bob", "item": 4}], ["item"])
        {'item': array([3, 4])}
    """
    if isinstance(table, str | os.PathLike):
        table = _read_file(Path(table), columns)
    elif isinstance(table, list | tuple):
        table = _from_records(table, columns)
    elif _library(table) == "datasets" and hasattr(table, "num_rows"):  # not a stream
        _check_columns(table.column_names, columns, "the dataset")
        table = table.select_columns(list(columns)).with_format("arrow")[:]
    elif type(table).__name__ == "LazyFrame":
        _check_columns(table.collect_schema().names(), columns, "the table")
        table = table.select(columns).collect()
    elif _library(table) not in _COLUMN_READERS and not isinstance(table, Mapping):
        table = _from_arrow_stream(table)
    _check_columns(_column_names(table), columns, "the table")
    arrays = {name: _to_array(name, table[name]) for name in columns}
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name!r} has {length}" for name, length in lengths.items())
        raise ValueError(f"columns must have one value per row, but {shown}")
    return arrays


# ------------------------------------------------------------------ kinds of tables


def _library(value: object) -> str:
    """The name of the table library that defines the value's class or a base of it, else ""."""
    for cls in type(value).__mro__:
        library = cls.__module__.partition(".")[0]
        if library in _COLUMN_READERS or library == "datasets":
            return library
    return ""


def _column_names(table: Table) -> list[Any]:
    for attribute in ("column_names", "columns"):
        if hasattr(table, attribute):
            return list(getattr(table, attribute))
    return list(table)


def _check_columns(names: Iterable[Any], columns: Sequence[str], what: str) -> None:
    names = list(names)
    absent = [name for name in columns if name not in names]
    if absent:
        shown = ", ".join(map(repr, names[:20])) + (", ..." if len(names) > 20 else "")
        raise ValueError(
            f"column {absent[0]!r} is not in {what}, which has the columns {shown or '(none)'}; "
            "give the name that your table uses, or rename the column"
        )


def _from_records(records: Sequence[Any], columns: Sequence[str]) -> dict[str, list[Any]]:
    for row, record in enumerate(records):
        if not isinstance(record, Mapping):
            raise TypeError(
                f"a list must hold one dict per row, but row {row} is a {type(record).__name__}"
            )
    if records:
        _check_columns({name: 0 for record in records for name in record}, columns, "the dicts")
    return {name: [record.get(name) for record in records] for name in columns}


def _from_arrow_stream(table: Table) -> Table:
    if not hasattr(table, "__arrow_c_stream__"):
        raise TypeError(
            f"cannot read a table of type {type(table).__name__}; give a pandas or Polars "
            "DataFrame, a PyArrow Table, a Hugging Face dataset, a mapping of columns, a list of "
            "dicts, or the path of a .csv, .tsv or .parquet file"
        )
    try:
        import pyarrow as pa
    except ImportError as error:
        raise ImportError(
            f"reading a {type(table).__name__} needs pyarrow: pip install odmt-sdk[tables]"
        ) from error
    return pa.table(table)


# ------------------------------------------------------------------ files


def _read_file(path: Path, columns: Sequence[str]) -> Table:
    suffix = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if suffix != ".parquet" and suffix not in _SEPARATORS:
        raise ValueError(f"{path} does not end in .csv, .tsv or .parquet: read it, pass the table")
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    for reader in (_read_with_pyarrow, _read_with_polars, _read_with_pandas):
        try:
            return reader(path, _SEPARATORS.get(suffix), columns)
        except ImportError:
            continue
    raise ImportError(f"reading {path} needs pyarrow: pip install odmt-sdk[tables]")


def _read_with_pyarrow(path: Path, separator: str | None, columns: Sequence[str]) -> Table:
    import pyarrow as pa

    try:
        if separator is None:
            from pyarrow import parquet

            dataset = parquet.ParquetDataset(path)
            _check_columns(dataset.schema.names, columns, str(path))
            return dataset.read(columns=list(columns))
        from pyarrow import csv

        return csv.read_csv(
            path,
            parse_options=csv.ParseOptions(delimiter=separator, newlines_in_values=True),
            convert_options=csv.ConvertOptions(null_values=_NULLS, strings_can_be_null=True),
        )
    except pa.ArrowInvalid as error:
        raise ValueError(
            f"{path} cannot be read: {error}. Where a column's type was guessed wrongly, read the "
            "file with the types you want and pass the table"
        ) from error


def _read_with_polars(path: Path, separator: str | None, columns: Sequence[str]) -> Table:
    import polars as pl

    if separator is None:
        return pl.read_parquet(path)
    return pl.read_csv(
        path,
        separator=separator,
        null_values=_NULLS,
        infer_schema_length=None,
        try_parse_dates=True,
    )


def _read_with_pandas(path: Path, separator: str | None, columns: Sequence[str]) -> Table:
    import pandas as pd

    if separator is None:
        return pd.read_parquet(path)
    return pd.read_csv(path, sep=separator, keep_default_na=False, na_values=_NULLS)


# ------------------------------------------------------------------ columns


def _to_array(name: str, column: Any) -> Column:
    if isinstance(column, str) or not isinstance(column, Iterable):
        raise TypeError(f"column {name!r} is a {type(column).__name__}, not a sequence of values")
    ndim = getattr(column, "ndim", 1)
    if ndim != 1:
        raise ValueError(
            f"column {name!r} has {ndim} dimensions instead of one; "
            "does the table hold two columns of that name?"
        )
    if reader := _COLUMN_READERS.get(_library(column)):
        return reader(column)
    if isinstance(column, np.ma.MaskedArray):
        return _as_objects(column.tolist())  # masked cells become None
    return np.asarray(column) if hasattr(column, "__array__") else _as_objects(column)


def _as_objects(values: Iterable[Any]) -> Column:
    """Whole numbers as int64, floats as float64, everything else as the objects themselves."""
    values = list(values)
    kinds = set(map(type, values))
    if kinds == {int}:
        try:
            return np.array(values, dtype=np.int64)
        except OverflowError:
            pass
    if kinds == {float}:
        return np.array(values, dtype=np.float64)
    # Assigning or converting a list would unpack cells that are sequences themselves.
    return np.fromiter(values, dtype=object, count=len(values))


def _from_pandas(column: Any) -> Column:
    import pandas as pd

    series = pd.Series(column)
    if isinstance(series.dtype, pd.ArrowDtype):
        import pyarrow as pa

        return _from_pyarrow(pa.array(series.array))
    if getattr(series.dtype, "tz", None) is not None:
        series = series.dt.tz_convert(None)
    missing = series.isna().to_numpy()
    if series.dtype.kind in "Oiub" and missing.any():
        values: Column = series.to_numpy(dtype=object, copy=True)
        values[missing] = None
        return values
    values = series.to_numpy()
    return values


def _from_polars(series: Any) -> Column:
    dtype = series.dtype
    keeps_nulls = dtype.is_float() or dtype.is_temporal()
    if dtype.is_nested() or (series.null_count() and not keeps_nulls):
        return _as_objects(series.to_list())
    values: Column = series.to_numpy()
    return values


def _from_pyarrow(column: Any) -> Column:
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    keeps_nulls = pa.types.is_floating(kind) or pa.types.is_timestamp(kind)
    if pa.types.is_nested(kind) or (column.null_count and not keeps_nulls):
        return _as_objects(column.to_pylist())
    values: Column = column.to_numpy(zero_copy_only=False)
    return values


_COLUMN_READERS: dict[str, Callable[[Any], Column]] = {
    "pandas": _from_pandas,
    "polars": _from_polars,
    "pyarrow": _from_pyarrow,
}
