"""Class decorator that records the constructor arguments of a built-in backbone."""

import functools
import inspect
from typing import Any, TypeVar

from torch import nn

Kind = TypeVar("Kind", bound=type[nn.Module])


def _plain(value: Any) -> Any:
    """Convert a numpy scalar to a Python number; return anything else unchanged."""
    is_scalar = type(value).__module__ == "numpy" and getattr(value, "ndim", 1) == 0
    return value.item() if is_scalar else value


def remembers_arguments(kind: Kind) -> Kind:
    """Record the constructor arguments as `constructor_arguments`, so that a model can be saved.

    Args:
        kind: a class whose constructor arguments are numbers, strings or lists of them.

    Returns:
        The same class. Subclasses do not record their arguments.

    Examples:
        >>> from odmt_sdk.backbones.models.gru4rec import GRU4Rec
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
            # modules are declared to hold tensors and modules only
            self.constructor_arguments = {  # type: ignore[assignment]
                name: list(value) if isinstance(value, tuple) else _plain(value)
                for name, value in list(bound.arguments.items())[1:]
            }

    # the decorator replaces the constructor
    kind.__init__ = remembering  # type: ignore[method-assign]
    return kind
