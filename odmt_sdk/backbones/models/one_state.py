"""Marker for backbones that can compute a single state per sequence at a lower cost."""

from collections.abc import Callable
from typing import Any, TypeVar

from odmt_sdk.backbones.protocol import AdaptedBackbone

F = TypeVar("F", bound=Callable[..., Any])


def reads_one_state(forward: F) -> F:
    """Mark a `forward` that accepts `only_at`, (B,) positions, and returns (B, D) states there.

    The mark is on the method, not on the class, so a subclass that overrides `forward` without
    `only_at` is not marked.

    Args:
        forward: the method to mark.

    Returns:
        The same method.
    """
    forward.reads_one_state = True  # type: ignore[attr-defined]  # the mark
    return forward


def can_read_one_state(backbone: AdaptedBackbone) -> bool:
    """Whether the `forward` of a backbone is marked with `reads_one_state`."""
    return bool(getattr(backbone.forward, "reads_one_state", False))
