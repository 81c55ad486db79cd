"""Stores the moments used to standardize a store in its folder.

Without them, every growth of the store would change the moments, and so the tokens that a trained
model reads for existing items.
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path

import torch

from odmt_sdk.features.store.reading import Kind, read_tensors
from odmt_sdk.files.atomic_files import write_tensors

MOMENTS = "moments.safetensors"


def read_moments(folder: Path, widths: Mapping[str, int]) -> tuple[dict[str, torch.Tensor], int]:
    """Read the stored moments.

    Args:
        folder: folder of the store.
        widths: modality -> feature width d.

    Returns:
        Modality -> moments (2, d), and the number of items they were computed from; an empty dict
        and 0 if the store has not been standardized.

    Raises:
        ValueError: if the file is damaged.
    """
    path = folder / MOMENTS
    try:
        found, notes = read_tensors(path, {name: Kind(torch.float32, 2) for name in widths})
    except FileNotFoundError:
        return {}, 0
    for name, moments in found.items():
        if moments.shape != (2, widths[name]) or not are_moments(moments):
            raise ValueError(f"{path} is damaged: {name!r} has no mean and deviation")
    count = notes.get("items", "")
    if not count.isdecimal() or len(count) > 15:
        raise ValueError(f"{path} is damaged: it has no number of items")
    return found, int(count)


def write_moments(folder: Path, moments: Mapping[str, torch.Tensor], num_items: int) -> None:
    """Store moments in the folder; do nothing if it is not writable.

    Args:
        folder: folder of the store.
        moments: modality -> moments (2, d).
        num_items: number of items they were computed from.
    """
    with contextlib.suppress(OSError):
        kept = {name: value.float().cpu().contiguous() for name, value in moments.items()}
        write_tensors(folder / MOMENTS, kept, note=("items", str(num_items)))


def are_moments(moments: torch.Tensor) -> bool:
    """Check that moments (2, d) are finite and all standard deviations are positive."""
    return bool(moments.isfinite().all() and (moments[1] > 0).all())
