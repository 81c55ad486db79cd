"""What `config.json` says of an adapter, with every value checked."""

import dataclasses
import math
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self, Union, get_args, get_origin, get_type_hints

from odmt_sdk.config import ODMTConfig
from odmt_sdk.errors import AdapterError
from odmt_sdk.hub.card_details import CardDetails
from odmt_sdk.hub.layout import CONFIG, LIBRARY, MAX_SHARDS, parse_name
from odmt_sdk.hub.migrations import migrate

MAX_NUMBER = 1 << 31
MAX_TEXT = 10_000
KEYS = {
    "library_name",
    "format_version",
    "save_id",
    "model",
    "modalities",
    "features",
    "backbone",
    "files",
    "shared_weights",
    "card",
}
FILE_KEYS = {"model", "items", "item_embeddings"}


@dataclass(frozen=True, kw_only=True)
class SavedBackbone:
    """What is known of the backbone that was wrapped.

    Args:
        name: its class, for messages; never imported.
        width: values per item that it reads, or None.
        built_in: name in the registry of built-in backbones, or None for the user's own.
        arguments: arguments of the built-in backbone.
        weights: whether its weights are saved.
    """

    name: str
    width: int | None = None
    built_in: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    weights: bool = True


@dataclass(frozen=True, kw_only=True)
class Description:
    """An adapter, apart from its tensors and item ids.

    Args:
        config: settings of the model.
        widths: modality -> feature width.
        backbone: what was wrapped.
        features: modality -> where its features came from: encoder, revision and so on.
        shared_weights: name of a weight -> the saved weight that is the same one.
        card: what the model card says beside that.
    """

    config: ODMTConfig
    widths: Mapping[str, int]
    backbone: SavedBackbone
    features: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    shared_weights: Mapping[str, str] = field(default_factory=dict)
    card: CardDetails = field(default_factory=CardDetails)

    def to_json(self) -> dict[str, Any]:
        """The part of `config.json` that `read_description` reads."""
        return {
            "model": self.config.to_dict(),
            "modalities": dict(self.widths),
            "features": {name: dict(about) for name, about in self.features.items()},
            "backbone": dataclasses.asdict(self.backbone),
            "shared_weights": dict(self.shared_weights),
            "card": dataclasses.asdict(self.card),
        }


@dataclass(frozen=True)
class ReadDescription:
    """A `config.json` as it was found.

    Args:
        description: of the adapter.
        files: role -> its files.
        save_id: the mark of the save.
        renamed_weights: name as saved -> name now.
    """

    description: Description
    files: Mapping[str, tuple[str, ...]]
    save_id: str
    renamed_weights: Mapping[str, str]

    @classmethod
    def from_json(cls, content: Any, *, where: str) -> Self:
        """Check and read a `config.json`.

        Args:
            content: the parsed file.
            where: the folder, for messages.

        Returns:
            What it says.

        Raises:
            AdapterError: if it is not of this library, of an unknown format, or a key or value is
                not what it must be.
        """
        if not isinstance(content, dict) or content.get("library_name") != LIBRARY:
            raise AdapterError(
                f"{where} is no adapter of {LIBRARY}: its {CONFIG} was written by something else"
            )
        config, renamed = migrate(content, where=where)
        try:
            _known(config, KEYS, CONFIG)
            modalities = _mapping(config.get("modalities"), "modalities")
            files = _mapping(config.get("files"), "files")
            _known(files, FILE_KEYS, "files")
            description = Description(
                config=_settings(_mapping(config.get("model"), "model")),
                widths={name: _number(width, name) for name, width in modalities.items()},
                backbone=_dataclass(SavedBackbone, config.get("backbone"), "backbone"),
                features={
                    name: _mapping(about, f"features.{name}")
                    for name, about in _mapping(config.get("features", {}), "features").items()
                },
                shared_weights=_texts(config.get("shared_weights", {}), "shared_weights"),
                card=_dataclass(CardDetails, config.get("card", {}), "card"),
            )
            return cls(
                description,
                {role: _files(files.get(role, []), role) for role in FILE_KEYS},
                _text(config.get("save_id"), "save_id"),
                renamed,
            )
        except (TypeError, ValueError) as error:
            raise AdapterError(f"cannot load the adapter in {where}: {error}") from error


