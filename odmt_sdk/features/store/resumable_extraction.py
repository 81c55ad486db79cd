"""Extraction into a store on disk, which resumes after an interruption.

Each shard holds consecutive items and depends only on them, so any run or process writes the same
bytes. Resuming means writing the shards that are missing.
"""

import re
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import distributed

from odmt_sdk.features.extractor import (
    EncodedBatch,
    TokenExtractor,
    naming,
    nothing_encoded,
    progress_bar,
    reads_files,
)
from odmt_sdk.features.store.engine import ExtractionEngine, ExtractorRecipe, ShardJob
from odmt_sdk.features.store.ids import StoredVocabulary, write_ids
from odmt_sdk.features.store.manifest import (
    MANIFEST,
    Manifest,
    Segment,
    Shard,
    choose_shard_items,
)
from odmt_sdk.features.store.refusal import check_same_settings
from odmt_sdk.features.store.shard_writing import (
    ShardSummary,
    read_batch,
    read_summary,
    readable_json,
    write_shard,
)
from odmt_sdk.features.store.sources import SourceMarks
from odmt_sdk.files.atomic_files import is_partial, write_tensors, write_text
from odmt_sdk.processes import is_distributed, run_together
from odmt_sdk.vocabulary import ItemVocabulary

REPORT = "report.json"
_OF_STORE = re.compile(r"(items-\d+|index-\d+(-\d+)?|\d{4,}-\d{5,}(-\d+)?)\.safetensors")
# Minimum items per shard. Texts are fast to encode, and large shards allow batches of similar
# length. Images are slow, and small shards lose less work when a run is interrupted.
_SMALLEST = {"picture": 64}
_SMALLEST_OTHERS = 512


class RawModality(NamedTuple):
    """The raw values of one modality and their extractor.

    Args:
        values: position -> value, for the items that have a value.
        extractor: encodes the values into tokens.
        build: makes the same extractor in another process; None = it cannot be made there.
    """

    values: Mapping[int, Any]
    extractor: TokenExtractor
    build: Callable[[], TokenExtractor] | None = None


def ids_file(num_items: int) -> str:
    """Return the name of the file with the ids of `num_items` items."""
    return f"items-{num_items}.safetensors"


def index_file(modality: str, manifest: Manifest) -> str:
    """Return the name of the file with the token offsets of all items."""
    anew = f"-{manifest.revision}" if manifest.revision else ""
    return f"{modality}/index-{manifest.num_items}{anew}.safetensors"


def extract_to_store(
    folder: Path,
    vocabulary: ItemVocabulary,
    modalities: Mapping[str, RawModality],
    *,
    dtype: torch.dtype,
    shard_items: int | None,
    progress: bool,
    engine: ExtractionEngine | None = None,
) -> None:
    """Create a store, or complete and extend an existing one.

    In a distributed run, all ranks call this function with the same arguments and share the work.

    Args:
        folder: folder of the store. It may be new, incomplete, or complete with other items.
        vocabulary: ids of the given items.
        modalities: their raw values, by position in `vocabulary`, counted from 0.
        dtype: storage dtype of the tokens.
        shard_items: items per shard; None = chosen from the number of items.
        progress: whether to show progress bars.
        engine: writes the shards; None = the processes that call this function.

    Raises:
        ValueError: if the folder is not a store or was made with other settings, items of an
            interrupted run are not given again, or a modality has no item.
        OSError: if writing fails; shards already written are kept.
    """
    provenance = {name: part.extractor.provenance for name, part in modalities.items()}
    asked = Manifest(provenance, str(dtype).removeprefix("torch."))
    run_together(_open, folder, asked, alone=True)
    compared = False
    while True:  # missing shards, then new items, then changed items
        run_together(_plan, folder, asked, vocabulary, modalities, shard_items, alone=True)
        manifest = Manifest.read(folder)
        missing = _missing(folder, manifest)
        if manifest.pending is None and not manifest.revising and not any(missing.values()):
            if compared:
                break
            compared = True
            run_together(_compare, folder, manifest, vocabulary, modalities, alone=True)
            manifest = Manifest.read(folder)
            if not manifest.revising:
                break
            missing = _missing(folder, manifest)
        run_together(lambda: None)  # barrier: all ranks have listed the same files
        ids = StoredVocabulary(folder / ids_file(manifest.planned_items))
        if engine is not None:
            jobs = _jobs(folder, missing, ids, vocabulary, modalities, dtype)
            run_together(_run_jobs, engine, modalities, jobs, progress, alone=True)
        else:
            for name, part in modalities.items():
                work = missing[name]
                run_together(_make, folder / name, work, ids, vocabulary, part, dtype, progress)
        run_together(_finish, folder, manifest, modalities, alone=True)
    run_together(_clean, folder, manifest, alone=True)


