"""Tensors that a module needs but that are not in its state dict, so no adapter holds them."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

MAX_ENTRIES = 200  # of a list or dictionary that is looked through
_OF_MODULES = frozenset(vars(nn.Module()))


def unsaved_tensors(module: nn.Module, saved: set[int]) -> Iterator[tuple[str, torch.Tensor]]:
    """Find the tensors of a module that are not in a state dict; those of its children apart.

    Args:
        module: the user's module or one of its submodules.
        saved: ids of the tensors in the state dict of the whole.

    Yields:
        Name and tensor of plain attributes, non-persistent buffers, and entries of lists and
        dictionaries, which may be modules. Attributes with "cache" in their names are left out, and
        torch's own layers, which hold tensors that they compute from their weights.

    Examples:
        >>> class Mine(nn.Module):
        ...     pass
        >>> module = Mine()
        >>> module.more = [nn.Linear(2, 2, bias=False)]
        >>> [name for name, _ in unsaved_tensors(module, set(map(id, module.parameters())))]
        ['more.0.weight']
    """
    if type(module).__module__.startswith("torch."):
        return
    own = {name: value for name, value in vars(module).items() if name not in _OF_MODULES}
    own |= {name: module._buffers.get(name) for name in module._non_persistent_buffers_set}
    for name, value in own.items():
        if "cache" not in name:
            yield from (pair for pair in _inside(value, name) if id(pair[1]) not in saved)


def _inside(value: Any, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    entries: Iterable[tuple[Any, Any]] = [("", value)]
    if isinstance(value, list | tuple):
        entries = enumerate(value)
    elif isinstance(value, dict):
        entries = value.items()
    for key, entry in itertools.islice(entries, MAX_ENTRIES):
        where = name if key == "" else f"{name}.{key}"
        if isinstance(entry, nn.Module):
            for inner, tensor in (*entry.named_parameters(), *entry.named_buffers()):
                yield f"{where}.{inner}", tensor
        elif isinstance(entry, torch.Tensor):
            yield where, entry
