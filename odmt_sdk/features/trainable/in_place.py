"""Trained content encoders in place of the frozen tokens of some modalities.

Letters: U items asked for, T tokens, d token width.
"""

from collections.abc import Mapping

import torch
from torch import nn

from odmt_sdk.features.feature_set import FeatureSet
from odmt_sdk.features.modality import ModalityTokens
from odmt_sdk.features.trainable.encoder import TrainableEncoder


def check_encoders(
    encoders: Mapping[str, TrainableEncoder], item_features: FeatureSet | None
) -> None:
    """Raise unless encoders can replace frozen tokens of the features.

    Args:
        encoders: modality -> encoder to train.
        item_features: the frozen features.

    Raises:
        TypeError: if an encoder is not a trainable encoder.
        ValueError: if the features lack the modality of an encoder.
    """
    for name, encoder in encoders.items():
        if not isinstance(encoder, TrainableEncoder):
            raise TypeError(
                f"encoders[{name!r}] is a {type(encoder).__name__}: give TrainableText(encoder, "
                "items) or TrainableImages(encoder, items)"
            )
        modalities = list(item_features.widths) if item_features is not None else []
        if name not in modalities or name != encoder.modality:
            raise ValueError(
                f"encoders[{name!r}] is an encoder of {encoder.modality}, but item_features have "
                f"{modalities}: extract {encoder.modality} features with ItemFeatures.from_items "
                "and this encoder before training"
            )


def attach_encoders(
    encoders: nn.ModuleDict, item_features: FeatureSet, device: torch.device
) -> None:
    """Tell encoders which items a model has, if they know them all.

    Args:
        encoders: modality -> encoder; those that are absent are passed over.
        item_features: the frozen features of the model.
        device: where the model is.

    Raises:
        ValueError: if an encoder does not fit the features.
    """
    moments = getattr(item_features, "moments", {})
    for name, encoder in encoders.items():
        if isinstance(encoder, TrainableEncoder):
            encoder.attach(item_features, moments.get(name))
            encoder.to(device)


def with_trained(
    encoders: nn.ModuleDict, frozen: Mapping[str, ModalityTokens], item_ids: torch.Tensor
) -> dict[str, ModalityTokens]:
    """Tokens of items, made anew where an encoder is trained.

    Args:
        encoders: modality -> encoder; those that are absent are passed over.
        frozen: modality -> frozen tokens (U, T, d) and lengths (U,).
        item_ids: (U,) rows.

    Returns:
        Modality -> tokens (U, T, d) and lengths (U,), with gradients where they are trained.
    """
    trained = {
        name: encoder(item_ids, frozen[name].lengths)
        for name, encoder in encoders.items()
        if isinstance(encoder, TrainableEncoder)
    }
    return {**frozen, **trained}
