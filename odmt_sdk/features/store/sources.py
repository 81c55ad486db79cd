"""Marks of raw values, with which a store detects that a title or an image has changed.

A value has two marks. The first is a hash of its content. The second, for values in files, is a
hash of the file's name, size and modification time. If the second is unchanged, the content need
not be read again. Letters: n items.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from odmt_sdk.paths import user_path

UNKNOWN, ABSENT, UNREADABLE = 0, 1, 2  # reserved: no content has these marks


class SourceMarks:
    """Computes the marks of the given raw values on demand.

    Args:
        values: position -> value, for the items that have a value.
        is_path: whether a string is the path of a file, as it is for images.

    Examples:
        >>> marks = SourceMarks({0: "a red mug", 1: "a lamp"}, is_path=False)
        >>> marks.content(0) == SourceMarks({5: "a red mug"}, is_path=False).content(5)
        True
        >>> marks.content(2) == ABSENT
        True
    """

    def __init__(self, values: Mapping[int, Any], *, is_path: bool) -> None:
        self.values, self.is_path = values, is_path

    def content(self, position: int) -> int:
        """Return the content mark of an item's value."""
        if position not in self.values:
            return ABSENT
        value = self.values[position]
        try:
            return _mark(*_parts(value, self._path(value)))
        except Exception:  # decoders raise any type of exception
            return UNREADABLE

    def file(self, position: int) -> int:
        """Return the file mark of an item's value; `UNKNOWN` if it is not in a file."""
        path = self._path(self.values[position]) if position in self.values else None
        if path is None:
            return UNKNOWN
        try:
            found = os.stat(path)
        except OSError:
            return UNREADABLE
        return _mark(f"{os.path.basename(path)} {found.st_size} {found.st_mtime_ns}".encode())

    def changed(self, positions: Sequence[int], marks: torch.Tensor) -> list[int]:
        """Find the items whose values differ from the stored marks.

        Args:
            positions: positions of n items.
            marks: (2, n) stored marks of these items; `UNKNOWN` never counts as changed.

        Returns:
            The positions of the changed items, without those that `gone` finds.
        """
        return self._compare(positions, marks, gone=False)

    def gone(self, positions: Sequence[int], marks: torch.Tensor) -> list[int]:
        """Find the items whose files were read when the marks were stored, and cannot be read now.

        Args:
            positions: positions of n items.
            marks: (2, n) stored marks of these items.

        Returns:
            The positions of these items.
        """
        return self._compare(positions, marks, gone=True)

    def _compare(self, positions: Sequence[int], marks: torch.Tensor, *, gone: bool) -> list[int]:
        found = []
        for position, content, file in zip(positions, *marks.tolist(), strict=True):
            if content == UNKNOWN or (file > UNREADABLE and file == self.file(position)):
                continue
            now = self.content(position)
            if content != now and gone == (now == UNREADABLE and content > UNREADABLE):
                found.append(position)
        return found

    def of(self, positions: Sequence[int]) -> torch.Tensor:
        """Return the content and file marks (2, n) of items."""
        return torch.tensor(
            [[self.content(p) for p in positions], [self.file(p) for p in positions]],
            dtype=torch.int64,
        )

    def _path(self, value: Any) -> str | None:
        is_path = isinstance(value, os.PathLike) or (self.is_path and isinstance(value, str))
        return str(user_path(value)) if is_path else None


def _parts(value: Any, path: str | None) -> list[bytes]:
    """Return the content of a value as bytes."""
    if path is not None:
        with open(path, "rb") as file:
            return [file.read()]
    if isinstance(value, str):
        return [value.encode("utf-8", "surrogatepass")]
    if isinstance(value, bytes):
        return [value]
    if hasattr(value, "getexif"):  # a PIL image
        palette = value.getpalette() if value.mode in ("P", "PA") else None
        about = f"{value.mode} {value.size} {palette} {value.info.get('transparency')}".encode()
        return [about, value.getexif().tobytes(), value.tobytes()]
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().to(torch.float32)
    array = np.ascontiguousarray(np.asarray(value, dtype=np.float32))
    return [repr(array.shape).encode(), array.tobytes()]


def _mark(*parts: bytes) -> int:
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(part)
    found = int.from_bytes(digest.digest(), "little") >> 1  # fits into int64
    return found + 3 if found <= UNREADABLE else found
