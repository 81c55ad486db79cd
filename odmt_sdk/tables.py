"""Reads columns from any kind of table.

A table is a pandas or Polars DataFrame, a PyArrow Table, a Hugging Face dataset, a mapping of
columns, a list of dicts, or the path of a CSV, TSV, Parquet or JSON lines file. A table library is
imported only if the user passes one of its tables, or a file that needs it.
"""

import io
import os
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from odmt_sdk.errors import missing_library
from odmt_sdk.paths import user_path
from odmt_sdk.text_files import TextFormat, checked_text, is_compressed, iterate_json_lines

Table: TypeAlias = Any
Column: TypeAlias = npt.NDArray[Any]

# Cells of a CSV or TSV file that are read as missing, for all libraries.
_NULLS = ["", "NA", "N/A", "NaN", "nan", "NULL", "null"]


_WHOLE_NUMBER = re.compile(r"(0|-?[1-9][0-9]*)(\.0+)?")
_SEPARATORS = {".csv": ",", ".tsv": "\t"}


def read_columns(
    table: Table,
    columns: Sequence[str],
    *,
    text_format: TextFormat | None = None,
    encoding: str = "utf-8",
    csv_options: Mapping[str, Any] | None = None,
) -> dict[str, Column]:
    """Read columns as NumPy arrays, in row order.

    Strings and other objects are returned in arrays of dtype object. Missing values are None in
    these arrays, NaN in float arrays and NaT in datetime arrays. Datetimes with a time zone are
    converted to UTC. In CSV and TSV files, ids that look like numbers are read as numbers and lose
    leading zeros; `csv_options={"strings": ["item_id"]}` reads them as strings.

    Args:
        table: pandas or Polars DataFrame, PyArrow Table, Hugging Face dataset, mapping of columns,
            list of dicts, or the path of a .csv, .tsv, .jsonl (each also .gz) or .parquet file, or
            of a folder of Parquet files.
        columns: names of the columns to read.
        text_format: format of the text file `table`, regardless of its suffix.
        encoding: encoding of the text file `table`, for example "latin-1".
        csv_options: format of the .csv or .tsv file, any of the arguments of `TextFormat`, for
            example `{"separator": ";"}`.

    Returns:
        Name -> 1-D array, all of the same length.

    Raises:
        ValueError: if a column is missing, duplicated or not one-dimensional, columns differ in
            length, or a file cannot be read, for example because of its encoding or an unclosed
            quote.
        TypeError: if the table is none of the above, or a column is unordered.
        FileNotFoundError: if the path does not exist.
        ImportError: if no library that can read the file is installed.

    Examples:
        >>> read_columns([{"user": "ann", "item": 3}, {"user": "bob", "item": 4}], ["item"])
        {'item': array([3, 4])}
    """
    if isinstance(table, str | os.PathLike):
        path = user_path(table)
        if text_format is None:
            text_format = _text_format(path, encoding, csv_options or {})
        table = _read_file(path, columns, text_format, encoding)
    elif encoding != "utf-8" or csv_options:
        raise ValueError(
            "encoding= and csv_options= are for the path of a text file, but the table is a "
            f"{type(table).__name__}"
        )
    elif isinstance(table, list | tuple):
        table = _from_records(table, columns)
    elif _library(table) == "datasets" and hasattr(table, "num_rows"):  # not a stream
        _check_columns(table.column_names, columns, "the dataset")
        table = table.select_columns(list(columns)).with_format("arrow")[:]
    elif type(table).__name__ == "LazyFrame":
        _check_columns(table.collect_schema().names(), columns, "the table")
        table = table.select(columns).collect()
    elif _library(table) == "pyarrow" and hasattr(table, "read_all"):
        table = table.read_all()
    elif _library(table) not in _COLUMN_READERS and not isinstance(table, Mapping):
        table = _from_arrow_stream(table)
    _check_columns(_column_names(table), columns, "the table")
    arrays = {name: to_column(f"column {name!r}", table[name]) for name in columns}
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name!r} has {length}" for name, length in lengths.items())
        raise ValueError(f"columns must have one value per row, but {shown}")
    return arrays


