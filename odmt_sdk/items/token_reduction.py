"""Fewer tokens of a picture: cut off, or neighbours averaged.

Letters: b pictures, T tokens of which the first stands for the whole, d width, H x W places.
"""

import math
from typing import Literal, get_args

import torch
from torch.nn import functional as F

Reduction = Literal["cut", "average"]


def reduce_tokens(tokens: torch.Tensor, max_tokens: int | None, how: Reduction) -> torch.Tensor:
    """Keep at most so many tokens of each picture, the first among them.

    "average" lays the other tokens out as the square they come from and averages neighbouring
    places, so that the whole picture is still seen; tokens that form no square are averaged along
    their sequence. "cut" keeps the first tokens as they are.

    Args:
        tokens: (b, T, d).
        max_tokens: how many to keep; None = all.
        how: "cut" or "average".

    Returns:
        (b, T', d) with T' <= max_tokens; for "average" 1 + h * w, where h is the root of the places
        to keep and w as many as fit beside it.

    Examples:
        >>> reduce_tokens(torch.randn(2, 50, 8), 10, "average").shape  # 7 x 7 places become 3 x 3
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
    """Raise `ValueError` unless `reduce_tokens` can do this."""
    if max_tokens is not None and max_tokens < 1:
        raise ValueError(f"max_image_tokens={max_tokens} must be at least 1, or None")
    if how not in get_args(Reduction):
        raise ValueError(f"image_reduction is {how!r}, but it must be 'cut' or 'average'")


def _grid(places: int, side: int) -> tuple[int, int]:
    """Height and width of a nearly square grid of at most so many places."""
    height = min(side, math.isqrt(places))
    return height, min(side, places // height)
