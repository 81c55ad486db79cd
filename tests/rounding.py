"""Tolerances for results in reduced precision, valid on any CPU.

CPUs differ in the order of sums and in where they round. Tolerances are therefore derived from the
dtype and the depth of the model, and not measured on one machine. Below, `u` is half the `eps` of a
dtype: the largest relative error of rounding to the nearest number.
"""

from collections.abc import Callable

import torch
from torch import nn

# Consecutive matrix products in a transformer layer: query, scores, weighted sum, output, and two
# in the feed-forward network. No other layer in the tests has more.
PRODUCTS = 6
TWINS = 6


def rounding_error(dtype: torch.dtype, layers: int) -> float:
    """Bound the relative error (by norm) of values after `layers` layers.

    A matrix product rounds both factors and the result, each with an error of up to u.
    Normalizations and residual connections between products do not amplify relative errors, so the
    errors at most add up to 3 u per product.
    """
    return 3 * PRODUCTS * layers * torch.finfo(dtype).eps / 2


def assert_rounded(got: torch.Tensor, exact: torch.Tensor, dtype: torch.dtype, layers: int) -> None:
    """Check that a result in `dtype` is finite and within `rounding_error` of the exact one."""
    assert got.isfinite().all()
    got, exact = got.detach().double(), exact.detach().double()
    error = float((got - exact).norm() / exact.norm())
    assert error <= rounding_error(dtype, layers)


def one_step(dtype: torch.dtype) -> dict[str, float]:
    """Return tolerances for float32 values stored in `dtype` that differ in the order of sums.

    Two such values can be rounded to two neighbouring numbers of `dtype`, which differ by at most
    eps, relative to the value. The small absolute tolerance is for sums near zero.
    """
    return {"rtol": torch.finfo(dtype).eps, "atol": 1e-5}


def rounding_of_gradients(
    step: Callable[[nn.Module], tuple[torch.Tensor, torch.Tensor]],
    build: Callable[[], nn.Module],
    dtype: torch.dtype,
    layers: int,
) -> tuple[float, float]:
    """Estimate the largest relative error of a loss and of its gradients (by norm) in `dtype`.

    A gradient jumps where a ReLU switches on or off, and rounding can move an activation across
    such a point. The error of the gradient is therefore not bounded by a multiple of u. It is
    estimated with float32 models whose weights are perturbed by random relative errors of at most u
    times the square root of the number of products, to which that many independent rounding errors
    add up.

    Args:
        step: returns loss and gradients (N,) of a model.
        build: builds the model, the same one in every call.
        dtype: dtype of the products.
        layers: number of layers between input and loss.

    Returns:
        The largest errors of loss and gradients among the perturbed models.
    """
    exact = step(build())
    reach = (PRODUCTS * layers) ** 0.5 * torch.finfo(dtype).eps / 2
    generator = torch.Generator().manual_seed(0)
    errors = []
    for _ in range(TWINS):
        twin = build()
        with torch.no_grad():
            for weight in twin.parameters():
                weight.mul_(1 + reach * (2 * torch.rand(weight.shape, generator=generator) - 1))
        errors.append(
            [float((a - b).norm() / b.norm()) for a, b in zip(step(twin), exact, strict=True)]
        )
    loss, gradients = map(max, zip(*errors, strict=True))
    return loss, gradients
