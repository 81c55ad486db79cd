"""Reinitialization of a module through the `reset_parameters` methods of its submodules."""

from typing import TypeVar

from torch import nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def reinitialize(backbone: ModuleT) -> ModuleT:
    """Reinitialize all weights in place through the `reset_parameters` of each submodule.

    Submodules are reset before the modules that contain them, so a model's own `reset_parameters`
    overrides those of its layers.

    Args:
        backbone: the module to change; pass a copy if the original is still needed.

    Returns:
        The same module.

    Raises:
        ValueError: if a module with parameters has no `reset_parameters`.

    Examples:
        >>> import torch
        >>> gru = nn.GRU(4, 4)
        >>> before = gru.weight_hh_l0.clone()
        >>> torch.equal(reinitialize(gru).weight_hh_l0, before)
        False
    """
    for name, module in backbone.named_modules():
        own = [key for key, _ in module.named_parameters(recurse=False)]
        if own and not _covered(backbone, name):
            raise ValueError(
                f"{type(backbone).__name__} cannot draw new weights for {name or 'itself'} "
                f"({type(module).__name__} with {', '.join(own)}): give that module a "
                "reset_parameters() method, or pass a factory, backbone=lambda: MyModel(...)"
            )
    backbone.apply(_reset)
    return backbone


def _covered(backbone: nn.Module, name: str) -> bool:
    """Whether the module of this name, or a module that contains it, can be reinitialized."""
    parts = name.split(".") if name else []
    return any(
        _own_reset(backbone.get_submodule(".".join(parts[:depth])))
        for depth in range(len(parts) + 1)
    )


def _own_reset(module: nn.Module) -> str | None:
    """The name of the reset method, if any; in torch's attention it starts with an underscore."""
    names = ("reset_parameters", "_reset_parameters")
    return next((name for name in names if callable(getattr(module, name, None))), None)


def _reset(module: nn.Module) -> None:
    name = _own_reset(module)
    if name:
        getattr(module, name)()
