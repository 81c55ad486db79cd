"""What `config.json` says of an adapter, with every value checked."""

import dataclasses
import json
import math
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self, Union, get_args, get_origin, get_type_hints

from odmt_sdk.config import ODMTConfig
from odmt_sdk.errors import AdapterError
from odmt_sdk.files.untrusted_files import parse_json
from odmt_sdk.saving.card_details import CardDetails
from odmt_sdk.saving.layout import (
    CONFIG,
    FORMAT_VERSION,
    LIBRARY,
    MAX_CONFIG_BYTES,
    MAX_LAYERS,
    MAX_LAYERS_OF_ALL_MODALITIES,
    MAX_MODALITIES,
    MAX_SHARDS,
    FileName,
    parse_name,
)
from odmt_sdk.saving.migrations import migrate
from odmt_sdk.saving.plain_values import plain_value, read_results, write_results

MAX_NUMBER = 1 << 31  # of a size
MAX_VALUE = 1 << 63  # of any other number
MAX_TEXT = 100_000
MAX_ENTRIES = 10_000
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
FILE_KEYS = {"model", "items", "item_embeddings", "feature_moments", "item_to_item"}


@dataclass(frozen=True, kw_only=True)
class SavedBackbone:
    """What is known of the backbone that was wrapped.

    Args:
        name: its class, for messages; never imported.
        width: values per item that it reads, or None.
        built_in: name in the registry of built-in backbones, or None for the user's own.
        arguments: arguments of the built-in backbone.
        weights: whether its weights are saved.
        settings: source, or "" for all sources -> what decides how it computes beside its weights.
        own_call: whether the user said how to call it, by `forward_fn=` or `bridge=`.
    """

    name: str
    width: int | None = None
    built_in: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    weights: bool = True
    settings: Mapping[str, Any] = field(default_factory=dict)
    own_call: bool = False


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
        """The part of `config.json` that `ReadDescription.from_json` reads.

        Raises:
            AdapterError: if a value is none of JSON.
        """
        if type(self.card) is not CardDetails:
            raise AdapterError(
                f"cannot save model.card: it is a {type(self.card).__name__}, not a CardDetails"
            )
        card = dict(vars(self.card))
        if isinstance(card.get("results"), Mapping):
            card["results"] = write_results(card["results"])
        content = {
            "model": self.config.to_dict(),
            "modalities": self.widths,
            "features": self.features,
            "backbone": dataclasses.asdict(self.backbone),
            "shared_weights": self.shared_weights,
            "card": card,
        }
        return {name: plain_value(value, name) for name, value in content.items()}

    def to_config(self, save_id: str = "") -> dict[str, Any]:
        """What `config.json` holds beside the names of files.

        Args:
            save_id: the mark of the save.

        Returns:
            Values of JSON, of which `ReadDescription.from_json` makes this description again.

        Raises:
            AdapterError: if something cannot be saved; the message names it.
        """
        content = {
            "library_name": LIBRARY,
            "format_version": FORMAT_VERSION,
            "save_id": save_id,
            **self.to_json(),
        }
        text = json.dumps(content).encode()
        if len(text) > MAX_CONFIG_BYTES // 2:  # it is written with indents and names of files
            largest = max(content, key=lambda name: len(json.dumps(content[name])))
            raise AdapterError(
                f"cannot save {len(text)} bytes of settings; {CONFIG} can have at most "
                f"{MAX_CONFIG_BYTES // 2}: shorten {largest!r}, the largest of them"
            )
        whole = {**parse_json(text, CONFIG), "files": {"model": [str(FileName("model"))]}}
        again = ReadDescription.from_json(whole, where=None).description.to_json()
        for name, value in again.items():
            if value != content[name]:
                raise AdapterError(f"cannot save {name!r}: it would have another value when loaded")
        return content


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
    def from_json(cls, content: Any, *, where: str | None) -> Self:
        """Check and read a `config.json`.

        Args:
            content: the parsed file.
            where: the folder, for messages; None for one that is to be written.

        Returns:
            What it says.

        Raises:
            AdapterError: if it is not of this library, of an unknown format, or a key or value is
                not what it must be.
        """
        if not isinstance(content, dict) or content.get("library_name") != LIBRARY:
            other = isinstance(content, dict) and {"model_type", "architectures"} & set(content)
            raise AdapterError(
                f"{where} is not an adapter of {LIBRARY}: another program wrote its {CONFIG}"
                + (
                    ". It looks like a transformers model: load it with transformers and "
                    "wrap it, ODMTWrapper(backbone=...)"
                    if other
                    else ""
                )
            )
        config, renamed = migrate(content, where=where or "memory")
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
                card=_card(config.get("card", {})),
            )
            _check_counts(description)
            return cls(
                description,
                {role: _files(files.get(role, []), role) for role in FILE_KEYS},
                _text(config.get("save_id"), "save_id"),
                renamed,
            )
        except (TypeError, ValueError) as error:
            what = "save the adapter" if where is None else f"load the adapter in {where}"
            raise AdapterError(f"cannot {what}: {error}") from error


