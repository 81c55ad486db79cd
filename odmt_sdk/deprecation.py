"""Deprecated argument names: they work for one more release, with a warning."""

import functools
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def renamed_argument(old: str, new: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Also accept an argument under its old name, with a `FutureWarning`.

    Args:
        old: the deprecated name.
        new: the current name.

    Returns:
        A decorator for the function.

    Raises:
        TypeError: when the decorated function is called with both names.

    Examples:
        >>> @renamed_argument("adapter", "bridge")
        ... def wrap(*, bridge=None):
        ...     return bridge
        >>> wrap(bridge="signature")
        'signature'
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def called(*args: Any, **kwargs: Any) -> R:
            if old in kwargs:
                if new in kwargs:
                    raise TypeError(f"{old}= is the old name of {new}=: pass only {new}=")
                warnings.warn(
                    f"{old}= was renamed to {new}=; the next release removes the old name",
                    FutureWarning,
                    stacklevel=2,
                )
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return called

    return decorate
