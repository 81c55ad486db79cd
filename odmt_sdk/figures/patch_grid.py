"""The grid of image patches, and the image as the encoder saw it."""

from __future__ import annotations

import math
from typing import Any

import torch

from odmt_sdk.features.extraction.pictures import open_picture


def patch_grid(num_tokens: int, grid: tuple[int, int] | None) -> tuple[int, int]:
    """Derive the grid of patches from the number of tokens.

    Args:
        num_tokens: number of tokens of an image: leading tokens for the whole image, then the
            patches, row by row.
        grid: rows and columns; None = one leading token and a square grid.

    Returns:
        Rows and columns.

    Raises:
        ValueError: if the number of tokens does not match.
    """
    if grid is None:
        side = math.isqrt(max(0, num_tokens - 1))
        if side < 1 or 1 + side * side != num_tokens:
            raise ValueError(
                f"{num_tokens} image tokens are not one for the whole picture and as many rows of "
                "patches as columns: give grid=(rows, columns)"
            )
        return side, side
    rows, columns = grid
    if min(rows, columns) < 1 or rows * columns > num_tokens:
        raise ValueError(
            f"grid={grid} needs {rows * columns} patches, but the picture has {num_tokens} tokens"
        )
    return rows, columns


def as_seen(picture: Any, image_processor: Any) -> Any:
    """Preprocess an image for the encoder and convert the result back to an image.

    Args:
        picture: a path, the bytes of a file, or a PIL image.
        image_processor: the vision encoder's image processor; None = no preprocessing.

    Returns:
        A PIL image in RGB.
    """
    from PIL import Image

    image = open_picture(picture)
    if image_processor is None:
        return image
    pixels = image_processor(images=[image], return_tensors="pt")["pixel_values"][0]  # (3, H, W)
    if getattr(image_processor, "do_normalize", False):
        mean = torch.tensor(image_processor.image_mean)[:, None, None]
        pixels = pixels * torch.tensor(image_processor.image_std)[:, None, None] + mean
    if not getattr(image_processor, "do_rescale", True):
        pixels = pixels / 255
    shown = (pixels.clamp(0, 1) * 255).round().byte().permute(1, 2, 0)
    return Image.fromarray(shown.numpy())
