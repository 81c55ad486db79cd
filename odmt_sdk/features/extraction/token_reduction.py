"""Reduces the number of tokens of an image by truncation or averaging.

Letters: b images, T tokens with the pooled token first, d width, H x W positions.
"""

import math
from typing import Literal, get_args

import torch
from torch.nn import functional as F

Reduction = Literal["cut", "average"]


def reduce_tokens(tokens: torch.Tensor, max_tokens: int | None, how: Reduction) -> torch.Tensor:
    """Reduce each image to at most `max_tokens` tokens; the first token is always kept.

    "cut" keeps the first `max_tokens` tokens. "average" arranges the tokens after the first as a
    square grid and averages neighbouring positions, so the tokens still cover the whole image. If
    they do not form a square, they are averaged along the sequence.

    Args:
        tokens: (b, T, d).
        max_tokens: maximum number of tokens to keep; None = all.
        how: "cut" or "average".

    Returns:
        (b, T', d) with T' <= max_tokens. "average" gives T' = 1 + h * w, where h is the square root
        of max_tokens - 1, rounded down, and w is as large as fits.

    Examples:
        >>> reduce_tokens(torch.randn(2, 50, 8), 10, "average").shape  # a 7 x 7 grid becomes 3 x 3
        torch.Size([2, 10, 8])
    """
    if max_tokens is None or tokens.shape[1] <= max_tokens:
        return tokens
    if how == "cut" or max_tokens == 1:
        return tokens[:, :max_tokens]
    first, places = tokens[:, :1], tokens[:, 1:].float().transpose(1, 2)  # (b, d, T - 1)
    side = math.isqrt(places.shape[2])
    if side**2 == places.shape[2]:
        grid = places.unflatten(2, (side, side))  # (b, d, H * W) -> (b, d, H, W)
        averaged = F.adaptive_avg_pool2d(grid, _grid(max_tokens - 1, side)).flatten(2)
    else:
        averaged = F.adaptive_avg_pool1d(places, max_tokens - 1)
    return torch.cat([first, averaged.transpose(1, 2).to(tokens.dtype)], dim=1)


def check_reduction(max_tokens: int | None, how: str) -> None:
    """Raise `ValueError` unless the arguments are valid for `reduce_tokens`."""
    if max_tokens is not None and max_tokens < 1:
        raise ValueError(f"max_image_tokens={max_tokens} must be at least 1, or None")
    if how not in get_args(Reduction):
        raise ValueError(f"image_reduction is {how!r}, but it must be 'cut' or 'average'")


def _grid(places: int, side: int) -> tuple[int, int]:
    """Return height and width of a nearly square grid with at most `places` positions."""
    height = min(side, math.isqrt(places))
    return height, min(side, places // height)
