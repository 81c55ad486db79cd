"""New random weights for a copy of somebody's module, where it knows how to draw them."""

from torch import nn


def reinitialize(backbone: nn.Module) -> nn.Module:
    """Draw new weights in place, each module by its own `reset_parameters`.

    Parts come before what they are part of, so that a model's own `reset_parameters` has the last
    word over those of its layers.

    Args:
        backbone: anybody's module; a copy, since it is changed.

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
    """Whether the module of this name, or one that it is part of, draws new weights."""
    parts = name.split(".") if name else []
    return any(
        _own_reset(backbone.get_submodule(".".join(parts[:depth])))
        for depth in range(len(parts) + 1)
    )


def _own_reset(module: nn.Module) -> str | None:
    """Name of the method that draws new weights; torch's attention has it with an underscore."""
    names = ("reset_parameters", "_reset_parameters")
    return next((name for name in names if callable(getattr(module, name, None))), None)


def _reset(module: nn.Module) -> None:
    name = _own_reset(module)
    if name:
        getattr(module, name)()
