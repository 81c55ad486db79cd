"""Extraction straight into a store, which goes on where a killed run stopped.

Every file holds consecutive items and depends on nothing but them: whichever run or process makes
it makes the same bytes. What is missing is all there is to do.
"""

import json
from collections.abc import Hashable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import distributed

from odmt_sdk.items.extraction import TokenExtractor, nothing_encoded, progress_bar
from odmt_sdk.items.store.files import is_partial, write_tensors, write_text
from odmt_sdk.items.store.ids import StoredVocabulary, write_ids
from odmt_sdk.items.store.manifest import (
    MANIFEST,
    Manifest,
    Segment,
    Shard,
    choose_shard_items,
)
from odmt_sdk.items.store.refusal import check_same_settings
from odmt_sdk.items.store.shard_writing import ShardSummary, read_summary, write_shard
from odmt_sdk.processes import is_distributed, run_together
from odmt_sdk.vocabulary import ItemVocabulary

REPORT = "report.json"
# Texts are quick and shared batches of similar length save time; a picture is a lot of work.
_SMALLEST = {"picture": 64}
_SMALLEST_OTHERS = 512


class RawModality(NamedTuple):
    """The raw values of one modality and what makes tokens of them.

    Args:
        values: position of each item that has a value, with the value.
        extractor: makes the tokens.
    """

    values: Mapping[int, Any]
    extractor: TokenExtractor


def ids_file(num_items: int) -> str:
    """Name of the file with so many item ids."""
    return f"items-{num_items}.safetensors"


def index_file(modality: str, num_items: int) -> str:
    """Name of the file that says where the tokens of so many items are."""
    return f"{modality}/index-{num_items}.safetensors"


def extract_to_store(
    folder: Path,
    vocabulary: ItemVocabulary,
    modalities: Mapping[str, RawModality],
    *,
    dtype: torch.dtype,
    shard_items: int | None,
    progress: bool,
) -> None:
    """Make a store, or complete and extend the one that is there.

    In a distributed run, all ranks call this with the same arguments and share the work.

    Args:
        folder: of the store; it may be new, interrupted, or complete with other items.
        vocabulary: ids of the items given.
        modalities: their raw values, by position in `vocabulary`, from 0.
        dtype: of the tokens.
        shard_items: items per file; None = chosen by their number.
        progress: whether to show progress bars.

    Raises:
        ValueError: if the folder holds something else or a store made in another way, items of an
            interrupted run are not among those given, or no item has one of the modalities.
        OSError: if writing fails; what was written before is kept.
    """
    provenance = {name: part.extractor.provenance for name, part in modalities.items()}
    asked = Manifest(provenance, str(dtype).removeprefix("torch."))
    run_together(_open, folder, asked, alone=True)
    while True:  # what an interrupted run has left or somebody deleted, then items that are new
        run_together(_plan, folder, asked, vocabulary, modalities, shard_items, alone=True)
        manifest = Manifest.read(folder)
        missing = _missing(folder, manifest)
        if manifest.pending is None and not any(missing.values()):
            break
        run_together(lambda: None)  # all ranks have seen the same files
        ids = StoredVocabulary(folder / ids_file(manifest.planned_items))
        for name, part in modalities.items():
            run_together(
                _make, folder / name, missing[name], ids, vocabulary, part, dtype, progress
            )
        run_together(_finish, folder, manifest, modalities, alone=True)
    run_together(_clean, folder, manifest, alone=True)


def _open(folder: Path, asked: Manifest) -> None:
    """Make the folder, or make sure that it holds a store made in the same way."""
    if (folder / MANIFEST).exists():
        check_same_settings(folder, Manifest.read(folder), asked)
        return
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{str(folder)!r} is a file; give the path of a folder to make")
    if folder.exists() and any(
        not is_partial(entry.name) and not entry.name.startswith("items-")
        for entry in folder.iterdir()
    ):
        raise ValueError(
            f"{str(folder)!r} holds something else than item features; give another path"
        )
    folder.mkdir(parents=True, exist_ok=True)


def _plan(
    folder: Path,
    manifest: Manifest,
    vocabulary: ItemVocabulary,
    modalities: Mapping[str, RawModality],
    shard_items: int | None,
) -> None:
    """Write down which items are to be extracted next, if there are any."""
    known: Sequence[Hashable] = ()
    if (folder / MANIFEST).exists():
        manifest = Manifest.read(folder)
        if manifest.pending is not None:
            return
        stored = StoredVocabulary(folder / ids_file(manifest.num_items))
        if stored == vocabulary:
            return
        known = stored.item_ids
    there = set(known)
    new = [item_id for item_id in vocabulary if item_id not in there]
    if not new:
        return
    write_ids(folder / ids_file(len(known) + len(new)), [*known, *new])
    sizes = {}
    for name, part in modalities.items():
        smallest = _SMALLEST.get(part.extractor.unit, _SMALLEST_OTHERS)
        sizes[name] = shard_items or choose_shard_items(len(new), smallest)
    manifest.pending = Segment(len(new), sizes)
    manifest.write(folder)


