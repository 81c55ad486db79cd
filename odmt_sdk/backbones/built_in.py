"""The built-in backbones by name: a closed list, since names come from adapters of strangers."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, get_args, get_origin, get_type_hints

from torch import nn

from odmt_sdk.backbones.by_signature import adapt_native
from odmt_sdk.backbones.gru4rec import GRU4Rec
from odmt_sdk.backbones.hstu import HSTU
from odmt_sdk.backbones.mamba import Mamba2
from odmt_sdk.backbones.nextitnet import NextItNet
from odmt_sdk.backbones.registry import register_adapter, unwrap_backbone
from odmt_sdk.backbones.sasrec import SASRec

BUILT_IN: Mapping[str, type[nn.Module]] = {
    kind.__name__: kind for kind in (SASRec, GRU4Rec, NextItNet, HSTU, Mamba2)
}
MAX_IN_LIST = 4096  # such as a dilation, of which no weight tells whether it is sane


def _is_built_in(backbone: object) -> bool:
    return type(backbone) in BUILT_IN.values()


@register_adapter("built-in", matches=_is_built_in, priority=-80)
def _built_in(backbone: nn.Module, hidden_size: int | None) -> nn.Module:
    """One of the width asked for is used as it is, without a copy of it to try."""
    if hidden_size in (None, backbone.hidden_size):
        return backbone
    return adapt_native(backbone, hidden_size)


def built_in_arguments(backbone: nn.Module) -> tuple[str, dict[str, Any]] | None:
    """How to make a backbone again.

    Args:
        backbone: adapted or not.

    Returns:
        Its name and arguments, or None for a backbone of the user's own.

    Examples:
        >>> built_in_arguments(GRU4Rec(8))[0]
        'GRU4Rec'
    """
    backbone = unwrap_backbone(backbone)
    name = type(backbone).__name__
    if not _is_built_in(backbone):
        return None
    return name, dict(backbone.constructor_arguments)  # type: ignore[arg-type]


def make_built_in(name: str, arguments: Mapping[str, Any], *, num_tensors: int) -> nn.Module:
    """Make a built-in backbone from what somebody saved.

    Args:
        name: of the class.
        arguments: for its constructor.
        num_tensors: how many weights are there for it; no backbone has more layers than that.

    Returns:
        The backbone, with new weights.

    Raises:
        TypeError: if an argument is unknown or of the wrong type.
        ValueError: if the name is unknown, or an argument is out of range.
    """
    kind = BUILT_IN.get(name)
    if kind is None:
        raise ValueError(
            f"{name!r} is no built-in backbone ({', '.join(BUILT_IN)}): pass backbone= yourself"
        )
    inspect.signature(kind).bind(**arguments)
    hints = get_type_hints(kind.__init__)
    for argument, value in arguments.items():
        if not _is_a(value, hints[argument]):
            raise TypeError(f"{argument}={str(value)[:40]} of {name} is no {hints[argument]}")
        count = len(value) if isinstance(value, list) else value
        counted = argument == "num_layers" or isinstance(value, list)
        if counted and isinstance(count, int) and count > num_tensors:
            raise ValueError(
                f"{argument} of {name} means {count} layers, of which no weights exist"
            )
        if isinstance(value, list) and any(inner > MAX_IN_LIST for inner in value):
            raise ValueError(f"{argument}={value} of {name} exceeds {MAX_IN_LIST}")
    return kind(**arguments)


def _is_a(value: Any, hint: Any) -> bool:
    """Whether a JSON value is what a constructor asks for: counts, fractions, lists of counts."""
    if get_args(hint) and get_origin(hint) is not Sequence:  # int | None
        return any(_is_a(value, option) for option in get_args(hint))
    if hint is int:
        return type(value) is int and value >= 1
    if hint is float:
        return type(value) in (int, float)
    if get_origin(hint) is Sequence:
        return isinstance(value, list) and all(_is_a(v, get_args(hint)[0]) for v in value)
    return value is None and hint is type(None)
