"""Opens a store in milliseconds, independent of its size."""

from collections.abc import Hashable
from pathlib import Path
from typing import NamedTuple

import torch

from odmt_sdk.features.report import ExtractionReport
from odmt_sdk.features.store.ids import StoredVocabulary
from odmt_sdk.features.store.manifest import MAX_ITEMS, Manifest
from odmt_sdk.features.store.reading import Kind, read_object, read_tensors
from odmt_sdk.features.store.resumable_extraction import REPORT, ids_file, index_file
from odmt_sdk.features.store.stored_tokens import ShardFiles, StoredTokens

MAX_REPORT_BYTES = 1 << 28  # about two million unreadable images


class OpenedStore(NamedTuple):
    """The content of a store, read on demand.

    Args:
        vocabulary: the item ids.
        modalities: modality -> tokens.
        manifest: how the tokens were made.
    """

    vocabulary: StoredVocabulary
    modalities: dict[str, StoredTokens]
    manifest: Manifest


def open_store(folder: Path) -> OpenedStore:
    """Open a store.

    Args:
        folder: folder of the store.

    Returns:
        Its content.

    Raises:
        FileNotFoundError: if the folder has no store.
        ValueError: if no extraction into it was completed, or the store is damaged.
    """
    manifest = Manifest.read(folder)
    if manifest.num_items == 0:
        raise ValueError(
            f"extraction into {str(folder)!r} is not complete: call ItemFeatures.from_items again "
            "with the same arguments to continue where it stopped"
        )
    try:
        vocabulary = StoredVocabulary(folder / ids_file(manifest.num_items))
        if len(vocabulary) != manifest.num_items:
            raise ValueError(f"it has {len(vocabulary)} ids for {manifest.num_items} items")
        modalities = {name: _open_modality(folder, name, manifest) for name in manifest.provenance}
    except (OSError, ValueError) as error:
        raise ValueError(f"the item features in {str(folder)!r} are damaged: {error}") from error
    return OpenedStore(vocabulary, modalities, manifest)


def _open_modality(folder: Path, name: str, manifest: Manifest) -> StoredTokens:
    path = folder / index_file(name, manifest)
    tensors, _ = read_tensors(path, {"offsets": Kind(torch.int64), "sums": Kind(torch.float64, 2)})
    offsets, sums, said = tensors["offsets"], tensors["sums"], manifest.statistics[name]
    if len(offsets) != manifest.num_items + 1:
        raise ValueError(f"{path} is for {len(offsets) - 1} items, not {manifest.num_items}")
    lengths = offsets.diff()
    found = {
        "width": sums.shape[1],
        "tokens": int(lengths.max()),
        "all_tokens": int(offsets[-1]),
        "items": int((lengths > 0).sum()),
    }
    if int(offsets[0]) or int(lengths.min()) < 0 or found["all_tokens"] > MAX_ITEMS:
        raise ValueError(f"{path} is damaged: its offsets do not rise from 0")
    if found != said or sums.shape[0] != 2 or not sums.isfinite().all():
        raise ValueError(f"{path} has {found}, features.json says {said}: files were mixed")
    shards = manifest.shards(name)
    ends = offsets[torch.tensor([shard.first + shard.items for shard in shards])]
    starts = offsets[torch.tensor([shard.first for shard in shards])]
    dtype = getattr(torch, manifest.dtype)
    return StoredTokens(
        ShardFiles(folder / name, shards, (ends - starts).tolist(), said["width"], dtype),
        offsets,
        said["width"],
        dtype,
        said["tokens"],
        sums,
    )


def read_report(folder: Path) -> ExtractionReport:
    """Read the report of an extraction.

    Args:
        folder: folder of a complete store.

    Returns:
        The report over all items in it.

    Raises:
        ValueError: if the report is missing or damaged.
    """
    manifest, path = Manifest.read(folder), folder / REPORT
    try:
        content = read_object(path, max_bytes=MAX_REPORT_BYTES)
    except OSError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    problems: dict[str, dict[Hashable, str]] = {}
    for name in manifest.provenance:
        entries = content.get(name)
        if not isinstance(entries, list) or not all(map(_is_problem, entries)):
            raise ValueError(f"{path} is damaged: it does not list problems of {name!r}")
        problems[name] = {item_id: reason for item_id, reason in entries}
    present = {name: entry["items"] for name, entry in manifest.statistics.items()}
    return ExtractionReport(manifest.num_items, present, problems)


def _is_problem(entry: object) -> bool:
    """Check that an entry is a pair of item id and text."""
    return (
        isinstance(entry, list)
        and len(entry) == 2
        and type(entry[0]) in (str, int)
        and isinstance(entry[1], str)
    )
