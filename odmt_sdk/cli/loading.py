"""Options and code that create a backbone or load an adapter."""

import argparse
from typing import Any

from odmt_sdk.cli.options import (
    BACKBONES,
    Group,
    UsageError,
    add_settings,
    checked_backbone_args,
    given,
    is_built_in,
    json_value,
)
from odmt_sdk.cli.program import Code, Program, call
from odmt_sdk.cli.signatures import settings_of

ADAPTER = "a folder with an adapter, a repository such as me/my-adapter, or shipped:NAME"
_NOT_ASKED = (
    *("cls", "path", "backbone", "item_features", "bridge", "forward_fn", "transfer", "freeze"),
    *("training_settings", "token", "dtype", "allow_non_finite"),
)
LOADING = settings_of("wrapper", "ODMTWrapper.from_pretrained", without=_NOT_ASKED)


def add_backbone(group: Group, *, default: str | None = None) -> None:
    """Add the options that name a backbone.

    Args:
        group: the parser or group that receives them.
        default: the backbone to use if the option is not given.
    """
    group.add_argument(
        "--backbone",
        default=default,
        metavar="NAME|MODULE:CLASS",
        help=f"one of {', '.join(BACKBONES)}, or your own class or function that creates the model:"
        " my_model:MyModel is MyModel in my_model.py of this folder"
        + (f" (default: {default})" if default else " (only for an adapter of your own backbone)"),
    )
    group.add_argument(
        "--backbone-args",
        type=json_value,
        default={},
        metavar="JSON",
        help="its arguments, such as '{\"num_layers\": 3}'",
    )


def backbone(program: Program, name: str, arguments: Any, **more: Any) -> Code:
    """Write the call that creates a backbone.

    Args:
        program: receives the import.
        name: the backbone.
        arguments: from `--backbone-args`.
        **more: default arguments; `arguments` override them.

    Returns:
        The call.

    Raises:
        UsageError: if the backbone or an argument is unknown.
    """
    checked = {**more, **checked_backbone_args(name, arguments)}
    strange = [key for key in checked if not str(key).isidentifier()]
    if strange:
        raise UsageError(f"--backbone-args has {strange[0]!r}, which is not an argument name")
    if is_built_in(name):
        kind = BACKBONES[name.lower()][0]
        program.use(kind)
    else:
        module, _, kind = name.partition(":")
        program.use(kind, module=module)
        program.user_code.append(name)
    return call(kind, **checked)


def add_adapter(parser: argparse.ArgumentParser) -> None:
    """Add the adapter and the options that load it."""
    parser.add_argument("adapter", metavar="ADAPTER", help=ADAPTER)
    group = parser.add_argument_group("loading the adapter")
    add_backbone(group)
    add_settings(group, LOADING)


def loading(program: Program, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of `from_pretrained`, without the path."""
    found: dict[str, Any] = {}
    if arguments.backbone:
        found["backbone"] = backbone(program, arguments.backbone, arguments.backbone_args)
    elif arguments.backbone_args:
        raise UsageError("--backbone-args needs --backbone")
    return {**found, **given(arguments, (setting.name for setting in LOADING))}


def load(program: Program, arguments: argparse.Namespace) -> None:
    """Add the line that loads the adapter as `model`."""
    program.use("ODMTWrapper")
    settings = loading(program, arguments)
    program.assign("model", call("ODMTWrapper.from_pretrained", arguments.adapter, **settings))


def known_ids(program: Program, texts: list[str]) -> list[Any]:
    """Convert ids from the command line to ids of the model, which may be integers.

    Args:
        program: a program with a line that loads `model`.
        texts: the ids as typed.

    Returns:
        The id of the model for each text; the text itself if the model has no such id.
    """
    program.run()
    vocabulary = program.values["model"].vocabulary
    return [
        int(text)
        if text not in vocabulary and _is_number(text) and int(text) in vocabulary
        else text
        for text in texts
    ]


def _is_number(text: str) -> bool:
    return text.removeprefix("-").isdecimal()
