"""Imports public names when they are first used, so that importing a package is fast."""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def hand_out(
    package: str, homes: Mapping[str, str], *, submodules: Sequence[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Create the `__getattr__` and `__dir__` of a package.

    For type checkers and editors, the package also imports the names under `TYPE_CHECKING` and
    lists them in `__all__`.

    Args:
        package: `__name__` of the package.
        homes: public name -> the module that defines it.
        submodules: public submodules, which are imported when they are first used.

    Returns:
        `__getattr__` and `__dir__`.

    Examples:
        >>> __getattr__, __dir__ = hand_out("shop", {"OrderedDict": "collections"})
        >>> __getattr__("OrderedDict")
        <class 'collections.OrderedDict'>
    """

    def get_attribute(name: str) -> Any:
        if name in homes:
            return getattr(import_module(homes[name]), name)
        if name in submodules:
            return import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def list_names() -> list[str]:
        return sorted({*vars(import_module(package)), *homes, *submodules})

    return get_attribute, list_names
