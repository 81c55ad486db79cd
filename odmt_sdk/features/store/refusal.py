"""Checks that a store was made with the settings of the current call."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from odmt_sdk.features.store.manifest import Manifest

# Compare weights rather than names: a folder may have been moved, and a new revision on the Hub may
# have the same weights.
_NAMES = ("encoder", "revision")


def check_same_settings(folder: Path, stored: Manifest, asked: Manifest) -> None:
    """Raise if the store was made with settings that give different tokens.

    Args:
        folder: folder of the store.
        stored: the settings it was made with.
        asked: the settings of the current call.

    Raises:
        ValueError: if a setting that affects the tokens differs. The message lists all of them.
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
            "Pass the settings that they were made with or another path, or delete the folder"
        )


def _differences(where: str, stored: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    found = []
    by_weights = (
        "weights" in stored or "weights" in asked
    )  # without weights, only names can be compared
    for key in dict.fromkeys([*stored, *asked]):
        before, now = stored.get(key), asked.get(key)
        if isinstance(before, dict) and isinstance(now, dict):
            found += _differences(f"{where} {key}", before, now)
        elif before != now and not (by_weights and key in _NAMES):
            found.append(f"{where} {key} is {before!r}, now {now!r}")
    names = [(stored.get(key), asked.get(key)) for key in _NAMES if key in stored or key in asked]
    if by_weights and found and any(before != now for before, now in names):
        found += [
            f"{where} {key} is {stored.get(key)!r}, now {asked.get(key)!r}"
            for key in _NAMES
            if stored.get(key) != asked.get(key)
        ]
    return found
