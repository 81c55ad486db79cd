"""Backbones that can return one state of each sequence for less than the cost of all."""

from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

F = TypeVar("F", bound=Callable[..., Any])


def reads_one_state(forward: F) -> F:
    """Mark a `forward` that takes `only_at`, (B,) positions, and returns (B, D) states there.

    The mark is on the method and not on its class, so that a subclass whose `forward` knows nothing
    of it is not asked.

    Args:
        forward: the method.

    Returns:
        The same method.
    """
    forward.reads_one_state = True  # type: ignore[attr-defined]
    return forward


def can_read_one_state(backbone: nn.Module) -> bool:
    """Whether the `forward` of a backbone is marked so."""
    return bool(getattr(backbone.forward, "reads_one_state", False))
