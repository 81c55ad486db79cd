"""torchvision classification models as image encoders, by their last feature map.

Letters: b images, T tokens, d width, H x W a feature map.
"""

import os
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from odmt_sdk.features.extraction.pretrained_encoders import (
    Encoder,
    LoadedEncoder,
    best_device,
    placed,
)
from odmt_sdk.modes import evaluating

PREFIX = "torchvision:"
# Names of the classification layers in torchvision models.
_CLASSIFIERS = ("classifier", "fc", "head", "heads", "AuxLogits", "aux1", "aux2")
_TRIAL_SIZE = 224


class TorchvisionEncoder(nn.Module):
    """Wraps a torchvision classification model without its classifier as a transformers encoder.

    Args:
        model: any of `torchvision.models.list_models(module=torchvision.models)`, in eval mode.

    Raises:
        ValueError: if the model has no feature map before its classifier.

    Examples:
        >>> import torchvision                                               # doctest: +SKIP
        >>> encoder = TorchvisionEncoder(torchvision.models.resnet18().eval()) # doctest: +SKIP
        >>> encoder(pixel_values=torch.randn(1, 3, 224, 224)).shape           # doctest: +SKIP
        torch.Size([1, 512, 7, 7])
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        from torchvision.models.feature_extraction import create_feature_extractor

        with evaluating(model), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about nodes that exist only in train mode
            self.body = create_feature_extractor(model, {_last_map(model): "tokens"})

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Encode images.

        Args:
            pixel_values: (b, 3, height, width).

        Returns:
            Feature map (b, d, H, W), or tokens (b, T, d) of a vision transformer.
        """
        tokens: torch.Tensor = self.body(pixel_values)["tokens"]
        return tokens


class _Transforms:
    """Wraps torchvision transforms of one image as a transformers image processor."""

    def __init__(self, transforms: Callable[[Any], torch.Tensor]) -> None:
        self.transforms = transforms

    def __call__(self, images: list[Any], return_tensors: str | None = None) -> dict[str, Any]:
        each = [self.transforms(image) for image in images]
        if len({tuple(picture.shape) for picture in each}) > 1:
            if return_tensors:
                raise ValueError("pictures of different sizes cannot be stacked")
            return {"pixel_values": each}
        return {"pixel_values": torch.stack(each)}  # -> (b, 3, height, width)

    def __str__(self) -> str:
        return str(self.transforms)


def is_torchvision_model(encoder: object) -> bool:
    """Check for "torchvision:NAME", a torchvision model, or a pair that starts with one."""
    if isinstance(encoder, str):
        return encoder.startswith(PREFIX)
    model = encoder[0] if isinstance(encoder, tuple | list) and encoder else encoder
    return isinstance(model, nn.Module) and type(model).__module__.startswith("torchvision.models.")


def load_torchvision_model(
    encoder: Encoder, device: torch.device | str | None = None
) -> LoadedEncoder:
    """Load a torchvision classification model with its transforms, or accept a loaded one.

    Args:
        encoder: "torchvision:NAME" for the default weights, "torchvision:NAME.WEIGHTS" for others,
            or a pair (model, weights) or (model, transforms). The transforms of weights are the
            ones in their metadata.
        device: where to run; None = an accelerator if available, or the current device of a
            loaded model.

    Returns:
        The model without its classifier, its transforms and its name.

    Raises:
        OSError: if the weights cannot be downloaded or loaded.
        ValueError: if the model or its weights do not exist, or it has no feature map.
        TypeError: if a model is passed without weights or transforms.
    """
    if isinstance(encoder, str | os.PathLike):
        model, weights = _load_by_name(os.fspath(encoder).removeprefix(PREFIX))
        target = best_device() if device is None else torch.device(device)
        body = TorchvisionEncoder(model).to(target)
        return LoadedEncoder(
            body, _Transforms(weights.transforms()), os.fspath(encoder), str(weights)
        )
    if not isinstance(encoder, tuple | list) or len(encoder) != 2:
        raise TypeError(
            f"image encoder is a {type(encoder).__name__} of torchvision without its weights: give "
            "the pair (model, weights), whose metadata define the preprocessing"
        )
    model, given = encoder
    name = f"{PREFIX}{type(model).__name__}"
    revision = None
    if hasattr(given, "transforms") and hasattr(given, "meta"):  # an entry of a WeightsEnum
        revision, given = str(given), given.transforms()
    if not callable(given):
        raise TypeError(
            f"{name} is paired with {type(given).__name__}, but a torchvision model must be paired "
            "with its weights (for example ResNet50_Weights.DEFAULT) or its transforms"
        )
    body = TorchvisionEncoder(placed(model, device))
    return LoadedEncoder(body, _Transforms(given), name, revision)


def _load_by_name(name: str) -> tuple[nn.Module, Any]:
    from torchvision import models

    name, _, entry = name.partition(".")
    if name not in models.list_models(module=models):
        raise ValueError(
            f"torchvision has no classification model {name!r}; "
            "torchvision.models.list_models(module=torchvision.models) lists them"
        )
    choices = models.get_model_weights(name)
    entry = entry or "DEFAULT"
    if entry not in choices.__members__:
        raise ValueError(f"{name} has no weights {entry!r}; there are {list(choices.__members__)}")
    weights = choices[entry]
    try:
        with torch.random.fork_rng(devices=[]):
            model = models.get_model(name, weights=weights)
    except (OSError, RuntimeError) as error:
        raise OSError(f"the weights {weights} of {name} cannot be loaded: {error}") from error
    return model.eval(), weights


def _last_map(model: nn.Module) -> str:
    """Find the last module before the classifier whose output has more than one position."""
    found: list[str] = []
    hooks = []

    def watch(name: str) -> Callable[..., None]:
        def seen(module: nn.Module, inputs: Any, output: Any) -> None:
            places = 0
            if isinstance(output, torch.Tensor) and output.ndim in (3, 4):
                shape = output.shape
                places = shape[1] if output.ndim == 3 else shape[2] * shape[3]
            if places > 1:
                found.append(name)

        return seen

    for name, module in model.named_modules():
        if name and name.partition(".")[0] not in _CLASSIFIERS:
            hooks.append(module.register_forward_hook(watch(name)))
    weight = next(model.parameters())
    side = getattr(model, "image_size", _TRIAL_SIZE)  # vision transformers accept one size only
    trial = torch.zeros(1, 3, side, side, device=weight.device, dtype=weight.dtype)
    try:
        with torch.inference_mode():
            model(trial)
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no feature map before its classifier, so it is not a "
            "classification model of a supported kind: give a transformers encoder"
        )
    return found[-1]
