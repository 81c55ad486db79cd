"""Running a copy of somebody's module on a tiny batch, without leaving a trace.

Letters: B users, L positions, D hidden size.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

SAME_SHAPE = 1e-5
"""Largest relative difference that rounding makes between two runs of one shape."""
OTHER_SHAPE = 2e-3
"""The same between runs of different shapes, which may take other kernels."""
OTHER_SHAPE_ON_CPU = 1e-4
OTHER_SHAPE_IN_16_BIT = 5e-2

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def copy_module(module: ModuleT) -> ModuleT:
    """Copy a module in eval mode, for trials.

    Args:
        module: anybody's module.

    Returns:
        A deep copy.

    Raises:
        ValueError: if it cannot be copied.
    """
    try:
        return copy.deepcopy(module).eval()
    except Exception as error:  # whatever a user's attribute raises when copied
        raise ValueError(
            f"{type(module).__name__} cannot be copied ({summary(error)}), but every source needs "
            "a copy: keep no locks, generators, open files or computed tensors as attributes"
        ) from error


@contextmanager
def seeded(module: nn.Module, seed: int = 0) -> Iterator[None]:
    """The same random numbers inside on every entry, and the caller's own again afterwards.

    Args:
        module: tells by its weights which devices to seed.
        seed: where to start.
    """
    gpus = sorted({p.device.index for p in module.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=gpus):
        # `torch.manual_seed` would reach generators that are not restored.
        torch.default_generator.manual_seed(seed)
        for gpu in gpus:
            with torch.cuda.device(gpu):
                torch.cuda.manual_seed(seed)
        yield


def random_embeds(module: nn.Module, *shape: int, seed: int = 0) -> torch.Tensor:
    """Normal random values on the device and with the type of a module's weights.

    Args:
        module: says device and type; without floating-point weights, float32 on the CPU.
        shape: of the tensor.
        seed: the same seed and shape give the same values.

    Returns:
        The tensor.
    """
    like = next((p for p in module.parameters() if p.is_floating_point()), torch.empty(0))
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).to(device=like.device, dtype=like.dtype)


def differs(first: torch.Tensor, second: torch.Tensor, tolerance: float) -> bool:
    """Whether two results differ by more than rounding; anything not finite differs.

    Args:
        first: any shape.
        second: the same shape.
        tolerance: relative to the largest value.

    Returns:
        The answer.
    """
    if not first.numel():
        return False
    first, second = first.float(), second.float()
    scale = torch.maximum(first.abs().max(), second.abs().max())
    return not bool((first - second).abs().max() <= tolerance * scale)


def summary(error: BaseException) -> str:
    """Class and first line of an error, for use inside a sentence."""
    text = str(error).strip()
    first = text.splitlines()[0] if text else ""
    first = first if len(first) <= 160 else first[:160] + " ..."
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def other_shape(values: torch.Tensor) -> float:
    """Largest relative difference that rounding makes between runs of different shapes.

    Args:
        values: tell device and type.

    Returns:
        The tolerance for `differs`.
    """
    if values.dtype in (torch.float16, torch.bfloat16):
        return OTHER_SHAPE_IN_16_BIT
    return OTHER_SHAPE_ON_CPU if values.device.type == "cpu" else OTHER_SHAPE
