"""Which weights of an adapter serve another catalogue."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True)
class TransferReport:
    """The weights that were taken from an adapter for another catalogue.

    Args:
        loaded: weights that were taken.
        fresh: newly initialized weights of the model: those of item IDs, of modalities that the
            adapter does not have, and of encoders with another width.
        left: weights of the adapter that were not taken.

    Examples:
        >>> print(TransferReport(loaded=("blocks.0.a", "blocks.0.b"), fresh=(), left=("ids",)))
        loaded: blocks.0 (2)
        fresh: nothing
        left in the adapter: ids (1)
    """

    loaded: tuple[str, ...]
    fresh: tuple[str, ...]
    left: tuple[str, ...]

    def __str__(self) -> str:
        lines = (("loaded", self.loaded), ("fresh", self.fresh), ("left in the adapter", self.left))
        return "\n".join(f"{what}: {_by_module(names)}" for what, names in lines)


def plan_transfer(
    saved: Mapping[str, torch.Size], model: Mapping[str, torch.Size], catalogue: set[str]
) -> TransferReport:
    """Choose the weights to take: all of equal name and shape that do not belong to single items.

    A module whose weights do not all fit, such as the projection of a wider encoder, is not taken
    at all.

    Args:
        saved: name -> shape in the adapter.
        model: name -> shape in a model of the other catalogue.
        catalogue: names of weights with a row for every item.

    Returns:
        The choice.
    """
    common = {name for name in saved if name in model and name not in catalogue}
    unfit = {name.rpartition(".")[0] for name in common if saved[name] != model[name]}
    loaded = {
        name
        for name in common
        if saved[name] == model[name] and name.rpartition(".")[0] not in unfit
    }
    return TransferReport(
        loaded=tuple(name for name in model if name in loaded),
        fresh=tuple(name for name in model if name not in loaded),
        left=tuple(name for name in saved if name not in loaded),
    )


def _by_module(names: tuple[str, ...]) -> str:
    """Modules two levels deep with the number of their weights."""
    counts: dict[str, int] = {}
    for name in names:
        module = ".".join(name.split(".")[:3]) if name.count(".") > 1 else name
        module = module.rpartition(".")[0] if module == name and "." in name else module
        counts[module] = counts.get(module, 0) + 1
    return ", ".join(f"{module} ({count})" for module, count in counts.items()) or "nothing"
