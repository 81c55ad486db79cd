"""Bridge for callables that are not modules: functions, partials, methods, callable objects."""

import functools
import inspect
from collections.abc import Callable, Iterator
from types import FunctionType, MethodType
from typing import Any

from torch import nn

from odmt_sdk.backbones.adapt import register_bridge
from odmt_sdk.backbones.signature.bridge import build_by_signature


class CallableModule(nn.Module):
    """Wraps a callable as a module and registers the modules that it holds as submodules.

    A deep copy of it also copies these modules, so that every source trains its own weights.

    Args:
        function: a function, a method, an object with `__call__`, or a `functools.partial`, which
            may be of a module or have modules among its arguments.

    Raises:
        ValueError: if a function refers to a module by a global or closure name, because a copy of
            the function would still refer to the original module.

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
        """Call the wrapped callable.

        Args:
            *args: positional arguments of the callable.
            **kwargs: keyword arguments of the callable.

        Returns:
            The return value of the callable.
        """
        return self.function(*args, **kwargs)


def _modules_in(value: object) -> Iterator[nn.Module]:
    """Yield the modules that a callable holds; `copy.deepcopy` copies them together with it."""
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
                f"the function {function.__name__!r} uses the module {name!r} as a global or "
                "closure variable, so the weights would not be copied or trained: make "
                f"{name!r} an argument and pass functools.partial({function.__name__}, {name}), "
                f"or pass backbone={name} with forward_fn="
            )


def _is_other_callable(backbone: object) -> bool:
    return callable(backbone) and not isinstance(backbone, (nn.Module, type))


@register_bridge("callable", matches=_is_other_callable, priority=-100)
def _build(backbone: Callable[..., Any], hidden_size: int | None) -> nn.Module:
    function = backbone
    if isinstance(backbone, functools.partial) and isinstance(backbone.func, nn.Module):
        # `nn.Module.__call__` accepts anything; only `forward` has a meaningful signature.
        function = functools.partial(backbone.func.forward, *backbone.args, **backbone.keywords)
        functools.update_wrapper(function, backbone.func.forward)
    return build_by_signature(CallableModule(backbone), hidden_size, function=function)
