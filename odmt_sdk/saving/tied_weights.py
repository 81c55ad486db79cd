"""Weights that share memory: saved once, and made one again when loaded."""

from collections.abc import Mapping

import torch
from torch import nn


def without_shared(
    weights: Mapping[str, torch.Tensor],
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Keep one of several weights that are the same; safetensors refuses shared memory.

    Args:
        weights: state dict.

    Returns:
        The weights to save, none of which share memory, and the name of each weight left out ->
        the name of the one that it is.
    """
    kept: dict[str, torch.Tensor] = {}
    shared: dict[str, str] = {}
    first: dict[tuple[object, ...], str] = {}
    storages: set[tuple[object, ...]] = set()
    for name, tensor in weights.items():
        if not tensor.numel():
            kept[name] = tensor.detach()
            continue
        storage = (tensor.device, tensor.untyped_storage().data_ptr())
        place = (*storage, tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype)
        if place in first:
            shared[name] = first[place]
            continue
        # another view of memory that is saved already
        kept[name] = tensor.detach().clone() if storage in storages else tensor.detach()
        first[place] = name
        storages.add(storage)
    return kept, shared


def share_again(model: nn.Module, shared: Mapping[str, str]) -> None:
    """Make weights of a model one again that were one when it was saved.

    Args:
        model: its weights are loaded.
        shared: name of a parameter -> name of the one that it is.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, kept in shared.items():
        if name in parameters and kept in parameters and parameters[name] is not parameters[kept]:
            owner, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(owner), leaf, parameters[kept])
