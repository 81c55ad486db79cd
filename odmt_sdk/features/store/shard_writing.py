"""One shard of a store: the packed tokens of its items, and the items that could not be read.

Letters: n items of the shard, P tokens of all of them, b items of one batch, T tokens, d width.
"""

import json
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from odmt_sdk.features.extractor import EncodedBatch, storable
from odmt_sdk.features.store.reading import Kind, opened, read_tensors, tensor_of
from odmt_sdk.files.atomic_files import write_tensors
from odmt_sdk.files.tensor_file import read_header

_PROBLEMS = "problems"


class ShardSummary(NamedTuple):
    """The content of a shard except its tokens.

    Args:
        lengths: (n,) int32, number of tokens of each item.
        sums: (2, d) float64, sums of the tokens and of their squares; d is 0 without tokens.
        problems: (item id, reason) for each item that could not be read.
        marks: (2, n) int64, marks of the raw values, see `SourceMarks`; 0 = unknown.
    """

    lengths: torch.Tensor
    sums: torch.Tensor
    problems: list[tuple[Hashable, str]]
    marks: torch.Tensor


def write_shard(
    path: Path,
    batches: Sequence[EncodedBatch],
    *,
    first: int,
    count: int,
    item_ids: Mapping[int, Hashable],
    marks: torch.Tensor,
    unit: str,
    dtype: torch.dtype,
) -> None:
    """Write one shard.

    Args:
        path: the file.
        batches: encoded items, with positions in the whole store.
        first: position of the shard's first item.
        count: n.
        item_ids: position -> id of the shard's items, for problems and messages.
        marks: (2, n) marks of the raw values.
        unit: name of one value in messages.
        dtype: storage dtype of the tokens.

    Raises:
        ValueError: if tokens are not finite in that dtype, or differ in width.
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
        block = storable(batch, unit, dtype, item_ids)
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
            "marks": marks,
        },
        note=(_PROBLEMS, readable_json(notes)),
    )


def readable_json(value: object, *, indent: int | None = None) -> str:
    """Format a value as JSON with all letters as they are, or escaped if UTF-8 cannot hold them.

    Args:
        value: the value.
        indent: see `json.dumps`.

    Returns:
        A text that can be encoded in UTF-8.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return json.dumps(value, indent=indent)
    return text


def read_summary(path: Path, count: int) -> ShardSummary:
    """Read everything in a shard except its tokens.

    Args:
        path: a file written by `write_shard`.
        count: n, the number of items it covers.

    Returns:
        Lengths, sums, problems and marks.

    Raises:
        ValueError: if the file is missing or damaged.
    """
    try:
        tensors, notes = read_tensors(path, _KINDS)
        lengths = tensors["lengths"]
        marks = tensors.get("marks", torch.zeros(2, count, dtype=torch.int64))
        problems = [
            (item_id, str(reason)) for item_id, reason in json.loads(notes.get(_PROBLEMS, "[]"))
        ]
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{path} is damaged: {error}. Move it away and call ItemFeatures.from_items again with "
            "the same items, encoders and path, which creates the missing file"
        ) from error
    if (
        len(lengths) != count
        or marks.shape != (2, count)
        or tensors["sums"].shape[0] != 2
        or bool((lengths < 0).any())
    ):
        raise ValueError(f"{path} is damaged: its lengths, sums and marks do not belong together")
    return ShardSummary(lengths, tensors["sums"], problems, marks)


def read_batch(
    path: Path, first: int, count: int, dtype: torch.dtype, left_out: set[int]
) -> EncodedBatch:
    """Read the tokens of a shard as a batch, in the format an encoder returns.

    Args:
        path: a file written by `write_shard`.
        first: position of its first item.
        count: n, the number of items it covers.
        dtype: dtype of its tokens.
        left_out: positions of items to skip.

    Returns:
        A batch of the other items that have tokens. Its problems are empty.

    Raises:
        ValueError: if the file is missing or damaged.
    """
    summary = read_summary(path, count)
    with opened(path) as file:
        header, _ = read_header(file, path.name)
        packed = tensor_of(path, header, "tokens", Kind(dtype, 2)).read()  # (P, d)
    lengths = summary.lengths.long()
    starts = lengths.cumsum(0) - lengths
    if len(packed) != int(lengths.sum()):
        raise ValueError(f"{path} is damaged: it has {len(packed)} tokens, not {lengths.sum()}")
    kept = [n for n in range(len(lengths)) if lengths[n] and first + n not in left_out]
    if not kept:
        return EncodedBatch([], torch.empty(0), torch.empty(0), {})
    tokens = nn.utils.rnn.pad_sequence(
        [packed[starts[n] : starts[n] + lengths[n]] for n in kept], batch_first=True
    )  # (P, d) -> (b, T, d)
    return EncodedBatch([first + n for n in kept], tokens, lengths[kept], {})


_KINDS = {
    "lengths": Kind(torch.int32),
    "sums": Kind(torch.float64, 2),
    "marks": Kind(torch.int64, 2, needed=False),
}
