"""What is saved of a model, and what of an adapter folder a new model is made from."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from odmt_sdk.config import ODMTConfig
from odmt_sdk.errors import AdapterError
from odmt_sdk.hub.adapter_folder import AdapterFiles, read_adapter, write_adapter
from odmt_sdk.items.feature_set import FeatureSet
from odmt_sdk.vocabulary import ItemVocabulary


class Pretrained(NamedTuple):
    """A model as it is saved.

    Args:
        config: settings, with the hidden size and the length of sequences filled in.
        widths: modality -> feature width.
        backbone: class name of the backbone that was wrapped.
        weights: state dict.
        vocabulary: item ids in row order.
        item_embeddings: source -> (N + 1, D).
    """

    config: ODMTConfig
    widths: Mapping[str, int]
    backbone: str
    weights: dict[str, torch.Tensor]
    vocabulary: ItemVocabulary
    item_embeddings: dict[str, torch.Tensor]


def save(path: str | Path, model: Pretrained) -> Path:
    """Write a model as an adapter folder.

    Args:
        path: the folder.
        model: what to save.

    Returns:
        The folder.

    Raises:
        AdapterError: see `write_adapter`.
    """
    description = {
        "model": model.config.to_dict(),
        "modalities": dict(model.widths),
        "backbone": model.backbone,
    }
    files = AdapterFiles(description, model.weights, model.vocabulary, model.item_embeddings)
    return write_adapter(Path(path), files)


def load(path: str | Path) -> Pretrained:
    """Read an adapter folder.

    Args:
        path: the folder.

    Returns:
        What was saved.

    Raises:
        AdapterError: if it is no adapter, or is damaged.
    """
    files = read_adapter(Path(path))
    try:
        return Pretrained(
            ODMTConfig.from_dict(files.description["model"]),
            {name: int(width) for name, width in files.description["modalities"].items()},
            str(files.description["backbone"]),
            files.weights,
            files.vocabulary,
            files.item_embeddings,
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise AdapterError(f"cannot load the adapter in {str(path)!r}: {error}") from error


def join_features(saved: Pretrained, item_features: FeatureSet) -> FeatureSet:
    """Bring the user's features into the rows of a saved adapter.

    Args:
        saved: the adapter.
        item_features: features of at least its items.

    Returns:
        Features in the order of the adapter's items.

    Raises:
        AdapterError: if modalities or widths differ, or an item has no features.
    """
    if item_features.widths != saved.widths:
        raise AdapterError(
            f"the adapter reads features {saved.widths} (values per token), got "
            f"{item_features.widths}: extract them with the encoders it was trained with"
        )
    try:
        return item_features.select(saved.vocabulary)
    except ValueError as error:
        raise AdapterError(f"the features lack an item of the adapter: {error}") from error
