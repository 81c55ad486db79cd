"""Classification models of torchvision as picture encoders: the last map before they classify.

Letters: b pictures, T tokens, d width, H x W a feature map.
"""

import os
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from odmt_sdk.items.encoders import Encoder, LoadedEncoder, best_device, eval_mode, placed

PREFIX = "torchvision:"
# What torchvision calls the layers that turn features into classes.
_CLASSIFIERS = ("classifier", "fc", "head", "heads", "AuxLogits", "aux1", "aux2")
_TRIAL_SIZE = 224


class TorchvisionEncoder(nn.Module):
    """A torchvision classification model without its classifier, called as transformers' are.

    Args:
        model: any of `torchvision.models.list_models(module=torchvision.models)`, in eval mode.

    Raises:
        ValueError: if the model has no map of features before its classifier.

    Examples:
        >>> import torchvision                                               # doctest: +SKIP
        >>> encoder = TorchvisionEncoder(torchvision.models.resnet18().eval()) # doctest: +SKIP
        >>> encoder(pixel_values=torch.randn(1, 3, 224, 224)).shape           # doctest: +SKIP
        torch.Size([1, 512, 7, 7])
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        from torchvision.models.feature_extraction import create_feature_extractor

        with eval_mode(model), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of nodes that only training has
            self.body = create_feature_extractor(model, {_last_map(model): "tokens"})

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Encode pictures.

        Args:
            pixel_values: (b, 3, height, width).

        Returns:
            (b, d, H, W), or (b, T, d) of a vision transformer.
        """
        tokens: torch.Tensor = self.body(pixel_values)["tokens"]
        return tokens


class _Transforms:
    """Torchvision's transforms of one picture, called as transformers' image processors are."""

    def __init__(self, transforms: Callable[[Any], torch.Tensor]) -> None:
        self.transforms = transforms

    def __call__(
        self, images: list[Any], return_tensors: str | None = None
    ) -> dict[str, torch.Tensor]:
        each = [self.transforms(image) for image in images]
        if len({tuple(picture.shape) for picture in each}) > 1:
            if return_tensors:
                raise ValueError("pictures of different sizes make no tensor")
            return {"pixel_values": each}  # type: ignore[dict-item]
        return {"pixel_values": torch.stack(each)}  # -> (b, 3, height, width)

    def __str__(self) -> str:
        return str(self.transforms)


def is_torchvision_model(encoder: object) -> bool:
    """Tell whether this is "torchvision:NAME", or a pair that starts with a torchvision model."""
    if isinstance(encoder, str):
        return encoder.startswith(PREFIX)
    model = encoder[0] if isinstance(encoder, tuple | list) and encoder else encoder
    return isinstance(model, nn.Module) and type(model).__module__.startswith("torchvision.models.")


def load_torchvision_model(
    encoder: Encoder, device: torch.device | str | None = None
) -> LoadedEncoder:
    """Load a classification model of torchvision with its transforms, or take the user's.

    Args:
        encoder: "torchvision:NAME" for its best weights, "torchvision:NAME.WEIGHTS" for others, or
            a pair (model, weights) or (model, transforms). Transforms of weights are those of
            their metadata.
        device: where to run; None = an accelerator if there is one, for a pair where the model is.

    Returns:
        The model without its classifier, its transforms and its name.

    Raises:
        OSError: if the weights cannot be had.
        ValueError: if there is no such model or no such weights, or it has no map of features.
        TypeError: if a model comes without weights or transforms.
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
            f"image encoder is a {type(encoder).__name__} of torchvision alone: give the pair "
            "(model, weights), whose metadata tell how pictures are prepared"
        )
    model, given = encoder
    name = f"{PREFIX}{type(model).__name__}"
    revision = None
    if hasattr(given, "transforms") and hasattr(given, "meta"):  # an entry of a WeightsEnum
        revision, given = str(given), given.transforms()
    if not callable(given):
        raise TypeError(
            f"{name} comes with {type(given).__name__}, but a torchvision model needs its weights "
            "(for example ResNet50_Weights.DEFAULT) or its transforms beside it"
        )
    body = TorchvisionEncoder(placed(model, device))
    return LoadedEncoder(body, _Transforms(given), name, revision)


def _load_by_name(name: str) -> tuple[nn.Module, Any]:
    from torchvision import models

    name, _, entry = name.partition(".")
    if name not in models.list_models(module=models):
        raise ValueError(
            f"torchvision has no classification model {name!r}; "
            "torchvision.models.list_models(module=torchvision.models) names them"
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
        raise OSError(f"the weights {weights} of {name} cannot be had: {error}") from error
    return model.eval(), weights


def _last_map(model: nn.Module) -> str:
    """The name of the last module before the classifier that returns more than one place."""
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
    side = getattr(model, "image_size", _TRIAL_SIZE)  # vision transformers read one size only
    trial = torch.zeros(1, 3, side, side, device=weight.device, dtype=weight.dtype)
    try:
        with torch.inference_mode():
            model(trial)
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        raise ValueError(
            f"{type(model).__name__} returns no map of features before its classifier: it is no "
            "classification model; give a transformers encoder"
        )
    return found[-1]
