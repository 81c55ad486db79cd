"""Opening pictures of every kind, in every state they are met in."""

import io
import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from odmt_sdk.items.extraction import is_missing

if TYPE_CHECKING:
    from PIL.Image import Image

Picture: TypeAlias = "str | os.PathLike[str] | bytes | Image"

# Resizing the shorter side of anything longer would need more memory than the picture deserves.
_MAX_ASPECT_RATIO = 100


def present_pictures(images: Sequence["Picture | None"]) -> dict[int, "Picture"]:
    """Leave out empty cells.

    Args:
        images: N cells.

    Returns:
        Position -> picture.

    Raises:
        TypeError: if a cell is neither empty nor a path, bytes or a PIL image.
        ValueError: if one is a URL.
    """
    from PIL.Image import Image

    if isinstance(images, str | bytes | os.PathLike | Image):
        raise TypeError(f"images is a single {type(images).__name__}, but it must be a list")
    present: dict[int, Picture] = {}
    for row, picture in enumerate(images):
        if is_missing(picture):
            continue
        if not isinstance(picture, str | os.PathLike | bytes | Image):
            raise TypeError(
                f"image {row} is {type(picture).__name__}, but an image must be a path, bytes, a "
                "PIL image, or None where an item has none"
            )
        if isinstance(picture, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", picture):
            raise ValueError(
                f"image {row} is the URL {picture!r}; download the pictures first and give their "
                "paths"
            )
        present[row] = picture
    return present


def describe_problem(picture: "Picture", error: Exception) -> str:
    """Say what is wrong with a picture, in the same words on every run.

    Args:
        picture: that could not be opened.
        error: what was raised.

    Returns:
        Its path, if it has one, and the error, without addresses in memory.
    """
    where = f"{os.fspath(picture)}: " if isinstance(picture, str | os.PathLike) else ""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", f"{where}{type(error).__name__}: {error}")


def open_picture(picture: "Picture") -> "Image":
    """Read a picture, turn it upright and convert it to RGB.

    Args:
        picture: a path, the bytes of a file, or a PIL image.

    Returns:
        A PIL image of mode RGB; transparent parts are white, 16 bits a channel become 8.

    Raises:
        OSError: if there is no such file, or it holds no picture or a truncated one.
        ValueError: if one side is over 100 times the other.

    Examples:
        >>> from PIL import Image
        >>> open_picture(Image.new("LA", (2, 2), (0, 0))).getpixel((0, 0))
        (255, 255, 255)
    """
    from PIL import Image, ImageOps

    if isinstance(picture, Image.Image):
        image = picture
    else:
        with Image.open(io.BytesIO(picture) if isinstance(picture, bytes) else picture) as file:
            file.load()
            image = file
    width, height = image.size
    if max(width, height) > _MAX_ASPECT_RATIO * min(width, height):
        raise ValueError(f"the picture is {width} x {height}, one side over 100 times the other")
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _to_eight_bits(image)
    if image.has_transparency_data:
        if image.mode == "La":
            image = image.convert("LA")
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _to_eight_bits(image: "Image") -> "Image":
    # PIL would cut off everything brighter than 255 instead of scaling.
    import numpy as np
    from PIL import Image

    values = np.nan_to_num(np.asarray(image, dtype=np.float32))
    if image.mode.startswith("I;16"):
        white = 65535
    else:
        levels = (1, 255, 65535) if image.mode == "F" else (255, 65535)
        white = next((level for level in levels if values.max() <= level), levels[-1])
    return Image.fromarray((values / white * 255).clip(0, 255).round().astype(np.uint8))
