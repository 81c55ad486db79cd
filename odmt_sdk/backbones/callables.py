"""Adapter for what is no module: functions, `functools.partial`, methods, callable objects."""

import functools
import inspect
from collections.abc import Callable, Iterator
from types import FunctionType, MethodType
from typing import Any

from torch import nn

from odmt_sdk.backbones.by_signature import build_by_signature
from odmt_sdk.backbones.registry import register_adapter


class CallableModule(nn.Module):
    """A callable as a module, with the modules that it holds as its own.

    A copy of it holds copies of those modules, so that every source trains weights of its own.

    Args:
        function: a function; a method; a `functools.partial`, also of a module or with modules
            among its arguments; an object with `__call__`.

    Raises:
        ValueError: if a function refers to a module by its name, where no copy could replace it.

    Examples:
        >>> import torch
        >>> half = CallableModule(functools.partial(torch.mul, 0.5))
        >>> half(torch.ones(2))
        tensor([0.5000, 0.5000])
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        self.held = nn.ModuleList(dict.fromkeys(_modules_in(function)))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call it.

        Args:
            *args: as the callable takes them.
            **kwargs: as the callable takes them.

        Returns:
            What it returns.
        """
        return self.function(*args, **kwargs)


def _modules_in(value: object) -> Iterator[nn.Module]:
    """The modules that a callable holds; `copy.deepcopy` copies them with it."""
    if isinstance(value, nn.Module):
        yield value
    elif isinstance(value, functools.partial):
        for part in (value.func, *value.args, *value.keywords.values()):
            yield from _modules_in(part)
    elif isinstance(value, MethodType):
        yield from _modules_in(value.__func__)
        yield from _modules_in(value.__self__)
    elif isinstance(value, FunctionType):
        _refuse_modules_by_name(value)
    elif callable(value) and hasattr(value, "__dict__"):
        for attribute in vars(value).values():
            if isinstance(attribute, nn.Module):
                yield attribute


def _refuse_modules_by_name(function: FunctionType) -> None:
    names = inspect.getclosurevars(function)
    for name, value in {**names.globals, **names.nonlocals}.items():
        if isinstance(value, nn.Module):
            raise ValueError(
                f"the function {function.__name__!r} uses the module {name!r} by its name, so its "
                f"weights could be neither copied nor trained: make {name!r} an argument and pass "
                f"functools.partial({function.__name__}, {name}), or pass backbone={name} with "
                "forward_fn="
            )


def _is_other_callable(backbone: object) -> bool:
    return callable(backbone) and not isinstance(backbone, (nn.Module, type))


@register_adapter("callable", matches=_is_other_callable, priority=-100)
def _build(backbone: Callable[..., Any], hidden_size: int | None) -> nn.Module:
    function = backbone
    if isinstance(backbone, functools.partial) and isinstance(backbone.func, nn.Module):
        # `module(...)` takes anything, only its `forward` tells what.
        function = functools.partial(backbone.func.forward, *backbone.args, **backbone.keywords)
        functools.update_wrapper(function, backbone.func.forward)
    return build_by_signature(CallableModule(backbone), hidden_size, function=function)