def warn_of_changed_ids(
    table: Table,
    ids: Mapping[str, Column],
    *,
    encoding: str,
    csv_options: Mapping[str, Any] | None,
    stacklevel: int,
) -> None:
    """Warn if ids of a CSV or TSV file are not what the file holds, such as 7 for "007".

    Args:
        table: the table from which `ids` were read; only a path of a CSV or TSV file is checked.
        ids: name -> the column as it was read.
        encoding: encoding of the file.
        csv_options: format of the file, see `read_columns`.
        stacklevel: where to attribute the warning, counted from the caller of this function.
    """
    if not is_delimited_text(table):
        return
    text_format = _text_format(user_path(table), encoding, csv_options or {})
    assert text_format is not None  # of a CSV or TSV file
    names = [n for n in ids if n not in text_format.strings and not _holds_only_texts(ids[n])]
    if not names:
        return
    as_texts = replace(text_format, strings=[*text_format.strings, *names])
    written = _read_file(user_path(table), names, as_texts, encoding)
    for name in names:
        distinct = to_column(f"column {name!r}", written[name].unique()).tolist()
        first = next((t for t in distinct if isinstance(t, str) and not _is_kept(t)), None)
        if first is None:
            continue
        texts = to_column(f"column {name!r}", written[name]).tolist()
        value = ids[name].tolist()[texts.index(first)]
        fewer = len(distinct) - len(set(ids[name].tolist()))
        warnings.warn(
            f"column {name!r} of {table} holds ids such as {first!r}, which are read as {value!r}"
            + (f", and {fewer:,} of its ids become equal to others" if fewer > 0 else "")
            + f': pass csv_options={{"strings": [{name!r}]}} to keep them as they are written',
            UserWarning,
            stacklevel=stacklevel + 1,
        )


def _holds_only_texts(column: Column) -> bool:
    return column.dtype.kind in "US" or (
        column.dtype == object and set(map(type, column)) <= {str, type(None)}
    )


def _is_kept(text: str) -> bool:
    """Whether a number loses nothing when it is read: 7, 7.0 and 7.5, not 007, 7.50 or 7E3."""
    if _WHOLE_NUMBER.fullmatch(text):
        return True
    try:
        return repr(float(text)) == text
    except ValueError:
        return False


def column_names(
    path: str | os.PathLike[str],
    *,
    encoding: str = "utf-8",
    csv_options: Mapping[str, Any] | None = None,
) -> list[str]:
    """Read the names of the columns of a file.

    Args:
        path: a file that `read_columns` takes.
        encoding: encoding of the text file `path`.
        csv_options: format of the .csv or .tsv file, see `read_columns`.

    Returns:
        The names, in order.

    Raises:
        ValueError: if the file cannot be read.
        FileNotFoundError: if it does not exist.
        ImportError: if no library that can read it is installed.
    """
    path = user_path(path)
    text_format = _text_format(path, encoding, csv_options or {})
    if text_format is None and _suffix(path) == ".jsonl" and path.is_file():
        return list(
            dict.fromkeys(k for record in iterate_json_lines(path, encoding) for k in record)
        )
    if text_format is None and path.exists():
        try:
            import pyarrow as pa
            from pyarrow import parquet
        except ImportError:
            pass
        else:
            try:
                return list(parquet.ParquetDataset(path).schema.names)
            except pa.ArrowInvalid as error:
                raise _unreadable(path, error) from error
    return list(_column_names(_read_file(path, [], text_format, encoding)))


# ------------------------------------------------------------------ kinds of tables


def _library(value: object) -> str:
    """Return the table library that defines the value's class or a base class, else ""."""
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
            + _way_out(absent[0], names)
        )
    if twice := [name for name in columns if names.count(name) > 1]:
        raise ValueError(
            f"{what} has {names.count(twice[0])} columns of the name {twice[0]!r}; rename one"
        )