def _missing(folder: Path, manifest: Manifest) -> dict[str, list[Shard]]:
    return {
        name: [
            shard
            for shard in manifest.shards(name) + manifest.shards(name, pending=True)
            if not (folder / name / shard.name).exists()
        ]
        for name in manifest.provenance
    }


def _make(
    folder: Path,
    shards: Sequence[Shard],
    ids: StoredVocabulary,
    vocabulary: ItemVocabulary,
    part: RawModality,
    dtype: torch.dtype,
    progress: bool,
) -> None:
    """Make this process's share of the files of one modality."""
    rank, ranks = 0, 1
    if is_distributed():
        rank, ranks = distributed.get_rank(), distributed.get_world_size()
    mine = list(shards)[rank::ranks]
    folder.mkdir(exist_ok=True)
    item_ids: dict[int, Hashable] = {}
    values: dict[int, Any] = {}
    for shard in mine:
        positions = range(shard.first, shard.first + shard.items)
        item_ids.update(zip(positions, ids.ids(p + 1 for p in positions), strict=True))
    for position, item_id in item_ids.items():
        found = vocabulary.rows([item_id], unknown="skip")
        if not found:
            raise ValueError(
                f"the features of item {item_id!r} in {str(folder.parent)!r} were never completed, "
                "or have been deleted, and the item is not among those given now: give it again "
                "to complete them, or delete the folder"
            )
        if found[0] - 1 in part.values:
            values[position] = part.values[found[0] - 1]
    groups = [
        [p for p in range(shard.first, shard.first + shard.items) if p in values] for shard in mine
    ]
    unit = part.extractor.unit
    with progress_bar(unit, len(values), progress and rank == 0) as bar:

        def batches() -> Iterator[Any]:
            for group, batch in part.extractor.encode(values, groups):
                bar.update(len(batch.rows) + len(batch.problems))
                yield group, batch

        done = groupby(batches(), key=lambda found: found[0])
        upcoming = next(done, None)
        for number, shard in enumerate(mine):
            encoded = []
            if upcoming is not None and upcoming[0] == number:
                encoded = [batch for _, batch in upcoming[1]]
                upcoming = next(done, None)
            write_shard(
                folder / shard.name,
                encoded,
                first=shard.first,
                count=shard.items,
                item_ids=item_ids,
                unit=unit,
                dtype=dtype,
            )


def _finish(folder: Path, manifest: Manifest, modalities: Mapping[str, RawModality]) -> None:
    """Write the indexes over all files, the report, and that the pending items can be read."""
    if manifest.pending is not None:
        manifest.segments.append(manifest.pending)
        manifest.pending = None
    report: dict[str, Any] = {}
    for name, part in modalities.items():
        summaries = [read_summary(folder / name / shard.name) for shard in manifest.shards(name)]
        report[name] = [problem for summary in summaries for problem in summary.problems]
        if not any(bool(summary.lengths.any()) for summary in summaries):
            reasons = [reason for _, reason in report[name]]
            raise nothing_encoded(part.extractor.unit, manifest.num_items, reasons)
        manifest.statistics[name] = _write_index(
            folder / index_file(name, manifest.num_items), summaries, part.extractor.unit
        )
    write_text(folder / REPORT, json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    manifest.write(folder)


def _write_index(path: Path, summaries: Sequence[ShardSummary], unit: str) -> dict[str, int]:
    widths = {summary.sums.shape[1] for summary in summaries if summary.sums.shape[1]}
    if len(widths) > 1:
        raise ValueError(f"{unit}s have tokens of {sorted(widths)} values, but one width is needed")
    lengths = torch.cat([summary.lengths for summary in summaries]).long()
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    filled = [summary.sums for summary in summaries if summary.sums.shape[1]]
    write_tensors(path, {"offsets": offsets, "sums": torch.stack(filled).sum(0)})
    return {
        "width": widths.pop(),
        "tokens": int(lengths.max()),
        "all_tokens": int(offsets[-1]),
        "items": int((lengths > 0).sum()),
    }


def _clean(folder: Path, manifest: Manifest) -> None:
    """Remove what interrupted runs and smaller catalogues have left behind."""
    kept = {folder / ids_file(manifest.num_items)}
    kept |= {folder / index_file(name, manifest.num_items) for name in manifest.provenance}
    for parent in (folder, *(folder / name for name in manifest.provenance)):
        for path in parent.iterdir():
            old = path.name.startswith(("items-", "index-")) and path not in kept
            if old or is_partial(path.name):
                path.unlink(missing_ok=True)
