"""Checking saved weights against a model before any of them is touched."""

from collections.abc import Mapping

import torch

from odmt_sdk.errors import AdapterError

SHOWN = 5


def check_weights(
    saved: Mapping[str, torch.Tensor],
    expected: Mapping[str, torch.Tensor],
    *,
    saved_backbone: str,
    backbone: str,
) -> None:
    """Raise unless the saved weights fit the model by name and shape.

    Args:
        saved: weights of the adapter.
        expected: weights of the model.
        saved_backbone: class name of the backbone that was wrapped.
        backbone: class name of the backbone at hand.

    Raises:
        AdapterError: if names or shapes disagree.
    """
    missing = sorted(set(expected) - set(saved))
    unexpected = sorted(set(saved) - set(expected))
    reshaped = [
        f"{name} is {tuple(saved[name].shape)} in the adapter, {tuple(expected[name].shape)} in "
        "the model"
        for name in expected
        if name in saved and saved[name].shape != expected[name].shape
    ]
    problems = [
        f"{what}: {'; '.join(names[:SHOWN])}{' ...' if len(names) > SHOWN else ''}"
        for what, names in (
            ("not in the adapter", missing),
            ("not in the model", unexpected),
            ("other shapes", reshaped),
        )
        if names
    ]
    if problems:
        raise AdapterError(
            f"the adapter was trained with a {saved_backbone} backbone that does not fit the "
            f"{backbone} passed now. {'. '.join(problems)}. Build the backbone as it was for "
            "training"
        )
