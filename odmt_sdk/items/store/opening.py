"""Opening a store: milliseconds, whatever its size."""

import json
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open

from odmt_sdk.items.report import ExtractionReport
from odmt_sdk.items.store.extract import REPORT, ids_file, index_file
from odmt_sdk.items.store.ids import StoredVocabulary
from odmt_sdk.items.store.manifest import Manifest
from odmt_sdk.items.store.mapped_tokens import MappedTokens, ShardFiles


class OpenedStore(NamedTuple):
    """What a store holds, read when it is asked for.

    Args:
        vocabulary: the item ids.
        modalities: modality -> tokens.
        manifest: how they were made.
    """

    vocabulary: StoredVocabulary
    modalities: dict[str, MappedTokens]
    manifest: Manifest


def open_store(folder: Path) -> OpenedStore:
    """Open a store.

    Args:
        folder: of the store.

    Returns:
        Its content.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if no extraction into it was completed, or it is damaged.
    """
    manifest = Manifest.read(folder)
    if manifest.num_items == 0:
        raise ValueError(
            f"extraction into {str(folder)!r} is not complete: call ItemFeatures.from_items again "
            "with the same arguments, and it goes on where it stopped"
        )
    try:
        vocabulary = StoredVocabulary(folder / ids_file(manifest.num_items))
        modalities = {name: _open_modality(folder, name, manifest) for name in manifest.provenance}
    except (OSError, KeyError, AttributeError, SafetensorError) as error:
        raise ValueError(f"the item features in {str(folder)!r} are damaged: {error}") from error
    return OpenedStore(vocabulary, modalities, manifest)


def _open_modality(folder: Path, name: str, manifest: Manifest) -> MappedTokens:
    with safe_open(folder / index_file(name, manifest.num_items), framework="pt") as file:
        offsets, sums = file.get_tensor("offsets"), file.get_tensor("sums")
    statistics = manifest.statistics[name]
    return MappedTokens(
        ShardFiles(folder / name, manifest.shards(name)),
        offsets,
        statistics["width"],
        getattr(torch, manifest.dtype),
        statistics["tokens"],
        sums,
    )


def read_report(folder: Path) -> ExtractionReport:
    """Read what became of the raw values.

    Args:
        folder: of a store that is complete.

    Returns:
        The report over all items in it.

    Raises:
        ValueError: if the report is missing or damaged.
    """
    manifest = Manifest.read(folder)
    try:
        problems = json.loads((folder / REPORT).read_text(encoding="utf-8"))
        return ExtractionReport(
            manifest.num_items,
            {name: entry["items"] for name, entry in manifest.statistics.items()},
            {name: dict(map(tuple, entries)) for name, entries in problems.items()},
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / REPORT} is damaged: {error!r}") from error
