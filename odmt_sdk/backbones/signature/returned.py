"""Detection of the hidden states in the return value of a module.

Letters: B users, L positions, D hidden size.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch

Key = str | int | None
"""Place in the return value: a name, an index, or None for the value itself."""
USUAL_NAMES = ("last_hidden_state", "hidden_states", "hidden_state", "hidden", "output", "outputs")


def find_hidden_states(returned: Any, *, batch: int, length: int, hidden_size: int) -> Key:
    """Find the hidden states in the return value of a module.

    Tensors (B, L, any) take precedence over (B, any), which is the last position only. In each
    group, tensors of width D take precedence. In a tuple, the first candidate is used; among named
    values, the one with a common name.

    Args:
        returned: a tensor, tuple, list, mapping, dataclass, or object with `last_hidden_state`.
        batch: B.
        length: L of the module's input; the output may be shorter if packing dropped the padding.
        hidden_size: D.

    Returns:
        The place of the hidden states.

    Raises:
        TypeError: if there are none, if several are equally likely, or if they are complex.
    """
    sequences, lasts = {}, {}
    for key, value in _parts(returned).items():
        if not isinstance(value, torch.Tensor) or value.shape[:1] != (batch,):
            continue
        if value.ndim == 3 and 1 <= value.shape[1] <= length:
            sequences[key] = value
        elif value.ndim == 2:
            lasts[key] = value
    found = sequences or lasts
    found = {k: v for k, v in found.items() if v.shape[-1] == hidden_size} or found
    if not found:
        raise TypeError(
            f"it returned {describe(returned)} for embeddings of shape "
            f"({batch}, {length}, {hidden_size}), which contains no hidden states (B, L, D)"
        )
    usual = next((name for name in USUAL_NAMES if name in found), None)
    first_of_several = isinstance(returned, tuple) and not hasattr(returned, "_fields")
    if len(found) > 1 and usual is None and not first_of_several:
        raise TypeError(
            f"it returned several tensors that could be the hidden states ({describe(returned)})"
        )
    key = usual if usual is not None else next(iter(found))
    if found[key].is_complex():
        raise TypeError(
            f"it returned complex numbers ({found[key].dtype}), but item scores are real: return "
            "hidden.real, or torch.view_as_real(hidden).flatten(-2)"
        )
    return key


def take(returned: Any, key: Key) -> torch.Tensor:
    """Take the hidden states from the place that `find_hidden_states` returned.

    Args:
        returned: the return value of the module.
        key: the place of the hidden states.

    Returns:
        The hidden states.
    """
    hidden: torch.Tensor
    if key is None:
        hidden = returned
    elif isinstance(key, str) and not isinstance(returned, Mapping):
        hidden = getattr(returned, key)
    else:
        hidden = returned[key]
    return hidden


def describe(returned: Any) -> str:
    """Describe the types and shapes of a return value, for error messages."""
    if isinstance(returned, torch.Tensor):
        return f"a tensor {tuple(returned.shape)}"
    parts = _parts(returned)
    if set(parts) == {None}:
        return f"a {type(returned).__name__}"
    inside = ", ".join(
        f"{key}: {tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__}"
        for key, value in list(parts.items())[:6]
    )
    return f"a {type(returned).__name__} of {inside or 'nothing'}"


def _parts(returned: Any) -> Mapping[Key, Any]:
    if isinstance(returned, Mapping):
        return {str(key): value for key, value in returned.items()}
    if isinstance(returned, tuple) and hasattr(returned, "_fields"):
        return {str(name): getattr(returned, name) for name in returned._fields}
    if isinstance(returned, (tuple, list)):
        return dict(enumerate(returned))
    if dataclasses.is_dataclass(returned):
        return {f.name: getattr(returned, f.name) for f in dataclasses.fields(returned)}
    if hasattr(returned, "last_hidden_state"):
        return {"last_hidden_state": returned.last_hidden_state}
    return {None: returned}
