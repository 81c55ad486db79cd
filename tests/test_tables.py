import builtins
import contextlib
import csv
import datetime as dt
import gzip
import sys
from decimal import Decimal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from odmt_sdk.tables import is_missing, read_columns
from odmt_sdk.text_files import TextFormat

pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")
pa = pytest.importorskip("pyarrow")

COLUMNS = {"user": ["ann", "bob", "ann"], "item": [7, 7, 5], "price": [0.5, 1.0, 2.0]}
RECORDS = [{name: values[row] for name, values in COLUMNS.items()} for row in range(3)]


class ArrowStream:
    """A table with only the Arrow interface."""

    def __init__(self, table):
        self._table = table

    def __arrow_c_stream__(self, requested_schema=None):
        return self._table.__arrow_c_stream__(requested_schema)


TABLES = {
    "pandas": lambda: pd.DataFrame(COLUMNS),
    "pandas, arrow types": lambda: pd.DataFrame(COLUMNS).convert_dtypes(dtype_backend="pyarrow"),
    "pandas, nullable types": lambda: pd.DataFrame(COLUMNS).convert_dtypes(),
    "pandas, shuffled index": lambda: pd.DataFrame(COLUMNS, index=[2, 0, 1]),
    "polars": lambda: pl.DataFrame(COLUMNS),
    "polars, lazy": lambda: pl.LazyFrame(COLUMNS),
    "pyarrow": lambda: pa.table(COLUMNS),
    "pyarrow, chunks": lambda: pa.concat_tables([pa.table(COLUMNS)[:1], pa.table(COLUMNS)[1:]]),
    "pyarrow, record batch": lambda: pa.record_batch(COLUMNS),
    "arrow stream": lambda: ArrowStream(pa.table(COLUMNS)),
    "mapping of lists": lambda: COLUMNS,
    "mapping of arrays": lambda: {name: np.array(values) for name, values in COLUMNS.items()},
    "mapping of series": lambda: dict(pd.DataFrame(COLUMNS)),
    "list of dicts": lambda: RECORDS,
}


@pytest.mark.parametrize("kind", TABLES)
def test_every_kind_of_table_gives_the_same_columns(kind):
    read = read_columns(TABLES[kind](), ["user", "item", "price"])
    assert {name: array.tolist() for name, array in read.items()} == COLUMNS
    assert read["item"].dtype == np.int64
    assert read["price"].dtype == np.float64


def test_hugging_face_dataset():
    datasets = pytest.importorskip("datasets")
    dataset = datasets.Dataset.from_dict(COLUMNS)
    shuffled = dataset.select([2, 0, 1])
    assert read_columns(dataset, ["user"])["user"].tolist() == COLUMNS["user"]
    assert read_columns(shuffled, ["item"])["item"].tolist() == [5, 7, 7]
    assert read_columns({"item": dataset["item"]}, ["item"])["item"].tolist() == [7, 7, 5]
    with pytest.raises(ValueError, match=r"'rating' is not in the dataset, which has .*'user'"):
        read_columns(dataset, ["rating"])
    with pytest.raises(ValueError, match=r"'user' is not in the dataset, which has .*'train'"):
        read_columns(datasets.DatasetDict({"train": dataset}), ["user"])
    stream = dataset.to_iterable_dataset()
    with pytest.raises(TypeError, match=r"IterableDataset.*datasets.Dataset.from_list\(list\(s"):
        read_columns(stream, ["user"])
    for read in (datasets.Dataset.from_list(list(stream)), list(stream.take(3))):
        assert read_columns(read, ["user"])["user"].tolist() == COLUMNS["user"]


# --------------------------------------------------------------------------- files


