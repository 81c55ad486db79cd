"""Opening the files of a folder that somebody else may have made, and reading JSON from them."""

import json
import math
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from odmt_sdk.errors import AdapterError

MAX_DEPTH = 16


def open_inside(folder: Path, name: str) -> BinaryIO:
    """Open a regular file that lies in a folder.

    Links are followed only to files in the folder itself, or, in the cache of huggingface_hub, to
    the `blobs` beside its `snapshots`.

    Args:
        folder: the folder.
        name: of the file, without a path.

    Returns:
        The file, to be closed by the caller.

    Raises:
        FileNotFoundError: if there is none.
        AdapterError: if it is no regular file or lies elsewhere.
        OSError: if it cannot be opened.
    """
    path = folder / name
    if path.parent != folder or name in ("", ".", ".."):
        raise AdapterError(f"{name!r} is no file name: files of an adapter lie in its folder")
    target = path.resolve()
    if target.parent != folder.resolve() and target.parent != _blobs(folder):
        raise AdapterError(
            f"{name} in {str(folder)!r} is a link to {str(target)!r}, outside of the adapter: "
            "put the file itself there"
        )
    # Opening a pipe would wait for its other end.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    handle = os.open(target, flags)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise AdapterError(f"{name} in {str(folder)!r} is not a regular file")
    return os.fdopen(handle, "rb")


def read_json(file: BinaryIO, name: str, *, max_bytes: int) -> Any:
    """Read a JSON file of limited size and depth.

    Args:
        file: the file, read from its start.
        name: for messages.
        max_bytes: a larger file is refused before any of it is read.

    Returns:
        Its content.

    Raises:
        AdapterError: if it is too large or too deep, is no JSON, names a key twice, or holds NaN
            or an infinite number.
    """
    size = os.fstat(file.fileno()).st_size
    if size > max_bytes:
        raise AdapterError(f"{name} has {size} bytes, more than the {max_bytes} that it may have")
    file.seek(0)
    return parse_json(file.read(max_bytes), name)


def parse_json(text: bytes, name: str) -> Any:
    """Read JSON of limited depth; see `read_json`.

    Args:
        text: UTF-8.
        name: for messages.

    Returns:
        Its content.

    Raises:
        AdapterError: see `read_json`.
    """

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is no JSON")

    try:
        content = json.loads(
            text.decode("utf-8"),
            object_pairs_hook=_without_repeats,
            parse_constant=refuse,
            parse_float=_finite,
        )
    except (ValueError, RecursionError, MemoryError) as error:
        raise AdapterError(f"{name} is damaged: {error}") from error
    _check_depth(content, name)
    return content


def _blobs(folder: Path) -> Path | None:
    """Where huggingface_hub keeps the files of a snapshot that this folder is, or is part of."""
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
        raise ValueError("a key stands more than once in an object")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is too large for a number")
    return number


def _check_depth(content: Any, name: str) -> None:
    level = [content]
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                inner += [v for v in value.values() if isinstance(v, dict | list)]
            elif isinstance(value, list):
                inner += [v for v in value if isinstance(v, dict | list)]
        if not inner:
            return
        level = inner
    raise AdapterError(f"{name} is damaged: it is nested deeper than {MAX_DEPTH} levels")