def _way_out(absent: str, names: Sequence[Any]) -> str:
    """Suggest what to do about a missing column."""
    if len(names) == 1:
        for separator in ";\t,|":
            if absent in [name.strip(' "') for name in str(names[0]).split(separator)]:
                return (
                    f"the file's separator is {separator!r}: pass "
                    f'csv_options={{"separator": {separator!r}}}'
                )
    if any(str(name).replace(".", "", 1).isdigit() for name in names):
        return 'if the file has no header, pass csv_options={"names": [...]}'
    if names and set(names) <= {"train", "validation", "test"}:
        return f"give one split of the data set, for example data[{names[0]!r}]"
    return "give the name that your table uses, or rename the column"


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
    if _library(table) == "datasets":
        raise TypeError(
            f"cannot read a table of type {type(table).__name__}: a streaming data set cannot be "
            "sorted by user. Load it without streaming=True, or read it into memory: "
            "datasets.Dataset.from_list(list(stream)), or list(stream.take(n)) for n rows"
        )
    if not hasattr(table, "__arrow_c_stream__"):
        raise TypeError(
            f"cannot read a table of type {type(table).__name__}; give a pandas or Polars "
            "DataFrame, a PyArrow Table, a Hugging Face dataset, a mapping of columns, a list of "
            "dicts, or the path of a .csv, .tsv, .jsonl or .parquet file"
        )
    try:
        import pyarrow as pa
    except ImportError as error:
        purpose = f"reading a {type(table).__name__} needs pyarrow"
        raise missing_library(purpose, error, "tables") from error
    return pa.table(table)


# ------------------------------------------------------------------ files


def _text_format(path: Path, encoding: str, options: Mapping[str, Any]) -> TextFormat | None:
    """Return the format of a CSV or TSV file; None for other files."""
    separator = _SEPARATORS.get(_suffix(path))
    if separator is None or path.is_dir():
        if options:
            raise ValueError(f"csv_options= are for .csv and .tsv files, which {path} is not")
        return None
    known = [field.name for field in fields(TextFormat)]
    if unknown := sorted(set(options) - set(known)):
        raise ValueError(
            f"csv_options has the key {unknown[0]!r}, which is not among {', '.join(known)}"
        )
    return TextFormat(**{"separator": separator, "encoding": encoding, **options})


def _suffix(path: Path) -> str:
    """Return the suffix in lower case, without .gz: ".csv" for EVENTS.CSV.GZ."""
    return (path.with_suffix("") if is_compressed(path) else path).suffix.lower()


def _read_file(
    path: Path, columns: Sequence[str], text_format: TextFormat | None, encoding: str
) -> Table:
    known = text_format is not None or _suffix(path) in (".parquet", ".jsonl") or path.is_dir()
    if not known and (path.suffix or path.exists()):
        raise ValueError(
            f"{path} does not end in .csv, .tsv, .jsonl or .parquet: read it, pass the table"
        )
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    if text_format is None and _suffix(path) == ".jsonl" and path.is_file():
        return _read_json_lines(path, columns, encoding)
    source: Path | io.BytesIO = path
    if text_format is not None:
        source, text_format = checked_text(path, text_format)
    failed: list[ImportError] = []
    for reader in (_read_with_pyarrow, _read_with_polars, _read_with_pandas):
        try:
            table = reader(source, path, text_format, columns)
        except ImportError as error:
            failed.append(error)
            continue
        _check_columns(_column_names(table), columns, str(path))
        return table
    raise missing_library(f"reading {path} needs pyarrow", failed[0], "tables") from failed[0]


def _read_json_lines(path: Path, columns: Sequence[str], encoding: str) -> dict[str, list[Any]]:
    """Read only the given columns; missing values are None."""
    values: dict[str, list[Any]] = {name: [] for name in columns}
    names: dict[str, None] = {}
    for record in iterate_json_lines(path, encoding):
        names |= dict.fromkeys(record)
        for name in columns:
            values[name].append(record.get(name))
    _check_columns(names, columns, str(path))
    return values


def _read_with_pyarrow(
    source: Path | io.BytesIO, path: Path, text_format: TextFormat | None, columns: Sequence[str]
) -> Table:
    import pyarrow as pa

    try:
        if text_format is None:
            from pyarrow import parquet

            dataset = parquet.ParquetDataset(path)
            if path.is_dir() and not dataset.files:
                raise FileNotFoundError(f"the folder {path} holds no Parquet files")
            _check_columns(dataset.schema.names, columns, str(path))
            return dataset.read(columns=list(columns))
        try:
            return _read_text_with_pyarrow(source, text_format)
        except pa.ArrowInvalid:
            if isinstance(source, io.BytesIO):
                source.seek(0)
            return _read_text_with_pyarrow(source, text_format, use_threads=False)  # names the row
    except pa.ArrowInvalid as error:
        raise _unreadable(path, error) from error


