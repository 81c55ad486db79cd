"""Makes thumbnails of pictures, as data URIs: the page serves no file."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from odmt_sdk.features.extraction.pictures import open_picture
from odmt_sdk.features.extractor import is_missing
from odmt_sdk.paths import user_path

if TYPE_CHECKING:
    from PIL.Image import Image

THUMBNAIL_PIXELS = 224
MAX_BYTES = 32 * 2**20
MAX_PIXELS = 50_000_000
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
# Formats that Pillow decodes by itself; others start programs, or are never pictures of items.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")


def thumbnail(picture: object, folder: Path | None = None) -> str | None:
    """Shrink a picture and encode it as a data URI.

    Args:
        picture: a path, the bytes of a file, a PIL image, or a mapping with "bytes" or "path".
        folder: if given, the path must lie in this folder, also after following links.

    Returns:
        "data:image/jpeg;base64,..."; None if there is no picture, it cannot be read, it is larger
        than 32 MiB or 50 megapixels, or it lies outside the folder.
    """
    if isinstance(picture, Mapping):
        picture = picture.get("bytes") or picture.get("path")
    if is_missing(picture):
        return None
    try:
        if isinstance(picture, bytes | bytearray | memoryview):
            return None if len(picture) > MAX_BYTES else _read(io.BytesIO(bytes(picture)))
        if isinstance(picture, str | os.PathLike):
            path = picture_path(picture, folder)
            return None if path is None else _read(path)
        return _encode(open_picture(picture))  # type: ignore[arg-type]  # else raises
    except Exception:  # decoders raise any type of exception
        return None


def picture_path(name: str | os.PathLike[str], folder: Path | None) -> Path | None:
    """Find the file of a picture.

    Args:
        name: its path; relative to `folder`, if that is given.
        folder: the folder that the file must lie in; None = any.

    Returns:
        The path; None if it is not a regular file, is too large, or lies outside the folder.
    """
    path = user_path(name)
    if folder is not None:
        folder = folder.resolve()
        path = (folder / path).resolve()
        if not path.is_relative_to(folder):
            return None
    return path if path.is_file() and path.stat().st_size <= MAX_BYTES else None


def _read(source: io.BytesIO | Path) -> str | None:
    from PIL import Image

    with Image.open(source, formats=_FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:  # known before anything is decoded
            return None
        image.draft("RGB", (2 * THUMBNAIL_PIXELS, 2 * THUMBNAIL_PIXELS))
        return _encode(open_picture(image))


def _encode(image: Image) -> str:
    image.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=82, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
