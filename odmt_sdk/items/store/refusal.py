"""Whether a store was made in the way that is asked for now."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from odmt_sdk.items.store.manifest import Manifest

# A folder may have been moved, and a name on the Hub may stand for a new revision of the same
# weights: what the weights are decides, their names are for people.
_NAMES = ("encoder", "revision")


def check_same_settings(folder: Path, stored: Manifest, asked: Manifest) -> None:
    """Refuse to add to a store what would not fit it.

    Args:
        folder: of the store.
        stored: what it was made with.
        asked: what is to be used now.

    Raises:
        ValueError: if anything differs that decides what tokens are; the message names it all.
    """
    differences = []
    if list(stored.provenance) != list(asked.provenance):
        differences.append(
            f"modalities are {list(stored.provenance)}, now {list(asked.provenance)}"
        )
    if stored.dtype != asked.dtype:
        differences.append(f"dtype is {stored.dtype}, now {asked.dtype}")
    for name in stored.provenance.keys() & asked.provenance.keys():
        differences += _differences(name, stored.provenance[name], asked.provenance[name])
    if differences:
        raise ValueError(
            f"the features in {str(folder)!r} were made in another way: {'; '.join(differences)}. "
            "Give the settings they were made with, another path, or delete the folder"
        )


def _differences(where: str, stored: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    found = []
    for key in dict.fromkeys([*stored, *asked]):
        before, now = stored.get(key), asked.get(key)
        if isinstance(before, dict) and isinstance(now, dict):
            found += _differences(f"{where} {key}", before, now)
        elif before != now and key not in _NAMES:
            found.append(f"{where} {key} is {before!r}, now {now!r}")
    names = [(stored.get(key), asked.get(key)) for key in _NAMES if key in stored or key in asked]
    if found and any(before != now for before, now in names):
        found += [
            f"{where} {key} is {stored.get(key)!r}, now {asked.get(key)!r}"
            for key in _NAMES
            if stored.get(key) != asked.get(key)
        ]
    return found
