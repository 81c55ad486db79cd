"""Train and eval mode: switch modules to eval mode temporarily and restore every part."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import torch
from torch import nn


class HasModes(Protocol):
    """An object with train and eval mode, such as any `nn.Module`."""

    training: bool

    def modules(self) -> Iterator[nn.Module]:
        """The module and all its submodules."""

    def train(self, mode: bool = True) -> Any:
        """Set training or eval mode."""


@contextmanager
def evaluating(*modules: HasModes) -> Iterator[None]:
    """Put modules into eval mode, and restore the mode of every submodule afterwards.

    A submodule that was frozen in eval mode inside a training module stays in eval mode. The modes
    are restored after an exception, too.

    Args:
        *modules: any modules.

    Yields:
        Nothing.

    Examples:
        >>> model = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(4).eval())
        >>> with evaluating(model):
        ...     [part.training for part in model]
        [False, False]
        >>> [part.training for part in model]
        [True, False]
    """
    whole = [(module, module.training) for module in modules]
    parts = [(part, part.training) for module in modules for part in module.modules()]
    try:
        for module in modules:
            module.train(False)
        yield
    finally:
        try:
            for module, training in whole:
                module.train(training)  # a custom `train` may do more than set the mode
        finally:
            for part, training in parts:
                part.training = training


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """A context in which operations on a device run in the types of their inputs.

    Args:
        device: the device.

    Returns:
        The context.
    """
    if device.type == "meta" or not torch.is_autocast_enabled(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