def _read_text_with_pyarrow(
    source: Path | io.BytesIO, text_format: TextFormat, use_threads: bool = True
) -> Table:
    import pyarrow as pa
    from pyarrow import csv

    return csv.read_csv(
        source,
        read_options=csv.ReadOptions(column_names=text_format.names, use_threads=use_threads),
        parse_options=csv.ParseOptions(
            delimiter=text_format.separator,
            quote_char='"' if text_format.quoted else False,
            newlines_in_values=text_format.quoted,
        ),
        convert_options=csv.ConvertOptions(
            null_values=_NULLS,
            strings_can_be_null=True,
            column_types=dict.fromkeys(text_format.strings, pa.string()),
        ),
    )


def _read_with_polars(
    source: Path | io.BytesIO, path: Path, text_format: TextFormat | None, columns: Sequence[str]
) -> Table:
    import polars as pl

    try:
        if text_format is None:
            return pl.read_parquet(path)
        return pl.read_csv(
            source,
            separator=text_format.separator,
            has_header=text_format.names is None,
            new_columns=text_format.names,
            schema_overrides=dict.fromkeys(text_format.strings, pl.String),
            quote_char='"' if text_format.quoted else None,
            null_values=_NULLS,
            infer_schema_length=None,
            try_parse_dates=True,
        )
    except pl.exceptions.PolarsError as error:
        raise _unreadable(path, error) from error