def _settings(settings: dict[str, Any]) -> ODMTConfig:
    """`ODMTConfig.from_dict` of values of the right types."""
    hints = get_type_hints(ODMTConfig)
    for name, value in settings.items():
        if name in hints:
            _check_type(value, hints[name], f"model.{name}")
    return ODMTConfig.from_dict(settings)


def _dataclass(kind: Any, content: Any, name: str) -> Any:
    values = _mapping(content, name)
    hints = get_type_hints(kind)
    _known(values, set(hints), name)
    for key, value in values.items():
        _check_type(value, hints[key], f"{name}.{key}")
    return kind(**values)


def _check_type(value: Any, hint: Any, name: str) -> None:
    """Raise `TypeError` or `ValueError` unless a JSON value is of a type, and of sane size."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        options = [option for option in get_args(hint) if option is not types.NoneType]
        if value is None and len(options) < len(get_args(hint)):
            return
        if len(options) == 1:
            return _check_type(value, options[0], name)
        _check_size(value, name)
    elif hint is int:
        _number(value, name)
    elif hint is float:
        if type(value) not in (int, float) or not math.isfinite(value):
            raise TypeError(f"{name}={str(value)[:40]!r} must be a number")
    elif hint is bool:
        if type(value) is not bool:
            raise TypeError(f"{name}={str(value)[:40]!r} must be true or false")
    elif hint is str:
        _text(value, name)
    elif origin is Literal:
        if not isinstance(value, str) or value not in get_args(hint):
            raise ValueError(f"{name}={str(value)[:40]!r} must be one of {get_args(hint)}")
    elif origin is not None and issubclass(origin, Mapping):
        for key, inner in _mapping(value, name).items():
            _check_type(inner, get_args(hint)[1], f"{name}.{key}")
    else:
        _check_size(value, name)
    return None


def _check_size(value: Any, name: str) -> None:
    """Raise unless numbers and texts, also within lists and mappings, are of sane size."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        if len(value) > MAX_TEXT:
            raise ValueError(f"{name} has {len(value)} entries, more than {MAX_TEXT}")
        for inner in value:
            _check_size(inner, name)
    elif isinstance(value, str):
        _text(value, name)
    elif isinstance(value, int | float) and not -MAX_NUMBER <= value <= MAX_NUMBER:
        raise ValueError(f"{name}={str(value)[:20]} is out of range")


def _known(values: Mapping[str, Any], known: set[str], name: str) -> None:
    unknown = sorted(str(key)[:40] for key in set(values) - known)
    if unknown:
        raise ValueError(
            f"{name} has the unknown keys {unknown}; known are {sorted(known)}. A newer {LIBRARY} "
            "may have written them: upgrade, or remove them"
        )


def _mapping(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{name} must be an object, got {type(value).__name__}")
    _check_size(value, name)
    return value


def _texts(value: Any, name: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise TypeError(f"{name} must be an object, got {type(value).__name__}")
    return {key: _text(inner, name) for key, inner in value.items()}


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a text, got {type(value).__name__}")
    if len(value) > MAX_TEXT:
        raise ValueError(f"{name} has {len(value)} characters, more than {MAX_TEXT}")
    return value


def _number(value: Any, name: str) -> int:
    if type(value) is not int:
        raise TypeError(f"{name}={str(value)[:40]!r} must be a whole number")
    if not 0 <= value <= MAX_NUMBER:
        raise ValueError(f"{name}={str(value)[:20]} must be between 0 and {MAX_NUMBER}")
    return value


def _files(names: Any, role: str) -> tuple[str, ...]:
    """File names of one role: all shards of one save, in order."""
    if not isinstance(names, list) or len(names) > MAX_SHARDS:
        raise TypeError(f"files.{role} must be a list of at most {MAX_SHARDS} file names")
    if role == "items" and len(names) > 1:
        raise ValueError("files.items must name one file")
    for number, name in enumerate(names, start=1):
        parts = parse_name(name) if isinstance(name, str) else None
        if parts is None or parts.role != role:
            raise ValueError(f"files.{role} names {str(name)[:60]!r}, which is no such file")
        if (parts.number, parts.shards) != (number, len(names)):
            raise ValueError(f"files.{role} does not name every shard once, in order")
    return tuple(names)
