"""Remembering the arguments that a built-in backbone was made with."""

import functools
import inspect
from typing import Any, TypeVar

from torch import nn

Kind = TypeVar("Kind", bound=type[nn.Module])


def remembers_arguments(kind: Kind) -> Kind:
    """Let a class keep what it was made with as `constructor_arguments`, so that it can be saved.

    Args:
        kind: a class whose arguments are plain numbers, texts and lists of them.

    Returns:
        The class; classes that inherit from it do not remember.

    Examples:
        >>> from odmt_sdk.backbones.gru4rec import GRU4Rec
        >>> GRU4Rec(8, num_units=4).constructor_arguments["num_units"]
        4
    """
    original = kind.__init__
    signature = inspect.signature(original)

    @functools.wraps(original)
    def remembering(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        if type(self) is kind:
            bound = signature.bind(self, *args, **kwargs)
            bound.apply_defaults()
            self.constructor_arguments = {  # type: ignore[assignment]
                name: list(value) if isinstance(value, tuple) else value
                for name, value in list(bound.arguments.items())[1:]
            }

    kind.__init__ = remembering  # type: ignore[method-assign]
    return kind