def _open(folder: Path, asked: Manifest) -> None:
    """Create the folder, or check that it holds a store made with the same settings."""
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
            f"{str(folder)!r} contains something other than item features: pass another path"
        )
    folder.mkdir(parents=True, exist_ok=True)


def _plan(
    folder: Path,
    manifest: Manifest,
    vocabulary: ItemVocabulary,
    modalities: Mapping[str, RawModality],
    shard_items: int | None,
) -> None:
    """Record new items in the manifest as pending, if there are any."""
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


class _Work(NamedTuple):
    """A shard to write.

    Args:
        shard: the shard.
        old: the shard from which to copy unchanged items; None = encode all items.
    """

    shard: Shard
    old: Shard | None


def _missing(folder: Path, manifest: Manifest) -> dict[str, list[_Work]]:
    work: dict[str, list[_Work]] = {}
    for name in manifest.provenance:
        shards = manifest.shards(name) + manifest.shards(name, pending=True)
        work[name] = [_Work(shard, None) for shard in shards]
        work[name] += [_Work(new, old) for old, new in manifest.replaced(name)]
        work[name] = [one for one in work[name] if not (folder / name / one.shard.name).exists()]
    return work


def _compare(
    folder: Path,
    manifest: Manifest,
    vocabulary: ItemVocabulary,
    modalities: Mapping[str, RawModality],
) -> None:
    """Record shards with items whose raw values changed, and warn about these items.

    An item whose file cannot be read any more keeps its features: its disk may only be out of
    reach.
    """
    ids = StoredVocabulary(folder / ids_file(manifest.num_items))
    given = vocabulary.rows(ids, unknown="skip")
    there = ids.rows(vocabulary.ids(given))
    positions = {row - 1: number - 1 for row, number in zip(there, given, strict=True)}
    for name, part in modalities.items():
        marks = SourceMarks(part.values, is_path=reads_files(part.extractor))
        changed: list[int] = []
        gone: list[int] = []
        for shard in manifest.shards(name):
            stored = read_summary(folder / name / shard.name, shard.items).marks
            here = [p for p in range(shard.first, shard.first + shard.items) if p in positions]
            given_here = [positions[p] for p in here]
            stored_here = stored[:, [p - shard.first for p in here]]
            gone += marks.gone(given_here, stored_here)
            found = marks.changed(given_here, stored_here)
            if found:
                revision = manifest.revisions.get(name, {}).get(shard.stem, 0) + 1
                manifest.revising.setdefault(name, {})[shard.stem] = revision
                changed += found
        if changed:
            _warn(
                f"{len(changed)} {part.extractor.unit}s have changed since the folder was made and "
                f"are encoded again, for items {_named(vocabulary, changed)}. A model that was "
                "trained with the old features still expects them"
            )
        if gone:
            _warn(
                f"{len(gone)} {part.extractor.unit}s cannot be read any more, of items "
                f"{_named(vocabulary, gone)}: their features in the folder are kept. Leave the "
                "cell of an item empty to remove its features"
            )
    if manifest.revising:
        manifest.write(folder)


def _named(vocabulary: ItemVocabulary, positions: Sequence[int]) -> str:
    shown = ", ".join(map(repr, vocabulary.ids(p + 1 for p in positions[:5])))
    return shown + (", ..." if len(positions) > 5 else "")


