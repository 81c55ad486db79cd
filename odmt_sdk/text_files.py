"""Formats and checks of text files with one row per line.

PyArrow, Polars and pandas may silently read fewer rows or wrong characters if a file is damaged or
has another encoding. The checks here raise an error first.
"""

import codecs
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

_BLOCK = 1 << 20  # bytes
_UNIT_SEPARATOR = "\x1f"  # the ASCII character for separating cells


@dataclass(frozen=True)
class TextFormat:
    """The format of a delimited text file.

    Args:
        separator: separator of cells, one or more characters.
        names: names of the columns, if the file has no header.
        strings: columns to read as strings, even if they look like numbers.
        quoted: whether cells may be enclosed in double quotes.
        encoding: encoding of the text, such as "utf-8", "latin-1" or "utf-16".
    """

    separator: str = ","
    names: Sequence[str] | None = None
    strings: Sequence[str] = ()
    quoted: bool = True
    encoding: str = "utf-8"


def is_compressed(path: Path) -> bool:
    """Check by its name whether a file is compressed."""
    return path.suffix.lower() == ".gz"


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        with path.open("rb") as raw:
            # a `GzipFile` is no `IO` to the type checker
            yield cast(IO[bytes], gzip.GzipFile(fileobj=raw) if is_compressed(path) else raw)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(
            f"{path} is truncated or not a gzip file: {error}; copy it again"
        ) from error


