"""How a `config.json` of an older format becomes one of today's.

A table of what was renamed, version by version. A folder of each released version is kept in
`tests/saving/formats` and has to load for ever.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from odmt_sdk.errors import AdapterError
from odmt_sdk.saving.layout import FORMAT_VERSION, LIBRARY


@dataclass(frozen=True)
class Renames:
    """What changed from one version to the next.

    Args:
        keys: dotted path in `config.json` -> the path where the value is now.
        settings: setting of the model -> its name now.
        weights: weight -> its name now; what is named stands for all that lies below it too.
        implied: dotted path -> the value that went without saying.
    """

    keys: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    weights: Mapping[str, str] = field(default_factory=dict)
    implied: Mapping[str, Any] = field(default_factory=dict)


# Settings that came without a new version -> what their absence means.
ABSENT: dict[str, Any] = {"scale_inputs": False}

# Version -> what to rename to get to the next one.
RENAMES: dict[int, Renames] = {
    1: Renames(
        keys={"backbone": "backbone.name"},
        implied={
            "files.model": ["model.safetensors"],
            "files.items": ["items.json"],
            "files.item_embeddings": ["item_embeddings.safetensors"],
            "model.token_norm": False,
            "model.shortcut": False,
        },
    ),
}


def migrate(config: Mapping[str, Any], *, where: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Bring a configuration to today's format.

    Args:
        config: content of a `config.json` of this library.
        where: the folder, for messages.

    Returns:
        The configuration, and the renamed weights, old name -> new name.

    Raises:
        AdapterError: if the version is unknown.
    """
    version = config.get("format_version")
    if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
        newer = type(version) is int and version > FORMAT_VERSION
        raise AdapterError(
            f"the adapter in {where} has format {str(version)[:20]}, but this version of "
            f"{LIBRARY} reads formats 1 to {FORMAT_VERSION}: "
            + (f"upgrade {LIBRARY}" if newer else "it is damaged; save or download it again")
        )
    current = copy.deepcopy(dict(config))
    weights: dict[str, str] = {}
    for step in range(version, FORMAT_VERSION):
        renames = RENAMES[step]
        for old, new in renames.keys.items():
            if old in current:
                _put(current, new, current.pop(old))
        settings = current.get("model")
        if isinstance(settings, dict):
            for old, new in renames.settings.items():
                if old in settings:
                    settings[new] = settings.pop(old)
        for path, value in renames.implied.items():
            _put(current, path, value)
        weights = {old: renames.weights.get(new, new) for old, new in weights.items()}
        weights = {**renames.weights, **weights}
    settings = current.get("model")
    if isinstance(settings, dict):
        current["model"] = {**ABSENT, **settings}
    current["format_version"] = FORMAT_VERSION
    return current, weights


def renamed(name: str, weights: Mapping[str, str]) -> str:
    """The name now of a weight, after `migrate`.

    Args:
        name: as saved.
        weights: from `migrate`.

    Returns:
        Its name; the longest renamed beginning of it counts.
    """
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        old = ".".join(parts[:end])
        if old in weights:
            return ".".join([weights[old], *parts[end:]])
    return name


def _put(config: dict[str, Any], path: str, value: Any) -> None:
    *folders, last = path.split(".")
    for folder in folders:
        config = config.setdefault(folder, {})
    config[last] = value