def _warn(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=7)


class _ShardJob(NamedTuple):
    """A shard to write in another process.

    Args:
        folder: folder of the store.
        modality: name of the modality.
        work: the shard.
        ids_file: name of the file of ids.
        item_ids: the items of the shard that are given.
        values: position in `item_ids` -> value, for the items that have a value.
        dtype: storage dtype of the tokens.
    """

    folder: Path
    modality: str
    work: _Work
    ids_file: str
    item_ids: list[Hashable]
    values: dict[int, Any]
    dtype: torch.dtype

    @property
    def size(self) -> int:
        return len(self.values)

    def write(self, extractor: TokenExtractor) -> None:
        _make(
            self.folder / self.modality,
            [self.work],
            StoredVocabulary(self.folder / self.ids_file),
            ItemVocabulary(self.item_ids),
            RawModality(self.values, extractor),
            self.dtype,
            False,
        )


def _jobs(
    folder: Path,
    missing: Mapping[str, Sequence[_Work]],
    ids: StoredVocabulary,
    vocabulary: ItemVocabulary,
    modalities: Mapping[str, RawModality],
    dtype: torch.dtype,
) -> list[ShardJob]:
    """Give each missing shard its raw values."""
    jobs: list[ShardJob] = []
    for name, works in missing.items():
        values = modalities[name].values
        (folder / name).mkdir(exist_ok=True)
        for work in works:
            first, count = work.shard.first, work.shard.items
            named = ids.ids(range(first + 1, first + count + 1))
            rows = vocabulary.rows(named, unknown="skip")
            if work.old is None and len(rows) < count:
                raise _never_completed(next(i for i in named if i not in vocabulary), folder)
            here = {n: values[row - 1] for n, row in enumerate(rows) if row - 1 in values}
            ids_name = ids_file(len(ids))
            given = vocabulary.ids(rows)
            jobs.append(_ShardJob(folder, name, work, ids_name, given, here, dtype))
    return jobs


def _run_jobs(
    engine: ExtractionEngine,
    modalities: Mapping[str, RawModality],
    jobs: Sequence[ShardJob],
    progress: bool,
) -> None:
    recipes = {}
    for name, part in modalities.items():
        if part.build is None:
            raise ValueError(
                f"the extractor of {name!r} cannot be created by a worker of an engine"
            )
        recipes[name] = ExtractorRecipe(part.build, part.extractor.provenance)
    with progress_bar("value", sum(job.size for job in jobs), progress) as bar:
        for done in engine.run(recipes, jobs):
            bar.update(done)


def _never_completed(item_id: Hashable, folder: Path) -> ValueError:
    return ValueError(
        f"the features of item {item_id!r} in {str(folder)!r} were not completed or have been "
        "deleted, and the item is not among the given ones: pass it again to complete the "
        "features, or delete the folder. If another process is writing to the folder, let it "
        "finish first"
    )


