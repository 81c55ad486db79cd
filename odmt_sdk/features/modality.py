"""The tokens of one modality, and the checks that they are valid.

Letters: N items, T tokens of one item, d feature width, U items asked for.
"""

from typing import NamedTuple

import torch
from torch import nn

from odmt_sdk.vocabulary import ItemVocabulary

ROWS_AT_ONCE = 4096  # rows processed at a time, to bound memory


class ModalityTokens(NamedTuple):
    """Content tokens of some items in one modality.

    Args:
        tokens: (U, T, d).
        lengths: (U,) number of valid tokens, which come first; 0 = the item lacks this modality.
    """

    tokens: torch.Tensor
    lengths: torch.Tensor


def blocks(rows: int) -> list[slice]:
    """Split `range(rows)` into slices of at most `ROWS_AT_ONCE` rows."""
    return [slice(start, start + ROWS_AT_ONCE) for start in range(0, rows, ROWS_AT_ONCE)]


def check_name(name: str) -> None:
    """Raise `ValueError` unless the name is allowed for a modality."""
    if name in ("id", "fused"):
        raise ValueError(f"a modality cannot be called {name!r}: the name is reserved")
    if not name.isidentifier() or hasattr(nn.ModuleDict, name):
        raise ValueError(
            f"modality name {name!r} must be a plain word such as 'text', 'image' or 'audio'"
        )


def check_tokens(
    name: str, tokens: torch.Tensor, lengths: torch.Tensor, vocabulary: ItemVocabulary
) -> None:
    """Raise unless tokens (N + 1, T, d) and lengths (N + 1,) are valid."""
    rows = len(vocabulary) + 1
    if not tokens.is_floating_point():
        raise TypeError(f"{name} features must be a floating-point tensor, got {tokens.dtype}")
    if tokens.ndim != 3 or 0 in tokens.shape[1:]:
        raise ValueError(
            f"{name} features have shape {tuple(tokens.shape)}; they must be (N + 1, tokens, width)"
            ". One vector per item is one token: use features.unsqueeze(1)"
        )
    if tokens.shape[0] != rows:
        raise ValueError(
            f"{name} features have {tokens.shape[0]} rows, but {len(vocabulary)} items need "
            f"{rows}: one row per item after row 0, which is padding"
        )
    if lengths.shape != (rows,) or lengths.is_floating_point():
        raise ValueError(
            f"lengths of {name} must be {rows} integers, got {tuple(lengths.shape)} {lengths.dtype}"
        )
    outside = (lengths < 0) | (lengths > tokens.shape[1])
    if bool(outside.any()):
        row = int(outside.nonzero()[0])
        raise ValueError(
            f"{name} of {_named(row, vocabulary)} has length {int(lengths[row])}, outside "
            f"0..{tokens.shape[1]}"
        )
    if int(lengths[0]):
        raise ValueError(f"row 0 of {name} is padding: its length must be 0, not {int(lengths[0])}")
    positions = torch.arange(tokens.shape[1], device=tokens.device)
    for block in blocks(rows):
        bad = ~tokens[block].isfinite().all(-1) & (positions < lengths[block, None])
        if bool(bad.any()):
            row = block.start + int(bad.any(1).nonzero()[0])
            raise ValueError(
                f"{name} features of {_named(row, vocabulary)} hold NaN or infinite values; repair "
                "the item, or give it length 0 to treat it as lacking this modality"
            )


def _named(row: int, vocabulary: ItemVocabulary) -> str:
    return "padding row 0" if row == 0 else f"item {vocabulary.item_ids[row - 1]!r} (row {row})"
