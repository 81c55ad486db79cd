"""Reading columns out of whatever table the user brings.

A table is a pandas or Polars DataFrame, a PyArrow Table, a Hugging Face dataset, a mapping of
columns, a list of dicts, or the path of a CSV, TSV, Parquet or JSON lines file. No table library is
imported unless the user brought one of its tables or names a file that needs it.
"""

import gzip
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Table: TypeAlias = Any
Column: TypeAlias = npt.NDArray[Any]

# What an empty cell of a CSV or TSV file may look like, whichever library reads it.
_NULLS = ["", "NA", "N/A", "NaN", "nan", "NULL", "null"]


@dataclass(frozen=True)
class TextFormat:
    """How a text file holds its cells.

    Args:
        separator: what stands between two cells, one or several characters.
        names: the names of its columns, if the file has no header.
        strings: columns to read as strings though they may look like numbers.
        quoted: whether cells may stand in double quotes.
        encoding: of the text.
    """

    separator: str = ","
    names: Sequence[str] | None = None
    strings: Sequence[str] = ()
    quoted: bool = True
    encoding: str = "utf-8"


_FORMATS = {".csv": TextFormat(), ".tsv": TextFormat("\t")}


def read_columns(
    table: Table, columns: Sequence[str], *, text_format: TextFormat | None = None
) -> dict[str, Column]:
    """Read columns as numpy arrays, in the table's row order.

    Values stay as they are: strings and other objects come in arrays of dtype object, missing
    values are None in those, NaN among floats and NaT among datetimes. Datetimes with a time zone
    become UTC. In CSV and TSV files, ids that look like numbers are read as numbers; read the file
    yourself to keep leading zeros.

    Args:
        table: pandas or Polars DataFrame, PyArrow Table, Hugging Face dataset, mapping of columns,
            list of dicts, or the path of a .csv, .tsv, .jsonl (each also .gz) or .parquet file.
        columns: the names to read.
        text_format: how to read the text file that `table` names, whatever it ends in.

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
        table = _read_file(Path(table), columns, text_format)
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
            "dicts, or the path of a .csv, .tsv, .jsonl or .parquet file"
        )
    try:
        import pyarrow as pa
    except ImportError as error:
        raise ImportError(
            f"reading a {type(table).__name__} needs pyarrow: pip install odmt-sdk[tables]"
        ) from error
    return pa.table(table)


# ------------------------------------------------------------------ files


def _read_file(path: Path, columns: Sequence[str], text_format: TextFormat | None) -> Table:
    suffix = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    text_format = text_format or _FORMATS.get(suffix)
    if text_format is None and suffix not in (".parquet", ".jsonl"):
        raise ValueError(
            f"{path} does not end in .csv, .tsv, .jsonl or .parquet: read it, pass the table"
        )
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    if text_format is None and suffix == ".jsonl":
        return _read_json_lines(path, columns)
    source: Path | io.BytesIO = path
    if text_format and (len(text_format.separator) > 1 or text_format.encoding != "utf-8"):
        text = path.read_bytes().decode(text_format.encoding)
        source = io.BytesIO(text.replace(text_format.separator, "\t").encode())
        text_format = TextFormat("\t", text_format.names, text_format.strings, text_format.quoted)
    for reader in (_read_with_pyarrow, _read_with_polars, _read_with_pandas):
        try:
            table = reader(source, text_format, columns)
        except ImportError:
            continue
        _check_columns(_column_names(table), columns, str(path))
        return table
    raise ImportError(f"reading {path} needs pyarrow: pip install odmt-sdk[tables]")


def iterate_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Read a file of one JSON object a line, such as .jsonl or .jsonl.gz.

    Args:
        path: the file.

    Yields:
        The objects.

    Raises:
        ValueError: if a line is no JSON object.
    """
    with path.open("rb") as raw, gzip.open(raw) if path.suffix == ".gz" else raw as file:
        for number, line in enumerate(file, start=1):
            try:
                record = json.loads(line)
            except ValueError:
                record = None
            if not isinstance(record, dict):
                raise ValueError(
                    f"{path}, line {number}, is no JSON object: {line[:60]!r}; repair or remove it"
                )
            yield record


def _read_json_lines(path: Path, columns: Sequence[str]) -> dict[str, list[Any]]:
    """Only the wanted values are kept; those that are absent are None."""
    values: dict[str, list[Any]] = {name: [] for name in columns}
    names: dict[str, None] = {}
    for record in iterate_json_lines(path):
        names |= dict.fromkeys(record)
        for name in columns:
            values[name].append(record.get(name))
    _check_columns(names, columns, str(path))
    return values


def _read_with_pyarrow(
    source: Path | io.BytesIO, text_format: TextFormat | None, columns: Sequence[str]
) -> Table:
    import pyarrow as pa

    try:
        if text_format is None:
            from pyarrow import parquet

            dataset = parquet.ParquetDataset(source)
            _check_columns(dataset.schema.names, columns, str(source))
            return dataset.read(columns=list(columns))
        from pyarrow import csv

        return csv.read_csv(
            source,
            read_options=csv.ReadOptions(column_names=text_format.names),
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
    except pa.ArrowInvalid as error:
        raise ValueError(
            f"{source} cannot be read: {error}. Where a column's type was guessed wrongly, read "
            "the file with the types you want and pass the table"
        ) from error


def _read_with_polars(
    source: Path | io.BytesIO, text_format: TextFormat | None, columns: Sequence[str]
) -> Table:
    import polars as pl

    if text_format is None:
        return pl.read_parquet(source)
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


def _read_with_pandas(
    source: Path | io.BytesIO, text_format: TextFormat | None, columns: Sequence[str]
) -> Table:
    import csv

    import pandas as pd

    if text_format is None:
        return pd.read_parquet(source)
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
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _from_arrow_strings(column)
    keeps_nulls = pa.types.is_floating(kind) or pa.types.is_timestamp(kind)
    if pa.types.is_nested(kind) or (column.null_count and not keeps_nulls):
        return _as_objects(column.to_pylist())
    values: Column = column.to_numpy(zero_copy_only=False)
    return values


def _from_arrow_strings(column: Any) -> Column:
    """Strings of which equal ones are one Python object, in a tenth of the memory."""
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
