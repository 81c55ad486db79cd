"""Built-in backbones by name; the list is closed, because names come from untrusted adapters."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, get_args, get_origin, get_type_hints

from torch import nn

from odmt_sdk.backbones.adapt import register_bridge, unwrap_backbone
from odmt_sdk.backbones.models.gru4rec import GRU4Rec
from odmt_sdk.backbones.models.hstu import HSTU
from odmt_sdk.backbones.models.mamba import Mamba2
from odmt_sdk.backbones.models.nextitnet import NextItNet
from odmt_sdk.backbones.models.sasrec import SASRec
from odmt_sdk.backbones.signature.bridge import adapt_native
from odmt_sdk.backbones.signature.trial import plain

BUILT_IN: Mapping[str, type[nn.Module]] = {
    kind.__name__: kind for kind in (SASRec, GRU4Rec, NextItNet, HSTU, Mamba2)
}
MAX_IN_LIST = 4096  # for values such as dilations, which no weight shape bounds


def _is_built_in(backbone: object) -> bool:
    return type(backbone) in BUILT_IN.values()


@register_bridge("built-in", matches=_is_built_in, priority=-1)
def _built_in(backbone: nn.Module, hidden_size: int | None) -> nn.Module:
    """Use a model of the requested width unchanged; this avoids a trial run on a copy."""
    if hidden_size in (None, backbone.hidden_size):
        return backbone
    return adapt_native(backbone, hidden_size)


def built_in_arguments(backbone: nn.Module) -> tuple[str, dict[str, Any]] | None:
    """Describe how to construct a backbone again.

    Args:
        backbone: a backbone, with or without its bridge.

    Returns:
        The class name and constructor arguments, or None if it is not a built-in backbone.

    Examples:
        >>> built_in_arguments(GRU4Rec(8))[0]
        'GRU4Rec'
    """
    backbone = plain(unwrap_backbone(backbone))
    name = type(backbone).__name__
    if not _is_built_in(backbone):
        return None
    arguments: Any = backbone.constructor_arguments
    return name, dict(arguments)


def make_built_in(name: str, arguments: Mapping[str, Any], *, num_tensors: int) -> nn.Module:
    """Construct a built-in backbone from saved arguments, which may be malicious.

    Args:
        name: class name of the backbone.
        arguments: constructor arguments.
        num_tensors: number of weight tensors saved for the backbone. Arguments that ask for more
            layers are refused.

    Returns:
        The backbone, with newly initialized weights.

    Raises:
        TypeError: if an argument is unknown or of the wrong type.
        ValueError: if the name is unknown, or an argument is out of range.
    """
    kind = BUILT_IN.get(name)
    if kind is None:
        raise ValueError(
            f"{name!r} is not a built-in backbone ({', '.join(BUILT_IN)}): pass backbone= yourself"
        )
    inspect.signature(kind).bind(**arguments)
    hints = get_type_hints(kind.__init__)
    for argument, value in arguments.items():
        if not _is_a(value, hints[argument]):
            wanted = getattr(hints[argument], "__name__", str(hints[argument]))
            raise TypeError(
                f"{argument}={str(value)[:40]!r} of {name} is not a valid {wanted}: pass backbone= "
                "yourself"
            )
        count = len(value) if isinstance(value, list) else value
        counted = argument == "num_layers" or isinstance(value, list)
        if counted and isinstance(count, int) and count > num_tensors:
            raise ValueError(
                f"{argument} of {name} asks for {count} layers, more than there are weights for"
            )
        if isinstance(value, list) and any(inner > MAX_IN_LIST for inner in value):
            raise ValueError(f"{argument}={value} of {name} exceeds {MAX_IN_LIST}")
    return kind(**arguments)


def _is_a(value: Any, hint: Any) -> bool:
    """Whether a JSON value fits a type hint; integers must be at least 1."""
    if get_args(hint) and get_origin(hint) is not Sequence:  # int | None
        return any(_is_a(value, option) for option in get_args(hint))
    if hint is int:
        return type(value) is int and value >= 1
    if hint is float:
        return type(value) in (int, float)
    if get_origin(hint) is Sequence:
        return isinstance(value, list) and all(_is_a(v, get_args(hint)[0]) for v in value)
    return value is None and hint is type(None)
