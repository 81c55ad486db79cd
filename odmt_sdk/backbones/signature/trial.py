"""Tools for trial runs of a user's module on tiny batches, and for copying it.

Letters: B users, L positions, D hidden size.
"""

import copy
import itertools
import random
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

SAME_SHAPE = 1e-5
"""Largest relative rounding difference between two runs of the same shape."""
OTHER_SHAPE = 2e-3
"""Largest relative rounding difference between runs of different shapes and kernels."""
OTHER_SHAPE_ON_CPU = 1e-4
OTHER_SHAPE_IN_16_BIT = 5e-2

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def copy_module(module: ModuleT, replaced: Mapping[int, object] | None = None) -> ModuleT:
    """Copy a module.

    Args:
        module: the user's module.
        replaced: id of an object in the module -> its replacement in the copy.

    Returns:
        A deep copy. Its weights have the gradient hooks of the user's, which deepcopy leaves out.

    Raises:
        ValueError: if the module cannot be copied.
    """
    try:
        with torch.no_grad():  # else the weights of a scripted module are copied as operations
            copied = copy.deepcopy(module, dict[int, Any](replaced or {}))
    except Exception as error:  # an attribute of a user's module may raise anything when copied
        raise ValueError(
            f"{type(module).__name__} cannot be copied ({summary(error)}), but every source needs "
            "a copy: keep no locks, generators, open files or computed tensors as attributes, or "
            "pass a function that makes the backbone, backbone=lambda: MyModel(...)"
        ) from error
    for handle in _handles(copied):
        if handle.hooks_dict_ref() is None:  # belongs to a hook of a replaced part;
            handle.extra_dict_ref = ()  # without this the handle could not be copied again
    weights = dict(module.named_parameters())
    for name, now in copied.named_parameters():
        before = weights.get(name, now)
        if now is not before:
            now.requires_grad_(before.requires_grad)
            _copy_hooks(before, now)
    return copied


def _copy_hooks(before: torch.Tensor, now: torch.Tensor) -> None:
    """Register the gradient hooks of a weight with its copy."""
    if not before.requires_grad:
        return
    for hook in (before._backward_hooks or {}).values():
        now.register_hook(hook)
    for hook in (getattr(before, "_post_accumulate_grad_hooks", None) or {}).values():
        now.register_post_accumulate_grad_hook(hook)


def check_copyable(module: nn.Module) -> None:
    """Check that a module can be copied, without copying its weights.

    Args:
        module: the user's module.

    Raises:
        ValueError: if the module cannot be copied.
    """
    tensors = itertools.chain(module.parameters(), module.buffers())
    copy_module(module, {id(tensor): tensor for tensor in tensors})


def _handles(module: nn.Module) -> Iterator[RemovableHandle]:
    """Yield the hook handles in the attributes of all submodules, also in lists and tuples."""
    for part in module.modules():
        for value in vars(part).values():
            for inner in value if isinstance(value, (list, tuple)) else (value,):
                if isinstance(inner, RemovableHandle):
                    yield inner


@contextmanager
def seeded(module: nn.Module, seed: int = 0) -> Iterator[None]:
    """Seed the global random number generators, and restore their states on exit.

    Args:
        module: its weights determine which GPUs are seeded.
        seed: seed for torch, NumPy and Python's `random`.
    """
    numpy = sys.modules.get("numpy")
    drawn = random.getstate(), numpy.random.get_state() if numpy else None
    gpus = sorted({p.device.index for p in module.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=gpus):
        # `torch.manual_seed` would also seed generators that are not restored.
        torch.default_generator.manual_seed(seed)
        for gpu in gpus:
            with torch.cuda.device(gpu):
                torch.cuda.manual_seed(seed)
        random.seed(seed)
        if numpy:
            numpy.random.seed(seed)
        try:
            yield
        finally:
            random.setstate(drawn[0])
            if numpy:
                numpy.random.set_state(drawn[1])


def random_embeds(module: nn.Module, *shape: int, seed: int = 0) -> torch.Tensor:
    """Normal random values with the device and dtype of a module's weights.

    Args:
        module: determines device and dtype; float32 on the CPU if it has no floating-point weights.
        shape: shape of the tensor.
        seed: the same seed and shape give the same values.

    Returns:
        The tensor.
    """
    like = next((p for p in module.parameters() if p.is_floating_point()), torch.empty(0))
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).to(device=like.device, dtype=like.dtype)


def differs(first: torch.Tensor, second: torch.Tensor, tolerance: float) -> bool:
    """Whether two results differ by more than rounding; values that are not finite differ.

    Args:
        first: a tensor of any shape.
        second: a tensor of the same shape.
        tolerance: largest difference, relative to the largest absolute value.

    Returns:
        True if they differ.
    """
    if not first.numel():
        return False
    first, second = first.float(), second.float()
    scale = torch.maximum(first.abs().max(), second.abs().max())
    return not bool((first - second).abs().max() <= tolerance * scale)


def summary(error: BaseException) -> str:
    """The class and the first line of an error, as text within a sentence."""
    text = str(error).strip()
    first = text.splitlines()[0] if text else ""
    first = first if len(first) <= 160 else first[:160] + " ..."
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def other_shape(values: torch.Tensor) -> float:
    """Largest relative rounding difference between runs of different shapes.

    Args:
        values: a tensor whose device and dtype determine the tolerance.

    Returns:
        The tolerance for `differs`.
    """
    if values.dtype in (torch.float16, torch.bfloat16):
        return OTHER_SHAPE_IN_16_BIT
    return OTHER_SHAPE_ON_CPU if values.device.type == "cpu" else OTHER_SHAPE


def plain(backbone: ModuleT) -> ModuleT:
    """The original module of a module compiled with `torch.compile`, or the module itself.

    Args:
        backbone: a module, compiled or not.

    Returns:
        The original module, whose class and signature can be inspected.
    """
    inside: ModuleT | None = getattr(backbone, "_orig_mod", None)
    return backbone if inside is None else inside
