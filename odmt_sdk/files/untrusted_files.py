"""Safe access to folders from untrusted sources: opening files and parsing JSON.

Time and memory are proportional to the size of the file: the bytes are scanned for the number and
the depth of JSON values before any Python object is created.
"""

import json
import math
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np
import numpy.typing as npt

from odmt_sdk.errors import AdapterError

MAX_DEPTH = 16
MAX_DIGITS = 1300  # of an integer; parsing time grows faster than the number of digits
MAX_VALUES = 50_000  # in JSON; each may become an object of about a hundred bytes
SCANNED = 1 << 20  # bytes per step of the scan

_QUOTE, _COMMA, _COLON, _LIST, _END_OF_LIST, _OBJECT, _END_OF_OBJECT = b'",:[]{}'


def open_inside(folder: Path, name: str) -> BinaryIO:
    """Open a regular file of a folder.

    Symbolic links may only point to files in the same folder or, in the cache of huggingface_hub,
    to files in the `blobs` folder next to `snapshots`.

    Args:
        folder: the folder.
        name: name of the file, without a path.

    Returns:
        The open file; the caller closes it.

    Raises:
        FileNotFoundError: if there is no such file.
        AdapterError: if it is not a regular file or lies outside the folder.
        OSError: if it cannot be opened.
    """
    path = folder / name
    if path.parent != folder or name in ("", ".", "..") or "\0" in name:
        raise AdapterError(f"{name!r} is no file name: files of an adapter lie in its folder")
    try:
        target, home = path.resolve(), folder.resolve()
    except RuntimeError as error:  # a circular link, before Python 3.13
        raise AdapterError(f"{name} in {str(folder)!r} is a link to itself") from error
    if target.parent != home and target.parent != _blobs(folder):
        raise AdapterError(
            f"{name} in {str(folder)!r} is a link to {str(target)!r}, outside of that folder: "
            "put the file itself there"
        )
    if not stat.S_ISREG(os.lstat(target).st_mode):  # merely opening a device may have side effects
        raise AdapterError(f"{name} in {str(folder)!r} is not a regular file")
    # The file may have been replaced since the check. O_NOFOLLOW rejects a link, and O_NONBLOCK
    # keeps the call from waiting for the other end of a pipe.
    flags = os.O_RDONLY
    for flag in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"):
        flags |= getattr(os, flag, 0)
    handle = os.open(target, flags)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise AdapterError(f"{name} in {str(folder)!r} is not a regular file")
    return os.fdopen(handle, "rb")


def read_json(file: BinaryIO, name: str, *, max_bytes: int, max_values: int = MAX_VALUES) -> Any:
    """Read a JSON file of limited size and depth.

    Args:
        file: the file; it is read from its start.
        name: name of the file in error messages.
        max_bytes: largest size allowed; a larger file is refused without being read.
        max_values: most values allowed; a file with more is refused before any object is created.

    Returns:
        The parsed content.

    Raises:
        AdapterError: if the file is too large or too deeply nested, is not valid JSON, repeats a
            key within an object, or contains NaN or an infinite number.
    """
    size = os.fstat(file.fileno()).st_size
    if size > max_bytes:
        raise AdapterError(f"{name} has {size} bytes, more than the limit of {max_bytes}")
    file.seek(0)
    return parse_json(file.read(max_bytes), name, max_values=max_values)


def parse_json(text: bytes, name: str, *, max_values: int = MAX_VALUES) -> Any:
    """Parse JSON of limited depth and number of values; see `read_json`.

    Args:
        text: UTF-8 bytes.
        name: name of the file in error messages.
        max_values: most values allowed.

    Returns:
        The parsed content.

    Raises:
        AdapterError: see `read_json`.
    """

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is no JSON")

    scan = JsonScan()
    for start in range(0, len(text), SCANNED):
        scan.read(text[start : start + SCANNED])
        if scan.depth > MAX_DEPTH:
            raise AdapterError(f"{name} is damaged: it is nested deeper than {MAX_DEPTH} levels")
        if scan.values > max_values:
            raise AdapterError(f"{name} is damaged: it has more than {max_values} values")
    try:
        return json.loads(
            text.decode("utf-8"),
            object_pairs_hook=_without_repeats,
            parse_constant=refuse,
            parse_float=_finite,
            parse_int=_short_int,
        )
    except (ValueError, RecursionError, MemoryError) as error:
        raise AdapterError(f"{name} is damaged: {error}") from error


@dataclass
class JsonScan:
    """Incremental scan that bounds the size of JSON without parsing it.

    Attributes:
        values: upper bound on the number of values and keys so far.
        depth: deepest nesting of lists and objects so far.

    Examples:
        >>> scan = JsonScan()
        >>> _ = scan.read(b'{"a": [1, ')
        >>> _ = scan.read(b'"],],"]}')
        >>> scan.values, scan.depth
        (5, 2)
    """

    values: int = 1
    depth: int = 0
    _level: int = 0
    _inside: bool = False  # whether the scan is inside a string
    _left: bytes = b""  # the start of an unfinished escape sequence

    def read(self, piece: bytes) -> npt.NDArray[np.bool_]:
        """Scan the next piece.

        Args:
            piece: the bytes that follow the previous piece.

        Returns:
            For each byte, whether it is outside strings. A backslash at the end of a piece is
            carried over to the next one.
        """
        piece, self._left = self._left + piece, b""
        if b"\\" in piece:
            # \" does not end a string; escapes are paired from the left, as a parser does
            plain = piece.replace(rb"\\", b"--").replace(rb"\"", b"--")
            if plain.endswith(b"\\"):
                plain, self._left = plain[:-1], b"\\"
        else:
            plain = piece
        found = np.frombuffer(plain, dtype=np.uint8)
        quotes = (found == _QUOTE).view(np.uint8)
        strings = np.bitwise_xor.accumulate(quotes) != self._inside
        outside: npt.NDArray[np.bool_] = ~strings & (quotes == 0)
        self._inside ^= bool(np.count_nonzero(quotes) % 2)
        opening = ((found == _LIST) | (found == _OBJECT)) & outside
        closing = ((found == _END_OF_LIST) | (found == _END_OF_OBJECT)) & outside
        between = ((found == _COMMA) | (found == _COLON)) & outside
        self.values += int(np.count_nonzero(opening)) + int(np.count_nonzero(between))
        if opening.any() or closing.any():
            steps = opening.view(np.int8) - closing.view(np.int8)
            levels = np.cumsum(steps, dtype=np.int32)
            self.depth = max(self.depth, self._level + int(levels.max()))
            self._level += int(levels[-1])
        return outside


def _blobs(folder: Path) -> Path | None:
    """The `blobs` folder of huggingface_hub's cache if the folder lies in a snapshot, else None."""
    absolute = Path(os.path.abspath(folder))
    for snapshot in (absolute, *absolute.parents):
        if snapshot.parent.name == "snapshots":
            repository = snapshot.parent.parent.resolve()
            blobs = repository / "blobs"
            return None if blobs.is_symlink() else blobs
    return None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs more than once in an object")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is too large for a number")
    return number


def _short_int(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"{text[:20]}... has {len(text)} digits, more than {MAX_DIGITS}")
    return int(text)