def _card(content: Any) -> CardDetails:
    values = _mapping(content, "card")
    if isinstance(values.get("results"), dict):
        values = {**values, "results": read_results(values["results"])}
    hints = get_type_hints(CardDetails)
    _known(values, set(hints), "card")
    for key, value in values.items():
        if key == "results":
            for split, found in _mapping(value, "card.results").items():
                for name, number in _mapping(found, f"card.results.{split}").items():
                    if type(number) not in (int, float):
                        raise TypeError(
                            f"card.results.{split}.{name}={str(number)[:40]!r} must be a number"
                        )
        elif key == "training":
            for name, inner in _mapping(value, "card.training").items():
                if not isinstance(inner, str | int | float):
                    raise TypeError(
                        f"card.training.{name} must be a text or a number, got "
                        f"{type(inner).__name__}"
                    )
        elif key == "language" and isinstance(value, list):
            for language in value:
                _text(language, "card.language")
        elif value is not None:
            _text(value, f"card.{key}")
    return CardDetails(**values)


def _check_counts(description: Description) -> None:
    """Raise unless the settings ask for a sane number of layers, each of which takes time."""
    layers, modalities = description.config.num_layers, len(description.widths)
    arguments = description.backbone.arguments
    counts = {"num_layers": layers}
    for name, value in arguments.items():
        if name == "num_layers" and type(value) is int:
            counts["num_layers of the backbone"] = value
        elif isinstance(value, list):
            counts[f"{name} of the backbone"] = len(value)
    for name, count in counts.items():
        if count > MAX_LAYERS:
            raise ValueError(f"{name} means {count} layers; a model can have at most {MAX_LAYERS}")
    if modalities > MAX_MODALITIES:
        raise ValueError(f"there are {modalities} modalities, more than {MAX_MODALITIES}")
    if layers * modalities > MAX_LAYERS_OF_ALL_MODALITIES:
        raise ValueError(
            f"there are {layers} layers of {modalities} modalities, more than "
            f"{MAX_LAYERS_OF_ALL_MODALITIES} in all"
        )


def _settings(settings: dict[str, Any]) -> ODMTConfig:
    """`ODMTConfig.from_dict` of values of the right types."""
    hints = get_type_hints(ODMTConfig)
    for name, value in settings.items():
        if name == "teaching_graph":
            settings = {**settings, name: _teaching_graph(value)}
        elif name in hints:
            _check_type(value, hints[name], f"model.{name}")
    return ODMTConfig.from_dict(settings)


def _teaching_graph(value: Any) -> str | tuple[tuple[str, tuple[str, ...]], ...]:
    """Its name, or its edges (student, teachers)."""
    if isinstance(value, str):
        return _text(value, "model.teaching_graph")
    _check_size(value, "model.teaching_graph")
    edges = []
    for edge in value if isinstance(value, list) else [None]:
        if not (isinstance(edge, list) and len(edge) == 2 and isinstance(edge[1], list)):
            raise TypeError("model.teaching_graph must be a name, or pairs of student and teachers")
        student, teachers = edge
        edges.append(
            (
                _text(student, "model.teaching_graph"),
                tuple(_text(teacher, "model.teaching_graph") for teacher in teachers),
            )
        )
    return tuple(edges)


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
    if isinstance(value, Mapping | list | tuple):
        if len(value) > MAX_ENTRIES:
            raise ValueError(f"{name} has {len(value)} entries, more than {MAX_ENTRIES}")
        entries = value.items() if isinstance(value, Mapping) else [("", v) for v in value]
        for key, inner in entries:
            _check_size(inner, f"{name}.{key}"[:200] if key else name)
    elif isinstance(value, str):
        _text(value, name)
    elif isinstance(value, int) and not -MAX_VALUE <= value <= MAX_VALUE:
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
            raise ValueError(f"files.{role} has {str(name)[:60]!r}, which is not a valid name")
        if (parts.number, parts.shards) != (number, len(names)):
            raise ValueError(f"files.{role} does not name every shard once, in order")
    return tuple(names)