def write(path):
    frame = pd.DataFrame(COLUMNS)
    if ".parquet" in path.name:
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep="\t" if ".tsv" in path.name else ",")
    return path


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.csv.gz", "a.parquet", "a.b.parquet"])
@pytest.mark.parametrize("absent", [[], ["pyarrow"], ["pyarrow", "polars"]])
def test_files_are_read_with_whatever_is_installed(tmp_path, monkeypatch, name, absent):
    path = write(tmp_path / name)
    hide(monkeypatch, absent)
    for source in (path, str(path)):
        read = read_columns(source, ["item", "user"])
        assert {name: array.tolist() for name, array in read.items()} == {
            "item": COLUMNS["item"],
            "user": COLUMNS["user"],
        }


def hide(monkeypatch, libraries, error=ModuleNotFoundError):
    """Make `import library` fail in the package, and nowhere else."""
    real = builtins.__import__

    def guarded(name, scope=None, *args, **kwargs):
        inside = scope is not None and str(scope.get("__name__", "")).startswith("odmt_sdk")
        if inside and name.partition(".")[0] in libraries:
            raise error(name)
        return real(name, scope, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", guarded)


@pytest.mark.parametrize("absent", [[], ["pyarrow"], ["pyarrow", "polars"]])
def test_empty_cells_are_missing_and_quotes_may_hold_newlines(tmp_path, monkeypatch, absent):
    path = tmp_path / "items.csv"
    path.write_text('item,title\n1,"a lamp,\nwarm"\n2,\n3,NA\n4,None such\n')
    hide(monkeypatch, absent)
    read = read_columns(path, ["item", "title"])
    assert read["title"].tolist() == ["a lamp,\nwarm", None, None, "None such"]
    assert read["item"].tolist() == [1, 2, 3, 4]


# Three ways in which text files of well-known data sets differ from CSV with a header.
FORMATS = {
    "no header": ("1\tone\n2\t\n", TextFormat("\t", ["item", "title"])),
    "two characters": ("1::one\n2::\n", TextFormat("::", ["item", "title"])),
    "other columns too": ("1|x|one|9\n2|y||9\n", TextFormat("|", ["item", "a", "title", "b"])),
    "header": ("item;title\n1;one\n2;\n", TextFormat(";")),
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("absent", [[], ["pyarrow"], ["pyarrow", "polars"]])
def test_text_files_of_other_formats(tmp_path, monkeypatch, kind, absent):
    text, text_format = FORMATS[kind]
    path = tmp_path / "u.data"
    path.write_text(text)
    hide(monkeypatch, absent)
    read = read_columns(path, ["title", "item"], text_format=text_format)
    assert {name: array.tolist() for name, array in read.items()} == {
        "title": ["one", None],
        "item": [1, 2],
    }


@pytest.mark.parametrize("absent", [[], ["pyarrow"], ["pyarrow", "polars"]])
def test_text_formats_keep_what_others_would_guess_away(tmp_path, monkeypatch, absent):
    path = tmp_path / "films.dat"
    path.write_bytes('007;"Misérables\n0042;1984\n'.encode("latin-1"))
    hide(monkeypatch, absent)
    text_format = TextFormat(
        ";", ["item", "title"], strings=["item", "title"], quoted=False, encoding="latin-1"
    )
    read = read_columns(path, ["item", "title"], text_format=text_format)
    assert read["item"].tolist() == ["007", "0042"]
    assert read["title"].tolist() == ['"Misérables', "1984"]
    with pytest.raises(ValueError, match="'price' is not in .*'item', 'title'"):
        read_columns(path, ["price"], text_format=text_format)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_json_lines(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"reviews.jsonl{suffix}"
    text = '{"item": 1, "tags": ["é"]}\n{"user": "ann", "item": 2}\n'
    path.write_bytes(gzip.compress(text.encode()) if suffix else text.encode())
    hide(monkeypatch, ["pyarrow", "polars", "pandas"])
    read = read_columns(path, ["item", "tags", "user"])
    assert read["item"].tolist() == [1, 2]
    assert read["tags"].tolist() == [["é"], None]
    assert read["user"].tolist() == [None, "ann"]
    with pytest.raises(ValueError, match=r"'rating' is not in .*'item', 'tags', 'user'"):
        read_columns(path, ["rating"])


@pytest.mark.parametrize("line", ["[1]", '{"item": ', "nothing"])
def test_broken_json_lines(tmp_path, line):
    path = tmp_path / "a.jsonl"
    path.write_text('{"item": 1}\n' + line)
    with pytest.raises(
        ValueError, match="a.jsonl, line 2, is not a JSON object: .*; repair or remove"
    ):
        read_columns(path, ["item"])


def test_columns_whose_names_hold_dots(tmp_path):
    path = tmp_path / "a.parquet"
    pd.DataFrame({"user.id": [3, 4], "other": [1, 2]}).to_parquet(path)
    assert read_columns(path, ["user.id"])["user.id"].tolist() == [3, 4]


def test_folder_of_parquet_files(tmp_path):
    folder = tmp_path / "events.parquet"
    folder.mkdir()
    for part in range(3):
        pd.DataFrame({"item": [2 * part, 2 * part + 1]}).to_parquet(folder / f"{part}.parquet")
    assert read_columns(folder, ["item"])["item"].tolist() == [0, 1, 2, 3, 4, 5]


def test_file_errors(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*gone.csv"):
        read_columns(tmp_path / "gone.csv", ["item"])
    with pytest.raises(ValueError, match=r"a.xlsx does not end in .csv, .tsv, .jsonl or .parquet"):
        read_columns(tmp_path / "a.xlsx", ["item"])
    for name in ("a.csv", "a.parquet"):
        path = write(tmp_path / name)
        with pytest.raises(ValueError, match=r"'rating' is not in .*'user', 'item', 'price'"):
            read_columns(path, ["item", "rating"])
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"no parquet")
    with pytest.raises(ValueError, match=r"broken.parquet cannot be read: .* pass the table"):
        read_columns(broken, ["item"])
    hide(monkeypatch, ["pyarrow", "polars", "pandas"])
    with pytest.raises(ImportError, match=r"pip install odmt-sdk\[tables\]"):
        read_columns(path, ["item"])
    with pytest.raises(ImportError, match=r"ArrowStream needs pyarrow: pip install"):
        read_columns(ArrowStream(pa.table(COLUMNS)), ["item"])


def test_a_library_that_cannot_be_imported_is_not_called_missing(tmp_path, monkeypatch):
    path = write(tmp_path / "a.parquet")
    hide(monkeypatch, ["polars", "pandas"])
    hide(monkeypatch, ["pyarrow"], lambda _: ImportError("pyarrow requires NumPy 2.0 or newer"))
    expected = r"needs pyarrow, which is installed but cannot be imported \(pyarrow requires NumPy"
    with pytest.raises(ImportError, match=rf"a.parquet {expected}"):
        read_columns(path, ["item"])
    with pytest.raises(ImportError, match=rf"ArrowStream {expected}"):
        read_columns(ArrowStream(pa.table(COLUMNS)), ["item"])


def test_importing_brings_no_table_library():
    import subprocess

    code = (
        "import sys, odmt_sdk.tables, odmt_sdk.data\n"
        "from odmt_sdk.tables import read_columns\n"
        "read_columns({'a': [1]}, ['a'])\n"
        "print([m for m in ('pandas', 'polars', 'pyarrow', 'torch') if m in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert printed.stdout.strip() == "[]", printed.stderr


# Defects of a text file and the error message for each. Line 1 is the header.
DAMAGED = {
    "quote never closed": ('u,i\n1,a\n2,"b\n3,c\n4,d\n', r"line 3 \(row 1,.* never closed: '2,"),
    "in the first column": ('u,i\n"1,a\n2,b\n', r"line 2 \(row 0,.* never closed: '\"1,a'"),
    "in the last row": ('u,i\n1,"a\nb"\n2,"c\n', r"line 4 \(row 1,.* never closed: '2,"),
    "closed by a later quote": (
        'u,i\n1,"b\n2,"c"\n3,d\n',
        r"line 2 \(row 0,.* within a later",
    ),
    "closed within a word": ('u,i\n1,"b\n2,c"d\n3,e\n', r"line 2 \(row 0,.* within a later"),
    "row too long": ("u,i\n1,a\n2,b,c\n", r"Row #3: Expected 2 columns, got 3: 2,b,c"),
    "row too short": ("u,i\n1,a\n2\n", r"Row #3: Expected 2 columns, got 1: 2"),
    "NUL": ("u,i\n1,a\n2,b\0c\n", "line 3, holds a NUL character"),
    "two columns of a name": ("u,i,i\n1,2,3\n", "2 columns of the name 'i'; rename one"),
    "nothing in it": ("", "cannot be read: Empty CSV"),
    "semicolons": ("u;i\n1;2\n", r"separator is ';': pass csv_options=\{\"separator\": ';'\}"),
    "tabs": ('"u"\t"i"\n1\t2\n', r"separator is '\\t'"),
    "no header": ("1,2\n3,4\n", r"no header, pass csv_options=\{\"names\""),
}


@pytest.mark.parametrize("kind", DAMAGED)
@pytest.mark.parametrize("name", ["a.csv", "A.CSV", "a.csv.gz", "a.CSV.GZ"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_damaged_text_files_are_refused(tmp_path, kind, name, ends):
    text, message = DAMAGED[kind]
    content = text.replace("\n", ends).encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.lower().endswith("gz") else content)
    with pytest.raises(ValueError, match=message):
        read_columns(path, ["u", "i"])


@pytest.mark.parametrize("absent", [[], ["pyarrow"], ["pyarrow", "polars"]])
@pytest.mark.parametrize("kind", [kind for kind in DAMAGED if "quote" in kind or "NUL" in kind])
def test_no_reader_sees_a_file_that_joins_rows(tmp_path, monkeypatch, absent, kind):
    text, message = DAMAGED[kind]
    path = tmp_path / "a.csv"
    path.write_text(text)
    hide(monkeypatch, absent)
    with pytest.raises(ValueError, match=message):
        read_columns(path, ["u", "i"])


CELLS = st.text(st.sampled_from('a",\n\r\t ;é'), max_size=6).filter(
    lambda text: text.strip() and "\r" not in text.replace("\r\n", "")
)


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=6), st.sampled_from(",\t;"))
def test_whatever_is_quoted_by_rule_is_read(tmp_path_factory, rows, separator):
    path = tmp_path_factory.mktemp("files") / "a.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=separator, lineterminator="\n")
        writer.writerows([("u", "i"), *rows])
    read = read_columns(
        path, ["u", "i"], csv_options={"separator": separator, "strings": ["u", "i"]}
    )
    assert list(zip(read["u"], read["i"], strict=True)) == rows


@given(st.lists(st.text("ab", min_size=1, max_size=3), min_size=2, max_size=6), st.data())
def test_a_quote_too_many_never_loses_a_row(tmp_path_factory, words, data):
    """Every row is read, or the file is rejected."""
    path = tmp_path_factory.mktemp("files") / "a.tsv"
    lines = [f"{row}\t{word}" for row, word in enumerate(words)]
    row = data.draw(st.integers(0, len(words) - 1))
    place = data.draw(st.integers(0, len(lines[row])))
    lines[row] = lines[row][:place] + '"' + lines[row][place:]
    path.write_text("\n".join(["u\ti", *lines, ""]))
    with contextlib.suppress(ValueError):
        assert len(read_columns(path, ["u", "i"])["i"]) == len(words)
        return
    with pytest.raises(ValueError, match=r"line \d+ \(row|Row #\d+: Expected"):
        read_columns(path, ["u", "i"])


@pytest.mark.parametrize("absent", [[], ["pyarrow"], ["pyarrow", "polars"]])
@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".jsonl", ".jsonl.gz"])
@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-8"])
def test_encodings(tmp_path, monkeypatch, absent, suffix, encoding):
    is_csv = suffix.startswith(".csv")
    text = "u,i\n1,mug\n2,café\n" if is_csv else '{"u":1,"i":"mug"}\n{"u":2,"i":"café"}\n'
    content = text.encode(encoding)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    hide(monkeypatch, absent)
    assert read_columns(path, ["i"], encoding=encoding)["i"].tolist() == ["mug", "café"]
    if encoding != "utf-8":
        line = 3 if is_csv else 2
        with pytest.raises(ValueError, match=rf"line {line}, is not in utf-8: .*xe9.*encoding="):
            read_columns(path, ["i"])


def test_encodings_that_the_first_bytes_tell(tmp_path):
    path = tmp_path / "a.csv"
    text = '"u",i\n1,café\n'
    path.write_text(text, encoding="utf-16")
    with pytest.raises(ValueError, match='is in UTF-16: pass encoding="utf-16"'):
        read_columns(path, ["u", "i"])
    assert read_columns(path, ["u", "i"], encoding="utf-16")["i"].tolist() == ["café"]
    for encoding in ("utf-8", "utf-8-sig"):
        path.write_text(text, encoding="utf-8-sig")
        assert read_columns(path, ["u", "i"], encoding=encoding)["u"].tolist() == [1]
    path.write_text("é,u\n1,2\n", encoding="latin-1")
    with pytest.raises(ValueError, match="line 1, is not in utf-8"):
        read_columns(path, ["u"])
    with pytest.raises(ValueError, match="encoding='klingon' is unknown"):
        read_columns(path, ["u"], encoding="klingon")


def test_csv_options(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text('007;"x\n08;y"\n')
    options = {"separator": ";", "names": ["u", "i"], "strings": ["u"], "quoted": False}
    read = read_columns(path, ["u", "i"], csv_options=options)
    assert read["u"].tolist() == ["007", "08"]
    assert read["i"].tolist() == ['"x', 'y"']
    with pytest.raises(ValueError, match="the key 'sep', which is not among separator, names"):
        read_columns(path, ["u"], csv_options={"sep": ";"})
    pq = write(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"csv_options= are for .csv and .tsv files"):
        read_columns(pq, ["user"], csv_options=options)
    with pytest.raises(ValueError, match="for the path of a text file, but the table is a dict"):
        read_columns(COLUMNS, ["user"], encoding="latin-1")


@pytest.mark.parametrize("name", ["A.CSV", "A.TSV", "A.CSV.GZ", "A.Parquet"])
def test_names_in_capitals(tmp_path, name):
    path = tmp_path / name
    write(tmp_path / name.lower()).rename(path)
    assert read_columns(path, ["item"])["item"].tolist() == COLUMNS["item"]


def test_json_lines_skip_blank_lines(tmp_path):
    path = tmp_path / "a.JSONL"
    path.write_text('\ufeff{"item": 1}\n\n  \t\n{"item": 2}\n\n')
    assert read_columns(path, ["item"])["item"].tolist() == [1, 2]
    path.write_text('{"item": 1}\n\n\nnothing\n')
    with pytest.raises(ValueError, match="line 4, is not a JSON object"):
        read_columns(path, ["item"])


@pytest.mark.parametrize("name", ["a.csv.gz", "a.jsonl.gz"])
def test_compressed_files_that_are_cut_off(tmp_path, name):
    path = tmp_path / name
    text = b'{"u": 1}\n' if "json" in name else b"u\n" + b"1\n"
    whole = gzip.compress(text * 999)
    for content in (whole[:-9], b"u\n1\n", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{name} is truncated or not a gzip file"):
            read_columns(path, ["u"])


@pytest.mark.parametrize("name", ["events", "events.2024", "events.csv", "events.parquet"])
@pytest.mark.parametrize("hive", [False, True])
def test_folders_of_parquet_files_of_any_name(tmp_path, name, hive):
    for part in range(3):
        folder = tmp_path / name / (f"day={part}" if hive else "")
        folder.mkdir(parents=True, exist_ok=True)
        pd.DataFrame({"item": [2 * part, 2 * part + 1]}).to_parquet(folder / f"{part}.parquet")
    (tmp_path / name / "_SUCCESS").touch()
    wanted = ["item", "day"] if hive else ["item"]
    read = read_columns(str(tmp_path / name) + "/", wanted)
    assert read["item"].tolist() == [0, 1, 2, 3, 4, 5]
    if hive:
        assert read["day"].tolist() == [0, 0, 1, 1, 2, 2]


def test_folders_that_hold_no_parquet_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no Parquet files"):
        read_columns(tmp_path, ["item"])
    write(tmp_path / "a.csv")
    with pytest.raises(ValueError, match="A folder is read as Parquet files"):
        read_columns(tmp_path, ["item"])
    with pytest.raises(FileNotFoundError, match="there is no file .*gone"):
        read_columns(tmp_path / "gone", ["item"])


# --------------------------------------------------------------------------- values

NOON = dt.datetime(2024, 1, 2, 12, tzinfo=dt.UTC)
UTC_NOON = np.datetime64("2024-01-02T12:00:00")


@pytest.mark.parametrize(
    "column",
    [
        lambda: pd.Series([3, None], dtype="Int64"),
        lambda: pd.Series([3, pd.NA], dtype=object),
        lambda: pd.Series([3, None], dtype="category"),
        lambda: pd.Categorical([3, None]),
        lambda: pd.Series([3, None], dtype="int64[pyarrow]"),
        lambda: pl.Series([3, None]),
        lambda: pa.array([3, None]),
        lambda: pa.array([3, None]).dictionary_encode(),
        lambda: np.ma.array([3, 4], mask=[False, True]),
        lambda: [3, None],
    ],
)
def test_missing_whole_numbers_do_not_become_floats(column):
    array = read_columns({"a": column()}, ["a"])["a"]
    assert array.tolist() == [3, None]
    assert type(array[0]) is int


@pytest.mark.parametrize(
    "column",
    [
        lambda: pd.Series(["x", None]),
        lambda: pd.Series(["x", None], dtype="category"),
        lambda: pd.Series(["x", float("nan")], dtype=object),
        lambda: pl.Series(["x", None]),
        lambda: pl.Series(["x", None], dtype=pl.Categorical),
        lambda: pa.array(["x", None]),
    ],
)
def test_missing_strings_are_none(column):
    assert read_columns({"a": column()}, ["a"])["a"].tolist() == ["x", None]


@pytest.mark.parametrize(
    "column",
    [
        lambda: pd.Series([NOON, None]).dt.tz_convert("Asia/Tokyo"),
        lambda: pd.Series([NOON, None]).astype("timestamp[us, Asia/Tokyo][pyarrow]"),
        lambda: pd.DatetimeIndex([NOON, None]),
        lambda: pd.Series([NOON, None], dtype="category"),
        lambda: pl.Series([NOON, None]).dt.convert_time_zone("Asia/Tokyo"),
        lambda: pa.array([NOON, None], type=pa.timestamp("us", "Asia/Tokyo")),
    ],
)
def test_datetimes_become_utc(column):
    array = read_columns({"a": column()}, ["a"])["a"]
    assert array[0] == UTC_NOON
    assert np.isnat(array[1])


@pytest.mark.parametrize(
    "column",
    [
        lambda: [[1, 2], [3, 4]],
        lambda: pd.Series([[1, 2], [3, 4]]),
        lambda: pl.Series([[1, 2], [3, 4]]),
        lambda: pl.Series([[1, 2], [3, 4]], dtype=pl.Array(pl.Int64, 2)),
        lambda: pa.array([[1, 2], [3, 4]]),
    ],
)
def test_cells_that_are_sequences_stay_whole(column):
    array = read_columns({"a": column()}, ["a"])["a"]
    assert array.shape == (2,)
    assert list(array[1]) == [3, 4]


def test_equal_strings_of_arrow_are_one_object():
    column = pa.chunked_array([["mug", None, "lamp"], ["lamp", "mug"], []], type=pa.string())
    for strings in (column, column.cast(pa.large_string()), column.combine_chunks()):
        array = read_columns({"a": strings}, ["a"])["a"]
        assert array.tolist() == ["mug", None, "lamp", "lamp", "mug"]
        assert len(set(map(id, array))) == 3
    assert read_columns({"a": pa.chunked_array([], type=pa.string())}, ["a"])["a"].tolist() == []


def test_lists_keep_the_types_of_their_values():
    assert read_columns({"a": [1, "1"]}, ["a"])["a"].tolist() == [1, "1"]
    assert read_columns({"a": [2**70, -1]}, ["a"])["a"].tolist() == [2**70, -1]
    assert read_columns({"a": [True, False]}, ["a"])["a"].tolist() == [True, False]


def test_record_without_a_key_has_a_missing_value():
    assert read_columns([{"a": 1}, {"b": 2}], ["a"])["a"].tolist() == [1, None]


# --------------------------------------------------------------------------- errors


@pytest.mark.parametrize("kind", TABLES)
def test_absent_column_names_those_at_hand(kind):
    with pytest.raises(ValueError, match=r"column 'rating' is not in .*'user', 'item', 'price'"):
        read_columns(TABLES[kind](), ["user", "rating"])


def test_columns_of_unequal_length():
    with pytest.raises(ValueError, match="one value per row, but 'a' has 2, 'b' has 3"):
        read_columns({"a": [1, 2], "b": [1, 2, 3]}, ["a", "b"])


def test_two_columns_of_one_name():
    frame = pd.DataFrame([[1, 2]], columns=["a", "a"])
    with pytest.raises(ValueError, match="2 columns of the name 'a'; rename one"):
        read_columns(frame, ["a"])


@pytest.mark.parametrize("column", ["abc", 5, {1, 2}, frozenset(), {0: 1}])
def test_column_that_is_no_sequence(column):
    with pytest.raises(TypeError, match=f"column 'a' is a {type(column).__name__}"):
        read_columns({"a": column}, ["a"])


@pytest.mark.parametrize("table", [5, None, object(), {1, 2}])
def test_not_a_table(table):
    with pytest.raises(TypeError, match=f"cannot read a table of type {type(table).__name__}"):
        read_columns(table, ["a"])


def test_list_that_does_not_hold_dicts():
    with pytest.raises(TypeError, match="one dict per row, but row 1 is a tuple"):
        read_columns([{"a": 1}, ("a", 1)], ["a"])


def test_a_reader_of_record_batches():
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"item": ["a", "b"]})
    assert read_columns(table.to_reader(), ["item"])["item"].tolist() == ["a", "b"]


def test_integers_of_128_bits():
    pl = pytest.importorskip("polars")
    if not hasattr(pl, "Int128"):
        pytest.skip("this release of polars has no such integers")
    values = [2**70, 2**70 + 1]
    series = pl.Series(values, dtype=pl.Int128)
    assert read_columns(pl.DataFrame({"item": series}), ["item"])["item"].tolist() == values


def test_arrays_are_not_missing():
    assert not is_missing(np.array([1.0, np.nan]))
    assert not is_missing(torch.tensor([1, 2]))
    assert is_missing(Decimal("sNaN"))
    assert is_missing(Decimal("NaN"))
