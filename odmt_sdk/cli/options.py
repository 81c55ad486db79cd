"""Command line options from the settings of public functions, and files of settings."""

import argparse
import difflib
import importlib
import json
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from odmt_sdk.cli.program import Code
from odmt_sdk.cli.signatures import Setting, settings_of
from odmt_sdk.paths import user_path


class UsageError(Exception):
    """The command line or a file of settings is invalid."""


Group = argparse.ArgumentParser | argparse._ArgumentGroup


def add_settings(group: Group, settings: Iterable[Setting]) -> tuple[str, ...]:
    """Add an option for each setting; the attribute of an option that is not given is not set.

    Args:
        group: a parser or an argument group.
        settings: the settings to add.

    Returns:
        The names of the settings.
    """
    names = []
    for setting in settings:
        options = _option(setting)
        flag = f"--{setting.name.replace('_', '-')}"
        group.add_argument(
            flag, dest=setting.name, default=argparse.SUPPRESS, help=_help(setting), **options
        )
        names.append(setting.name)
    return tuple(names)


def _option(setting: Setting) -> dict[str, Any]:
    """Return the arguments of `add_argument` for the type of a setting."""
    kind = setting.kind.removesuffix(" | None")
    name = setting.name.upper()
    optional = kind != setting.kind
    if kind == "bool":
        return {"action": argparse.BooleanOptionalAction}
    if setting.choices:
        return {"choices": setting.choices}
    if kind in ("int", "float"):
        numbers: dict[str, Callable[[str], Any]] = {"int": int, "float": float}
        return {"type": _or_none(numbers[kind]) if optional else numbers[kind], "metavar": "N"}
    if kind.startswith(("tuple[", "Sequence[")):
        inside = kind[kind.index("[") + 1 : -1].split(",")
        convert = {"int": int, "float": float}.get(inside[0].strip(), str)
        many = len(inside) if "..." not in kind and kind.startswith("tuple[") else "+"
        return {"type": convert, "nargs": many, "metavar": name}
    if kind.startswith(("Mapping[", "dict[")):
        return {"type": json_value, "metavar": "JSON"}
    if "TeachingEdges" in kind:
        return {"type": _name_or_json, "metavar": "NAME|JSON"}
    if kind == "torch.dtype":
        return {"choices": ("float16", "bfloat16", "float32")}
    return {"type": _or_none(str) if optional else str, "metavar": name}


def _help(setting: Setting) -> str:
    text = setting.help.replace("%", "%%").replace("`", "")
    if setting.default is not None and setting.default != "":
        default = setting.default
        if isinstance(default, tuple):
            default = " ".join(map(str, default))
        text += f" (default: {str(default).removeprefix('torch.')})"
    return text


