"""What the JSON file of a store says: how many items, in which files, made by which encoders."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from odmt_sdk.items.store.files import write_text

MANIFEST = "features.json"
LIBRARY = "odmt-sdk"
KIND = "item features"
FORMAT_VERSION = 1
# A run that is killed loses at most this part of its work, where shards are not at their smallest.
_SHARDS = 64
_MAX_SHARD_ITEMS = 4096


class Shard(NamedTuple):
    """A file with the tokens of consecutive items.

    Args:
        name: of the file, in the folder of its modality.
        first: position of its first item, counted from 0.
        items: how many it is for.
    """

    name: str
    first: int
    items: int


@dataclass(frozen=True)
class Segment:
    """Items that came in one call.

    Args:
        items: how many.
        shard_items: modality -> items per file.
    """

    items: int
    shard_items: Mapping[str, int]


@dataclass
class Manifest:
    """The content of the JSON file.

    Args:
        provenance: modality -> encoder, revision, preprocessing, ...
        dtype: of the tokens, such as "float16".
        segments: the items that can be read.
        pending: items whose extraction is not complete.
        statistics: modality -> width, tokens of the longest item, tokens in all, items with any.

    Examples:
        >>> Manifest({"text": {"encoder": "bert"}}, "float16").num_items
        0
    """

    provenance: dict[str, dict[str, Any]]
    dtype: str
    segments: list[Segment] = field(default_factory=list)
    pending: Segment | None = None
    statistics: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def num_items(self) -> int:
        """How many items can be read."""
        return sum(segment.items for segment in self.segments)

    @property
    def planned_items(self) -> int:
        """How many items there are with those that are pending."""
        return self.num_items + (self.pending.items if self.pending else 0)

    def shards(self, modality: str, *, pending: bool = False) -> list[Shard]:
        """The files of one modality.

        Args:
            modality: its name.
            pending: those of the pending items only, in place of those that can be read.

        Returns:
            The files in the order of their items.
        """
        shards, first = [], 0
        for number, segment in enumerate(self.segments):
            shards += _shards_of(segment, modality, number, first)
            first += segment.items
        if not pending:
            return shards
        if self.pending is None:
            return []
        return _shards_of(self.pending, modality, len(self.segments), first)

    def write(self, folder: Path) -> None:
        """Write the file, whole or not at all.

        Args:
            folder: of the store.

        Raises:
            OSError: if that fails.
        """
        content = {
            "library_name": LIBRARY,
            "kind": KIND,
            "format_version": FORMAT_VERSION,
            "num_items": self.num_items,
            "dtype": self.dtype,
            "segments": [vars(segment) for segment in self.segments],
            "pending": vars(self.pending) if self.pending else None,
            "modalities": {
                name: {**self.statistics.get(name, {}), **provenance}
                for name, provenance in self.provenance.items()
            },
        }
        write_text(folder / MANIFEST, json.dumps(content, indent=2, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Read the file.

        Args:
            folder: of the store.

        Returns:
            Its content.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if it is not that of a store, of another version, or damaged.
        """
        try:
            content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise FileNotFoundError(
                f"there are no item features in {str(folder)!r}: it has no {MANIFEST}. "
                "ItemFeatures.from_items(items, ..., path=...) makes such a folder"
            ) from None
        except ValueError as error:
            raise ValueError(f"{folder / MANIFEST} is damaged: {error}") from error
        if not isinstance(content, dict) or content.get("kind") != KIND:
            raise ValueError(f"{folder / MANIFEST} was not written by {LIBRARY}")
        if content.get("format_version") != FORMAT_VERSION:
            raise ValueError(
                f"the item features in {str(folder)!r} have format "
                f"{content.get('format_version')!r}, this version of {LIBRARY} reads format "
                f"{FORMAT_VERSION}: upgrade {LIBRARY}, or extract them anew"
            )
        try:
            statistics, provenance = {}, {}
            for name, entry in content["modalities"].items():
                statistics[name] = {key: entry.pop(key) for key in STATISTICS if key in entry}
                provenance[name] = entry
            pending = content["pending"]
            return cls(
                provenance,
                content["dtype"],
                [Segment(**segment) for segment in content["segments"]],
                Segment(**pending) if pending else None,
                statistics,
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{folder / MANIFEST} is damaged: {error!r}") from error


STATISTICS = ("width", "tokens", "all_tokens", "items")


def _shards_of(segment: Segment, modality: str, number: int, first: int) -> list[Shard]:
    size = segment.shard_items[modality]
    return [
        Shard(
            f"{number:04d}-{index:05d}.safetensors",
            first + start,
            min(size, segment.items - start),
        )
        for index, start in enumerate(range(0, segment.items, size))
    ]


def choose_shard_items(items: int, smallest: int) -> int:
    """Items per file: a power of two, so that about 64 files hold them all.

    Args:
        items: how many there are.
        smallest: at least so many.

    Returns:
        At most 4096, which bounds the memory that a file takes while it is made.
    """
    wanted = max(1, math.ceil(items / _SHARDS))
    return min(_MAX_SHARD_ITEMS, max(smallest, 1 << (wanted - 1).bit_length()))