@contextmanager
def decoded(path: Path) -> Iterator[IO[str]]:
    """Open a text file in UTF-8, with or without a byte order mark.

    Args:
        path: the file.

    Yields:
        The file.

    Raises:
        ValueError: if what is read is not in UTF-8.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield file
    except UnicodeDecodeError as error:
        bad = error.object[max(0, error.start - 20) : error.end + 10]
        raise ValueError(
            f"{path} is not in UTF-8: {bad!r}; convert it, for example with "
            "iconv -f latin1 -t utf-8"
        ) from error


def read_header(path: Path, separator: str, encoding: str = "utf-8") -> list[str]:
    """Read the header of a file.

    Args:
        path: the file, which may be compressed (.gz).
        separator: separator of cells.
        encoding: encoding of the text.

    Returns:
        The cells of the first line.

    Raises:
        ValueError: if the line is not in that encoding.
    """
    with _opened(path) as file:
        line = file.readline()
    try:
        return line.decode(encoding).strip("\ufeff\r\n").split(separator)
    except UnicodeDecodeError as error:
        raise _wrong_encoding(path, 1, encoding, error) from error


def iterate_json_lines(path: Path, encoding: str = "utf-8") -> Iterator[dict[str, Any]]:
    """Read a file with one JSON object per line (.jsonl or .jsonl.gz); blank lines are skipped.

    Args:
        path: the file.
        encoding: encoding of the text.

    Yields:
        The objects.

    Raises:
        ValueError: if a line is not a JSON object, or is not in that encoding.
    """
    with _opened(path) as file:
        for number, line in enumerate(file, start=1):
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            if not line.strip():
                continue
            try:
                record = json.loads(line.decode(encoding))
            except UnicodeDecodeError as error:
                raise _wrong_encoding(path, number, encoding, error) from error
            except ValueError:
                record = None
            if not isinstance(record, dict):
                raise ValueError(
                    f"{path}, line {number}, is not a JSON object: {line[:60]!r}; repair or remove "
                    "it"
                )
            yield record


def checked_text(path: Path, text_format: TextFormat) -> tuple[Path | io.BytesIO, TextFormat]:
    """Check a CSV or TSV file and convert it to a form that all libraries read correctly.

    Args:
        path: the file.
        text_format: its format.

    Returns:
        The text in UTF-8 with a separator of one character, and its format. The text is the file
        itself if it needs no conversion.

    Raises:
        ValueError: if the file has another encoding, contains NUL characters, is truncated, or has
            a misplaced quote that joins rows.
    """
    try:
        encoding = codecs.lookup(text_format.encoding).name
    except LookupError:
        raise ValueError(
            f"encoding={text_format.encoding!r} is unknown; give for example 'latin-1' or 'utf-16'"
        ) from None
    has_quotes = _check_characters(path, encoding)
    source: Path | io.BytesIO = path
    separator = text_format.separator
    if len(separator) > 1 or encoding not in ("utf-8", "utf-8-sig") or path.suffix == ".GZ":
        with _opened(path) as file:
            text = file.read().decode(encoding)
        if len(separator) > 1:
            text, separator = text.replace(separator, _UNIT_SEPARATOR), _UNIT_SEPARATOR
        source = io.BytesIO(text.encode())
    if has_quotes and text_format.quoted:
        if isinstance(source, io.BytesIO):
            _check_quotes(path, source, separator, text_format.names is None)
            source.seek(0)
        else:
            with _opened(path) as file:
                _check_quotes(path, file, separator, text_format.names is None)
    return source, replace(text_format, separator=separator, encoding="utf-8")


def _check_characters(path: Path, encoding: str) -> bool:
    """Raise for a wrong encoding or NUL characters; return whether there are double quotes."""
    decoder = codecs.getincrementaldecoder(encoding)()
    line, has_quotes, at_start = 1, False, True
    with _opened(path) as file:
        while True:
            block = file.read(_BLOCK)
            if at_start and encoding == "utf-8" and block[:2] in (b"\xff\xfe", b"\xfe\xff"):
                raise ValueError(f'{path} is in UTF-16: pass encoding="utf-16"')
            at_start = False
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                line += error.object[: error.start].count(b"\n")
                raise _wrong_encoding(path, line, encoding, error) from error
            if "\0" in text:
                line += text[: text.index("\0")].count("\n")
                raise ValueError(
                    f"{path}, line {line:,}, holds a NUL character: the file is damaged, binary or "
                    'in UTF-16, for which there is encoding="utf-16"'
                )
            has_quotes |= '"' in text
            line += text.count("\n")
            if not block:
                return has_quotes


def _wrong_encoding(path: Path, line: int, encoding: str, error: UnicodeDecodeError) -> ValueError:
    bad = error.object[max(0, error.start - 20) : error.end + 10]
    return ValueError(
        f"{path}, line {line:,}, is not in {encoding}: {bad!r}; name the encoding of the file, for "
        'example encoding="latin-1" or encoding="cp1252"'
    )


class _Line(NamedTuple):
    number: int
    row: int
    text: str


def _check_quotes(path: Path, file: IO[bytes], separator: str, has_header: bool) -> None:
    """Raise for misplaced quotes that join rows: never closed, or closed within another cell.

    A quoted cell may contain line breaks. Its closing quote is followed by a separator or the end
    of the line. If a later line has anything else after the quote, this quote opens another cell.
    """
    rest_of_quotes = '(?:[^"]|"")*+"'
    unquoted = f"[^{re.escape(separator)}\\r\\n]*+"
    cell = f'(?:"{rest_of_quotes}|(?!")){unquoted}'
    whole_line = re.compile(f"{cell}(?:{re.escape(separator)}{cell})*+[\\r\\n]*+")
    to_last_quote = re.compile(rest_of_quotes)
    row = -2 if has_header else -1
    opened: _Line | None = None  # the line with an open quote
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    try:
        for number, line in enumerate(text, start=1):
            rest = line
            if opened is None:
                row += line not in ("\n", "\r\n", "\r")
            else:
                found = to_last_quote.match(line)
                if found is None:
                    continue
                rest = line[found.end() :]
                if rest and not rest.startswith((separator, "\r", "\n")):
                    raise _wrong_quote(path, opened, "that ends within a later cell")
                rest = rest.removeprefix(separator)
            opened = None
            if '"' in rest and not whole_line.fullmatch(rest):
                opened = _Line(number, row, line)
    finally:
        text.detach()  # keeps the file open
    if opened is not None:
        raise _wrong_quote(path, opened, "that is never closed")


def _wrong_quote(path: Path, line: _Line, what: str) -> ValueError:
    return ValueError(
        f"{path}, line {line.number:,} (row {line.row:,}, the first being row 0), opens a quote "
        f"{what}: {line.text.strip()[:60]!r}. Close it; where quotes are part of the text, pass "
        'csv_options={"quoted": False}, or write them twice within a cell in quotes'
    )
