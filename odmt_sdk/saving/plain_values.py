"""What a user may give a model beside numbers and texts, as values of JSON."""

import math
from collections.abc import Mapping
from typing import Any

from odmt_sdk.errors import AdapterError

# JSON has no such numbers; a metric over nothing is one.
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def plain_value(value: Any, name: str) -> Any:
    """A value as JSON keeps it: tuples are lists, scalars of numpy and torch are numbers.

    Args:
        value: any.
        name: what it is called, for messages.

    Returns:
        None, texts, numbers, lists and dictionaries of them.

    Raises:
        AdapterError: if it is something else, or NaN or infinite.

    Examples:
        >>> plain_value({"edges": (("a", ("b",)),)}, "graph")
        {'edges': [['a', ['b']]]}
    """
    if isinstance(value, Mapping):
        found = {}
        for key, inner in value.items():
            if not isinstance(key, str):
                raise AdapterError(
                    f"cannot save {name}: its key {key!r} is a {type(key).__name__}; keys must be "
                    "texts"
                )
            found[str(key)] = plain_value(inner, f"{name}.{key}")
        return found
    if isinstance(value, list | tuple):
        return [plain_value(inner, f"{name}[{i}]") for i, inner in enumerate(value)]
    value = _python_number(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if not isinstance(value, float):
        raise AdapterError(
            f"cannot save {name}: it is a {type(value).__name__}; texts, numbers, lists and "
            "dictionaries can be saved"
        )
    if not math.isfinite(value):
        raise AdapterError(f"cannot save {name}={value}: give a finite number or a text")
    return float(value)


def write_results(results: Mapping[Any, Any]) -> dict[Any, Any]:
    """Results as JSON keeps them, with words for numbers that are not finite.

    Args:
        results: split -> metric -> number.

    Returns:
        The same, to be given to `plain_value`.
    """
    return {
        split: {key: _word(_python_number(value)) for key, value in found.items()}
        if isinstance(found, Mapping)
        else found
        for split, found in results.items()
    }


def read_results(results: Mapping[str, Any]) -> dict[str, Any]:
    """The opposite of `write_results`.

    Args:
        results: split -> metric -> number or word.

    Returns:
        The same with numbers for words.
    """
    return {
        split: {
            key: _NOT_FINITE.get(value, value) if isinstance(value, str) else value
            for key, value in found.items()
        }
        if isinstance(found, Mapping)
        else found
        for split, found in results.items()
    }


def _word(value: Any) -> Any:
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else f"{'-' if value < 0 else ''}Infinity"


def _python_number(value: Any) -> Any:
    """The Python number in a scalar of numpy or torch; anything else as it is."""
    if type(value).__module__.split(".")[0] in ("numpy", "torch") and hasattr(value, "item"):
        return value.item() if getattr(value, "ndim", 1) == 0 else value
    return value