def _make(
    folder: Path,
    work: Sequence[_Work],
    ids: StoredVocabulary,
    vocabulary: ItemVocabulary,
    part: RawModality,
    dtype: torch.dtype,
    progress: bool,
) -> None:
    """Write this process's share of the shards of one modality."""
    rank, ranks = 0, 1
    if is_distributed():
        rank, ranks = distributed.get_rank(), distributed.get_world_size()
    mine = list(work)[rank::ranks]
    folder.mkdir(exist_ok=True)
    unit = part.extractor.unit
    item_ids: dict[int, Hashable] = {}  # by position in the store
    values: dict[int, Any] = {}
    marks: dict[int, torch.Tensor] = {}  # (2,)
    kept: dict[Shard, set[int]] = {}  # positions that are taken over
    given = SourceMarks(part.values, is_path=reads_files(part.extractor))
    for shard, old in mine:
        positions = range(shard.first, shard.first + shard.items)
        named = dict(zip(positions, ids.ids(p + 1 for p in positions), strict=True))
        item_ids.update(named)
        places = {
            p: found[0] - 1
            for p, item_id in named.items()
            if (found := vocabulary.rows([item_id], unknown="skip"))
        }
        kept[shard] = set()
        if old is not None:
            stored = read_summary(folder / old.name, old.items).marks
            here = list(places)
            marked = stored[:, [p - shard.first for p in here]]
            changed = set(given.changed([places[p] for p in here], marked))
            kept[shard] = {p for p in positions if places.get(p) not in changed}
            marks.update({p: stored[:, p - shard.first] for p in kept[shard]})
        for position in positions:
            if position in kept[shard]:
                continue
            if position not in places:
                raise _never_completed(item_ids[position], folder.parent)
            marks[position] = given.of([places[position]])[:, 0]
            if places[position] in part.values:
                values[position] = part.values[places[position]]
    groups = [
        [p for p in range(shard.first, shard.first + shard.items) if p in values]
        for shard, _ in mine
    ]
    with progress_bar(unit, len(values), progress and rank == 0) as bar:

        def batches() -> Iterator[Any]:
            for group, batch in naming(part.extractor.encode(values, groups), unit, item_ids):
                bar.update(len(batch.rows) + len(batch.problems))
                yield group, batch

        done = groupby(batches(), key=lambda found: found[0])
        upcoming = next(done, None)
        for number, (shard, old) in enumerate(mine):
            encoded = []
            if upcoming is not None and upcoming[0] == number:
                encoded = [batch for _, batch in upcoming[1]]
                upcoming = next(done, None)
            if old is not None:
                encoded.append(_taken_over(folder / old.name, shard, kept[shard], item_ids, dtype))
            positions = range(shard.first, shard.first + shard.items)
            write_shard(
                folder / shard.name,
                encoded,
                first=shard.first,
                count=shard.items,
                item_ids=item_ids,
                marks=torch.stack([marks[p] for p in positions], 1),
                unit=unit,
                dtype=dtype,
            )


def _taken_over(
    path: Path,
    shard: Shard,
    kept: set[int],
    item_ids: Mapping[int, Hashable],
    dtype: torch.dtype,
) -> EncodedBatch:
    """Read the unchanged items of a shard."""
    positions = set(range(shard.first, shard.first + shard.items))
    reasons = dict(read_summary(path, shard.items).problems)
    problems = {p: reasons[item_ids[p]] for p in kept if item_ids[p] in reasons}
    return read_batch(path, shard.first, shard.items, dtype, positions - kept)._replace(
        problems=problems
    )


def _finish(folder: Path, manifest: Manifest, modalities: Mapping[str, RawModality]) -> None:
    """Write the indexes and the report, and mark the pending items as complete."""
    if manifest.pending is not None:
        manifest.segments.append(manifest.pending)
        manifest.pending = None
    if manifest.revising:
        manifest.revision += 1
        for name, anew in manifest.revising.items():
            manifest.revisions.setdefault(name, {}).update(anew)
        manifest.revising = {}
    report: dict[str, Any] = {}
    for name, part in modalities.items():
        summaries = [
            read_summary(folder / name / shard.name, shard.items) for shard in manifest.shards(name)
        ]
        report[name] = [problem for summary in summaries for problem in summary.problems]
        if not any(bool(summary.lengths.any()) for summary in summaries):
            reasons = [reason for _, reason in report[name]]
            raise nothing_encoded(part.extractor.unit, manifest.num_items, reasons)
        manifest.statistics[name] = _write_index(
            folder / index_file(name, manifest), summaries, part.extractor.unit
        )
    write_text(folder / REPORT, readable_json(report, indent=1) + "\n")
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
    """Delete files left by interrupted runs and by earlier, smaller catalogues."""
    kept = {folder / ids_file(manifest.num_items)}
    for name in manifest.provenance:
        kept.add(folder / index_file(name, manifest))
        kept |= {folder / name / shard.name for shard in manifest.shards(name)}
    for parent in (folder, *(folder / name for name in manifest.provenance)):
        for path in parent.iterdir():
            old = _OF_STORE.fullmatch(path.name) and path not in kept
            if old or is_partial(path.name):
                path.unlink(missing_ok=True)