def _or_none(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        return None if text.lower() == "none" else convert(text)

    read.__name__ = convert.__name__  # argparse: "invalid int value"
    return read


def json_value(text: str) -> Any:
    """Read a JSON value."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not valid JSON: {error}") from None


def _name_or_json(text: str) -> Any:
    return json_value(text) if text.lstrip().startswith("[") else text


def given(arguments: argparse.Namespace, names: Iterable[str]) -> dict[str, Any]:
    """Return the settings that the user gave, as arguments of a call.

    Args:
        arguments: the parsed arguments.
        names: names of the settings.

    Returns:
        Name -> value. Lists of numbers become tuples, and names of dtypes become torch dtypes.
    """
    found = {}
    for name in names:
        if hasattr(arguments, name):
            value = getattr(arguments, name)
            if name == "dtype":
                value = Code(f"torch.{value}")
            found[name] = tuple(value) if isinstance(value, list) else value
    return found


def read_settings_file(parser: argparse.ArgumentParser, path: str) -> dict[str, Any]:
    """Read options from a TOML, YAML or JSON file.

    Args:
        parser: the parser of the command, with its options.
        path: the file; its keys are names of options, with `_` or `-`.

    Returns:
        Name of the option -> value.

    Raises:
        UsageError: if the file cannot be read, a key is not an option, or a value is invalid.
    """
    content = _parsed(user_path(path))
    actions = {
        action.dest: action
        for action in parser._actions
        if action.dest not in ("help", "config", "show_code", "json", "debug")
    }
    found = {}
    for key, value in content.items():
        name = str(key).replace("-", "_")
        if name not in actions:
            meant = did_you_mean(name, actions)
            raise UsageError(f"{path} has the setting {key!r}, which {parser.prog} lacks{meant}")
        found[name] = _checked(path, key, value, actions[name])
    return found


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean ...?" for a misspelt name, or an empty string."""
    meant = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {meant[0]!r}?" if meant else ""


def _parsed(path: Path) -> Mapping[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the settings in {path}: {error}") from None
    suffix = path.suffix.lower()
    content: Any = None
    try:
        if suffix == ".toml":
            content = tomllib.loads(text)
        elif suffix == ".json":
            content = json.loads(text)
        elif suffix in (".yaml", ".yml"):
            yaml: Any = importlib.import_module("yaml")  # comes with huggingface_hub

            content = yaml.safe_load(text)
        else:
            raise UsageError(f"{path} does not end in .toml, .yaml or .json")
    except UsageError:
        raise
    except Exception as error:  # each library has errors of its own
        raise UsageError(f"{path} is not valid: {' '.join(str(error).split())}") from None
    if not isinstance(content, Mapping):
        raise UsageError(f"{path} must hold names and values of settings, such as epochs = 20")
    return content


def _checked(path: str, key: str, value: Any, action: argparse.Action) -> Any:
    """Convert a value as the option converts it."""
    where = f"{path}: {key} = {value!r}"
    if action.nargs == 0 or isinstance(action, argparse.BooleanOptionalAction):
        if not isinstance(value, bool):
            raise UsageError(f"{where} must be true or false")
        return value
    if value is None or action.type is json_value or isinstance(value, Mapping):
        if isinstance(value, Mapping) and action.type is not json_value:
            raise UsageError(f"{where} must be a single value")
        return value
    several = isinstance(action.nargs, int) or action.nargs in ("+", "*")
    if several != isinstance(value, list) and action.type is not _name_or_json:
        raise UsageError(f"{where} must be {'a list' if several else 'a single value'}")
    read: Any = action.type or str
    try:
        if isinstance(value, list):
            result = value if action.type is _name_or_json else [read(str(v)) for v in value]
        else:
            result = read(str(value))
    except (ValueError, TypeError, argparse.ArgumentTypeError):
        raise UsageError(f"{where} is not a valid {getattr(read, '__name__', 'value')}") from None
    if action.choices and result not in action.choices:
        raise UsageError(f"{where} must be one of {', '.join(map(str, action.choices))}")
    return result


# ------------------------------------------------------------------ shared by several commands

BACKBONES = {
    "sasrec": ("SASRec", "backbones/models/sasrec"),
    "gru4rec": ("GRU4Rec", "backbones/models/gru4rec"),
    "nextitnet": ("NextItNet", "backbones/models/nextitnet"),
    "hstu": ("HSTU", "backbones/models/hstu"),
    "mamba2": ("Mamba2", "backbones/models/mamba"),
}


def backbone_settings(name: str) -> tuple[Setting, ...]:
    """The settings of a built-in backbone.

    Args:
        name: such as "sasrec".

    Returns:
        Its settings.
    """
    kind, module = BACKBONES[name.lower()]
    return settings_of(module, kind)


def is_built_in(name: str) -> bool:
    """Whether a name is a built-in backbone.

    Args:
        name: the name on the command line.

    Returns:
        True for a built-in backbone, False for MODULE:CLASS.

    Raises:
        UsageError: if it is neither.
    """
    if name.lower() in BACKBONES:
        return True
    module, colon, kind = name.partition(":")
    if colon and kind.isidentifier() and all(part.isidentifier() for part in module.split(".")):
        return False
    raise UsageError(
        f"{name!r} is not a backbone{did_you_mean(name.lower(), BACKBONES)}; choose one of "
        f"{', '.join(BACKBONES)}, or MODULE:CLASS such as my_model:MyModel for my_model.py in this "
        "folder"
    )


def checked_backbone_args(name: str, values: Any) -> dict[str, Any]:
    """Check the arguments of a backbone as far as possible without importing it.

    Args:
        name: the backbone.
        values: from `--backbone-args`.

    Returns:
        The arguments.

    Raises:
        UsageError: if they are not a mapping, or a built-in backbone has no such argument.
    """
    if not isinstance(values, Mapping):
        raise UsageError(f"--backbone-args {json.dumps(values)} must be a JSON object")
    if is_built_in(name):
        known = [setting.name for setting in backbone_settings(name)]
        for key in values:
            if key not in known:
                raise UsageError(
                    f"--backbone-args has {key!r}, which is not an argument of {name}"
                    f"{did_you_mean(key, known)}; its arguments are {', '.join(known)}"
                )
    return dict(values)
