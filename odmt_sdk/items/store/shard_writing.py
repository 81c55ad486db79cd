"""One file of a store: the tokens of some items, packed, and what was wrong with others.

Letters: n items of the file, P tokens of all of them, b items of one batch, T tokens, d width.
"""

import json
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open

from odmt_sdk.items.extraction import EncodedBatch, storable
from odmt_sdk.items.store.files import write_tensors

_PROBLEMS = "problems"


class ShardSummary(NamedTuple):
    """What a file holds beside its tokens.

    Args:
        lengths: (n,) int32, tokens of each item.
        sums: (2, d) float64, sums of the tokens and of their squares; d is 0 without tokens.
        problems: [item id, reason] of each item that could not be read.
    """

    lengths: torch.Tensor
    sums: torch.Tensor
    problems: list[tuple[Hashable, str]]


def write_shard(
    path: Path,
    batches: Sequence[EncodedBatch],
    *,
    first: int,
    count: int,
    item_ids: Mapping[int, Hashable],
    unit: str,
    dtype: torch.dtype,
) -> None:
    """Write one file.

    Args:
        path: the file.
        batches: encoded items; their positions are those of the whole store.
        first: position of the file's first item.
        count: n.
        item_ids: ids of the file's items by position, for what could not be read.
        unit: what one value is called.
        dtype: of the tokens.

    Raises:
        ValueError: if tokens cannot be stored in that type, or differ in width.
        OSError: if writing fails.
    """
    lengths = torch.zeros(count, dtype=torch.int32)
    problems: dict[int, str] = {}
    widths = {batch.tokens.shape[2] for batch in batches if batch.rows}
    if len(widths) > 1:
        raise ValueError(f"{unit}s have tokens of {sorted(widths)} values, but one width is needed")
    for batch in batches:
        problems.update(batch.problems)
        if batch.rows:
            places = torch.tensor(batch.rows) - first
            lengths[places] = batch.lengths.cpu().to(torch.int32)
    starts = lengths.cumsum(0) - lengths
    packed = torch.empty(int(lengths.sum()), widths.pop() if widths else 0, dtype=dtype)  # (P, d)
    for batch in batches:
        if not batch.rows:
            continue
        block = storable(batch, unit, dtype)
        places = torch.tensor(batch.rows) - first
        positions = torch.arange(block.shape[1])
        exists = positions < lengths[places, None]  # (b, T)
        packed[(starts[places, None] + positions)[exists]] = block[exists]
    exact = packed.double()
    notes = [(item_ids[row], reason) for row, reason in sorted(problems.items())]
    write_tensors(
        path,
        {
            "tokens": packed,
            "lengths": lengths,
            "sums": torch.stack([exact.sum(0), exact.square().sum(0)]),
        },
        note=(_PROBLEMS, json.dumps(notes, ensure_ascii=False)),
    )


def read_summary(path: Path) -> ShardSummary:
    """Read what a file holds beside its tokens.

    Args:
        path: a file of `write_shard`.

    Returns:
        Lengths, sums and problems.
    """
    with safe_open(path, framework="pt") as file:
        problems = json.loads((file.metadata() or {}).get(_PROBLEMS, "[]"))
        return ShardSummary(
            file.get_tensor("lengths").clone(),
            file.get_tensor("sums").clone(),
            [(item_id, reason) for item_id, reason in problems],
        )
