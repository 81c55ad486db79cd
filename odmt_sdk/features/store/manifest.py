"""The manifest of a store: a JSON file with its items, shards and encoders."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from odmt_sdk.features.modality import check_name
from odmt_sdk.features.store.reading import read_object
from odmt_sdk.files.atomic_files import write_text

MANIFEST = "features.json"
LIBRARY = "odmt-sdk"
KIND = "item features"
# Version 2 adds shards that were rewritten because raw values changed.
FORMAT_VERSION = 2
MAX_MANIFEST_BYTES = 16 << 20
MAX_ITEMS = 1 << 40
MAX_TOKENS = 1 << 24  # per item
MAX_WIDTH = 1 << 24
DTYPES = ("float32", "float16", "bfloat16")
# Number of shards to aim for. An interrupted run loses the work of at most one shard per process.
_SHARDS = 64
_MAX_SHARD_ITEMS = 4096


class Shard(NamedTuple):
    """A file with the tokens of consecutive items.

    Args:
        name: file name, in the folder of its modality.
        first: position of its first item, counted from 0.
        items: number of items it covers.
    """

    name: str
    first: int
    items: int

    @property
    def stem(self) -> str:
        """The file name without its revision and extension."""
        return "-".join(self.name.partition(".")[0].split("-")[:2])


@dataclass(frozen=True)
class Segment:
    """Items that were added in one call.

    Args:
        items: number of items.
        shard_items: modality -> items per shard.
    """

    items: int
    shard_items: Mapping[str, int]


@dataclass
class Manifest:
    """The content of a store's manifest file.

    Args:
        provenance: modality -> encoder, revision, preprocessing, ...
        dtype: dtype of the tokens, such as "float16".
        segments: the completed items.
        pending: items whose extraction is incomplete.
        statistics: modality -> width, tokens of the longest item, total number of tokens, number of
            items with tokens.
        revisions: modality -> shard stem -> how often the shard was rewritten because raw values
            changed.
        revising: the same for shards that are being rewritten.
        revision: how often the indexes were rewritten for that reason.

    Examples:
        >>> Manifest({"text": {"encoder": "bert"}}, "float16").num_items
        0
    """

    provenance: dict[str, dict[str, Any]]
    dtype: str
    segments: list[Segment] = field(default_factory=list)
    pending: Segment | None = None
    statistics: dict[str, dict[str, int]] = field(default_factory=dict)
    revisions: dict[str, dict[str, int]] = field(default_factory=dict)
    revising: dict[str, dict[str, int]] = field(default_factory=dict)
    revision: int = 0

    @property
    def num_items(self) -> int:
        """Number of completed items."""
        return sum(segment.items for segment in self.segments)

    @property
    def planned_items(self) -> int:
        """Number of items including pending ones."""
        return self.num_items + (self.pending.items if self.pending else 0)

    def shards(self, modality: str, *, pending: bool = False) -> list[Shard]:
        """List the shards of one modality.

        Args:
            modality: name of the modality.
            pending: list the shards of the pending items instead of the completed ones.

        Returns:
            The shards in item order.
        """
        shards, first = [], 0
        for number, segment in enumerate(self.segments):
            shards += _shards_of(segment, modality, number, first, self.revisions)
            first += segment.items
        if not pending:
            return shards
        if self.pending is None:
            return []
        return _shards_of(self.pending, modality, len(self.segments), first, {})

    def replaced(self, modality: str) -> list[tuple[Shard, Shard]]:
        """List the shards that are being rewritten.

        Args:
            modality: name of the modality.

        Returns:
            Pairs of the current shard and the shard that will replace it.
        """
        anew = self.revising.get(modality, {})
        return [
            (shard, shard._replace(name=_file(shard.stem, anew[shard.stem])))
            for shard in self.shards(modality)
            if shard.stem in anew
        ]

    def write(self, folder: Path) -> None:
        """Write the manifest atomically.

        Args:
            folder: folder of the store.

        Raises:
            OSError: if writing fails.
        """
        version = 2 if self.revisions or self.revising else 1
        content: dict[str, Any] = {
            "library_name": LIBRARY,
            "kind": KIND,
            "format_version": version,
            "num_items": self.num_items,
            "dtype": self.dtype,
            "segments": [vars(segment) for segment in self.segments],
            "pending": vars(self.pending) if self.pending else None,
            "modalities": {
                name: {**self.statistics.get(name, {}), **provenance}
                for name, provenance in self.provenance.items()
            },
        }
        if version > 1:
            content["revision"] = self.revision
            content["revisions"], content["revising"] = self.revisions, self.revising
        write_text(folder / MANIFEST, json.dumps(content, indent=2, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Read and check the manifest.

        Args:
            folder: folder of the store.

        Returns:
            The manifest.

        Raises:
            FileNotFoundError: if the folder has no manifest.
            ValueError: if the file is not the manifest of a store, has an unsupported version, or
                is damaged.
        """
        try:
            content = read_object(folder / MANIFEST, max_bytes=MAX_MANIFEST_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            raise FileNotFoundError(
                f"there are no item features in {str(folder)!r}: it has no {MANIFEST}. Create such "
                "a folder with ItemFeatures.from_items(items, ..., path=...)"
            ) from None
        if content.get("kind") != KIND:
            raise ValueError(f"{folder / MANIFEST} was not written by {LIBRARY}")
        version = content.get("format_version")
        if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
            raise ValueError(
                f"the item features in {str(folder)!r} have format {str(version)[:20]}, but this "
                f"version of {LIBRARY} reads formats 1 to {FORMAT_VERSION}: upgrade {LIBRARY}, or "
                "extract them again"
            )
        try:
            return _manifest(content)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{folder / MANIFEST} is damaged: {error}") from error


# Statistics of a modality, with their maximum valid values.
STATISTICS = {
    "width": MAX_WIDTH,
    "tokens": MAX_TOKENS,
    "all_tokens": MAX_ITEMS,
    "items": MAX_ITEMS,
}


def _shards_of(
    segment: Segment,
    modality: str,
    number: int,
    first: int,
    revisions: Mapping[str, Mapping[str, int]],
) -> list[Shard]:
    size, anew = segment.shard_items[modality], revisions.get(modality, {})
    shards = []
    for index, start in enumerate(range(0, segment.items, size)):
        stem = f"{number:04d}-{index:05d}"
        name = _file(stem, anew.get(stem, 0))
        shards.append(Shard(name, first + start, min(size, segment.items - start)))
    return shards


def _file(stem: str, revision: int) -> str:
    return f"{stem}-{revision}.safetensors" if revision else f"{stem}.safetensors"


def _manifest(content: dict[str, Any]) -> Manifest:
    """Build a manifest from JSON and check every value."""
    if content.get("dtype") not in DTYPES:
        raise ValueError(f"dtype={_shown(content.get('dtype'))} must be one of {DTYPES}")
    provenance, statistics = {}, {}
    for name, entry in _object(content, "modalities").items():
        check_name(name)
        if not isinstance(entry, dict):
            raise TypeError(f"modality {name!r} is {_shown(entry)}, not an object")
        statistics[name] = {
            key: _number(entry, key, most=most) for key, most in STATISTICS.items() if key in entry
        }
        provenance[name] = {key: value for key, value in entry.items() if key not in STATISTICS}
    if not provenance:
        raise ValueError("it names no modality")
    segments = content.get("segments")
    if not isinstance(segments, list):
        raise TypeError(f"segments={_shown(segments)} must be a list")
    pending = content.get("pending")
    found = Manifest(
        provenance,
        content["dtype"],
        [_segment(segment, provenance) for segment in segments],
        None if pending is None else _segment(pending, provenance),
        statistics,
        _revisions(content, "revisions"),
        _revisions(content, "revising"),
        _number(content, "revision", most=MAX_ITEMS) if "revision" in content else 0,
    )
    lacking = [name for name in provenance if set(statistics[name]) != set(STATISTICS)]
    if found.num_items and lacking:
        raise ValueError(f"modality {lacking[0]!r} lacks one of {list(STATISTICS)}")
    return found


def _segment(content: Any, modalities: Mapping[str, Any]) -> Segment:
    if not isinstance(content, dict):
        raise TypeError(f"a segment is {_shown(content)}, not an object")
    sizes = _object(content, "shard_items")
    if set(sizes) != set(modalities):
        raise ValueError("a segment does not have one shard_items for each modality")
    return Segment(
        _number(content, "items", least=1, most=MAX_ITEMS),
        {name: _number(sizes, name, least=1, most=MAX_ITEMS) for name in sizes},
    )


def _revisions(content: Mapping[str, Any], key: str) -> dict[str, dict[str, int]]:
    found = _object(content, key) if key in content else {}
    return {
        name: {stem: _number(_object(found, name), stem, least=1, most=MAX_ITEMS) for stem in inner}
        for name, inner in found.items()
    }


def _object(content: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = content.get(key)
    if not isinstance(value, dict):
        raise TypeError(f"{key}={_shown(value)} must be an object")
    return value


def _number(content: Mapping[str, Any], key: str, *, least: int = 0, most: int) -> int:
    value = content.get(key)
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{key}={_shown(value)} must be a whole number in {least}..{most}")
    return value


def _shown(value: object) -> str:
    return repr(value)[:40]


def choose_shard_items(items: int, smallest: int) -> int:
    """Choose the number of items per shard: a power of two that gives about 64 shards.

    Args:
        items: total number of items.
        smallest: minimum number of items per shard.

    Returns:
        The number, at most 4096, which bounds the memory needed to write a shard.
    """
    wanted = max(1, math.ceil(items / _SHARDS))
    return min(_MAX_SHARD_ITEMS, max(smallest, 1 << (wanted - 1).bit_length()))