def _read_with_pandas(
    source: Path | io.BytesIO, path: Path, text_format: TextFormat | None, columns: Sequence[str]
) -> Table:
    import csv

    import pandas as pd

    if text_format is None:
        return pd.read_parquet(path)
    try:
        return pd.read_csv(
            source,
            sep=text_format.separator,
            header="infer" if text_format.names is None else None,
            names=text_format.names,
            dtype=dict.fromkeys(text_format.strings, str),
            quoting=csv.QUOTE_MINIMAL if text_format.quoted else csv.QUOTE_NONE,
            keep_default_na=False,
            na_values=_NULLS,
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> ValueError:
    if path.is_dir():
        way_out = "A folder is read as Parquet files; of other files pass one, or their table"
    elif "conversion error" in str(error):
        way_out = (
            'Where the type of a column was guessed wrongly, csv_options={"strings": [...]} reads '
            "it as strings; or read the file with the types you want and pass the table"
        )
    else:
        way_out = "Repair it, or read the file yourself and pass the table"
    return ValueError(f"{path} cannot be read: {error}. {way_out}")


# ------------------------------------------------------------------ columns


def to_column(what: str, column: Any) -> Column:
    """Convert a column of any library to an array.

    Args:
        what: description of the column, for messages.
        column: a series, an array, a tensor, a list or another iterable.

    Returns:
        Its values (E,), see `read_columns`.

    Raises:
        ValueError: if it is not one-dimensional.
        TypeError: if it is not a sequence of values.
    """
    if isinstance(column, str | set | frozenset | Mapping) or not isinstance(column, Iterable):
        raise TypeError(
            f"{what} is a {type(column).__name__}, not a sequence of values"
            + ("; of a DataFrame make df.to_dict('list')" if isinstance(column, Mapping) else "")
        )
    ndim = getattr(column, "ndim", 1)
    if ndim != 1:
        raise ValueError(f"{what}: {ndim} dimensions instead of one; give one value per row")
    if reader := _COLUMN_READERS.get(_library(column)):
        return reader(column)
    if isinstance(column, np.ma.MaskedArray):
        return _as_objects(column.tolist())  # masked cells become None
    if hasattr(column, "detach"):  # a tensor
        column = column.detach().cpu()
    return np.asarray(column) if hasattr(column, "__array__") else _as_objects(column)


def is_delimited_text(table: object) -> bool:
    """Check whether a table is the path of a CSV or TSV file."""
    if not isinstance(table, str | os.PathLike):
        return False
    path = user_path(table)
    return _suffix(path) in _SEPARATORS and not path.is_dir()


def is_table(value: object) -> bool:
    """Check whether a value is a table of a library, and not a column."""
    return hasattr(value, "column_names") or hasattr(value, "columns")


def is_series(value: object) -> bool:
    """Check whether a value is a pandas Series."""
    return _library(value) == "pandas" and hasattr(value, "index") and not is_table(value)


def plain(value: Any) -> Any:
    """Convert a scalar of NumPy, PyArrow or torch to a Python value; return others unchanged."""
    if isinstance(value, np.datetime64 | np.timedelta64):  # `item` turns nanoseconds into integers
        return value.astype(f"{value.dtype.str[1:3]}[us]").item()
    if isinstance(value, np.generic) or getattr(value, "shape", None) == ():
        return value.item() if hasattr(value, "item") else value
    return value.as_py() if hasattr(value, "as_py") else value


def is_missing(value: Any) -> bool:
    """Check for None, NaN, NaT or the NA of pandas, which cannot be compared."""
    if value is None or type(value).__name__ == "NAType":
        return True
    try:
        return bool(value != value)
    except ArithmeticError:  # a signaling NaN of `decimal`
        return True
    except (TypeError, ValueError, RuntimeError):  # an array: it is not one value
        return False


def _as_objects(values: Iterable[Any]) -> Column:
    """Convert integers to an int64 array, floats to float64, and all others to objects."""
    values = list(values)
    kinds = set(map(type, values))
    if kinds == {int}:
        try:
            return np.array(values, dtype=np.int64)
        except OverflowError:
            pass
    if kinds == {float}:
        return np.array(values, dtype=np.float64)
    # `np.array` would unpack cells that are sequences.
    return np.fromiter(values, dtype=object, count=len(values))


def _from_pandas(column: Any) -> Column:
    import pandas as pd

    if isinstance(column, pd.MultiIndex):
        return _as_objects(column)
    series = pd.Series(column)
    if isinstance(series.dtype, pd.ArrowDtype):
        import pyarrow as pa

        return _from_pyarrow(pa.array(series.array))
    if isinstance(series.dtype, pd.CategoricalDtype):
        codes, categories = series.cat.codes.to_numpy(), _from_pandas(series.cat.categories)
        if (codes < 0).any():  # code -1 = missing: the last entry
            if categories.dtype.kind not in "fMm":
                categories = categories.astype(object)
            categories = np.append(categories, np.array([None], dtype=categories.dtype))
        in_order: Column = categories[codes]
        return in_order
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
    wide = str(dtype) in ("Int128", "UInt128")  # NumPy has no such integers
    if wide or dtype.is_nested() or (series.null_count() and not keeps_nulls):
        return _as_objects(series.to_list())
    values: Column = series.to_numpy()
    return values


def _from_pyarrow(column: Any) -> Column:
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    if str(kind) == "extension<arrow.uuid>":
        return _as_objects(column.to_pylist())
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _from_arrow_strings(column)
    keeps_nulls = pa.types.is_floating(kind) or pa.types.is_timestamp(kind)
    if pa.types.is_nested(kind) or (column.null_count and not keeps_nulls):
        return _as_objects(column.to_pylist())
    values: Column = column.to_numpy(zero_copy_only=False)
    return values


def _from_arrow_strings(column: Any) -> Column:
    """Convert strings so that equal ones share one object, which needs a tenth of the memory."""
    import pyarrow as pa

    chunks = column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])
    chunks = chunks.dictionary_encode().unify_dictionaries().chunks
    if not chunks:
        return np.empty(0, dtype=object)
    distinct = np.array([*chunks[0].dictionary.to_pylist(), None], dtype=object)
    codes = [chunk.indices.fill_null(len(distinct) - 1).to_numpy() for chunk in chunks]
    strings: Column = distinct[np.concatenate(codes)]
    return strings


_COLUMN_READERS: dict[str, Callable[[Any], Column]] = {
    "pandas": _from_pandas,
    "polars": _from_polars,
    "pyarrow": _from_pyarrow,
}
