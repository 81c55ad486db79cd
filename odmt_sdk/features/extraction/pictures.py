"""Opens images of all supported kinds and handles broken ones."""

import io
import os
import re
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from odmt_sdk.features.extractor import described, is_missing, shortened
from odmt_sdk.paths import user_path

if TYPE_CHECKING:
    from PIL.Image import Image

Picture: TypeAlias = "str | os.PathLike[str] | bytes | Image"

# Resizing the shorter side of a more elongated image could use excessive memory.
_MAX_ASPECT_RATIO = 100


def present_pictures(
    images: Sequence["Picture | Mapping[str, Any] | None"],
    item_ids: Sequence[Hashable] | None = None,
) -> dict[int, "Picture"]:
    """Drop empty cells.

    Args:
        images: N cells. A cell may be a mapping with "bytes" or "path", the format in which
            `datasets` stores images.
        item_ids: item ids to use in messages; None = positions.

    Returns:
        Position -> image.

    Raises:
        TypeError: if a cell is neither empty nor a path, bytes or a PIL image.
        ValueError: if an image is a URL or a data URI.
    """
    from PIL.Image import Image

    if isinstance(images, str | bytes | os.PathLike | Image):
        raise TypeError(f"images is a single {type(images).__name__}, but it must be a list")
    present: dict[int, Picture] = {}
    named = range(len(images)) if item_ids is None else item_ids
    for row, picture in enumerate(images):
        if isinstance(picture, Mapping) and picture.keys() & {"bytes", "path"}:
            picture = picture.get("bytes") or picture.get("path")
        if isinstance(picture, bytearray | memoryview):
            picture = bytes(picture)
        if is_missing(picture):
            continue
        if not isinstance(picture, str | os.PathLike | bytes | Image):
            raise TypeError(
                f"image of item {named[row]!r} is {type(picture).__name__}, but an image must be a "
                'path, bytes, a PIL image, a mapping of "bytes" and "path", or None where an item '
                "has none; PIL.Image.fromarray makes one of an array of pixels (height, width, 3)"
            )
        if isinstance(picture, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", picture):
            raise ValueError(
                f"image of item {named[row]!r} is the URL {shortened(repr(picture))}; download the "
                "pictures first and give their paths"
            )
        if isinstance(picture, str) and picture[:5].lower() == "data:":
            raise ValueError(
                f"image of item {named[row]!r} is a data URI, {shortened(repr(picture), 40)}; give "
                "its bytes: base64.b64decode(uri.partition(',')[2])"
            )
        present[row] = picture
    return present


def describe_problem(picture: "Picture", error: Exception) -> str:
    """Describe why an image could not be opened, identically on every run.

    Args:
        picture: the image.
        error: the exception raised.

    Returns:
        The path of the image, if it has one, and the error without memory addresses.
    """
    if not isinstance(picture, str | os.PathLike):
        return described(error)
    return f"{shortened(os.fspath(picture), 200)}: {described(error)}"


def open_picture(picture: "Picture") -> "Image":
    """Open an image, apply its EXIF rotation and convert it to RGB.

    Args:
        picture: a path, the bytes of a file, or a PIL image.

    Returns:
        A PIL image of mode RGB. Transparent parts are white; 16 bits per channel are scaled to 8.

    Raises:
        OSError: if the file does not exist, is not an image, or is truncated.
        ValueError: if the image is empty, or one side is over 100 times as long as the other.

    Examples:
        >>> from PIL import Image
        >>> open_picture(Image.new("LA", (2, 2), (0, 0))).getpixel((0, 0))
        (255, 255, 255)
    """
    from PIL import Image

    if isinstance(picture, Image.Image):
        image = picture
    else:
        source = io.BytesIO(picture) if isinstance(picture, bytes) else user_path(picture)
        with Image.open(source) as file:
            file.load()
            image = file
    width, height = image.size
    if not min(width, height):
        raise ValueError(f"the picture is {width} x {height}: it is empty")
    if max(width, height) > _MAX_ASPECT_RATIO * min(width, height):
        raise ValueError(f"the picture is {width} x {height}, one side over 100 times the other")
    image = _upright(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _to_eight_bits(image)
    if image.has_transparency_data:
        if image.mode == "La":
            image = image.convert("LA")
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _upright(image: "Image") -> "Image":
    """Rotate an image as its EXIF data says; damaged EXIF data are ignored."""
    from PIL.ExifTags import Base
    from PIL.Image import Transpose

    try:
        orientation = image.getexif().get(Base.Orientation, 1)
    except Exception:  # parsing metadata raises any type of exception
        return image
    # `ImageOps.exif_transpose` would also write the EXIF data anew, which fails for odd values
    method = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }.get(orientation)
    return image if method is None else image.transpose(method)


def _to_eight_bits(image: "Image") -> "Image":
    # PIL would clip values above 255 instead of scaling.
    import numpy as np
    from PIL import Image

    values = np.nan_to_num(np.asarray(image, dtype=np.float32))
    if image.mode.startswith("I;16"):
        white = 65535
    else:
        levels = (1, 255, 65535) if image.mode == "F" else (255, 65535)
        white = next((level for level in levels if values.max() <= level), levels[-1])
    return Image.fromarray((values / white * 255).clip(0, 255).round().astype(np.uint8))
