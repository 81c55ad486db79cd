"""What is saved of a model beside its items: its settings, its backbone, its whole weights."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol, cast

import torch
from torch import nn

from odmt_sdk.backbones.built_in import built_in_arguments
from odmt_sdk.backbones.per_source import SourceBackbones
from odmt_sdk.backbones.registry import unwrap_backbone
from odmt_sdk.config import ODMTConfig
from odmt_sdk.errors import AdapterError
from odmt_sdk.evaluation.table import metrics_table
from odmt_sdk.hub.card import METRIC, CardFacts, render_card
from odmt_sdk.hub.card_details import CardDetails
from odmt_sdk.hub.description import Description, SavedBackbone
from odmt_sdk.hub.weights import plain_name
from odmt_sdk.vocabulary import ItemVocabulary


class Describable(Protocol):
    """What is read of a model."""

    config: ODMTConfig
    hidden_size: int
    max_seq_length: int
    backbone_name: str
    backbones: SourceBackbones | None
    card: CardDetails
    vocabulary: ItemVocabulary | None
    item_features: Any
    _widths: dict[str, int]
    _provenance: Mapping[str, Mapping[str, Any]]
    _own_call: bool

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources."""


def describe(model: Describable, *, backbone_weights: bool) -> Description:
    """Describe a model as it is saved.

    Args:
        model: has items.
        backbone_weights: whether the weights of the user's modules are saved.

    Returns:
        The description, with the hidden size and the length of sequences filled in.
    """
    adapted = list(model.backbones.by_source.values()) if model.backbones is not None else []
    width = getattr(unwrap_backbone(adapted[0]), "hidden_size", None)
    name, arguments = (None if model._own_call else _built_in(adapted)) or (None, {})
    provenance = getattr(model.item_features, "provenance", None) or model._provenance
    return Description(
        config=dataclasses.replace(
            model.config, hidden_size=model.hidden_size, max_seq_length=model.max_seq_length
        ),
        widths=model._widths,
        backbone=SavedBackbone(
            name=model.backbone_name,
            width=width if type(width) is int else None,
            built_in=name,
            arguments=arguments,
            weights=backbone_weights,
        ),
        features={modality: _plain(about) for modality, about in provenance.items()},
        card=model.card,
    )


def whole_weights(
    state_dict: Mapping[str, Any],
) -> tuple[dict[str, torch.Tensor], bool]:
    """Weights by plain names, collected from all processes where they are spread.

    Args:
        state_dict: of the model.

    Returns:
        The weights, and whether they were spread over processes.

    Raises:
        AdapterError: if something in it is no tensor.
    """
    found, spread = {}, False
    for name, value in state_dict.items():
        if hasattr(value, "full_tensor"):
            value, spread = value.full_tensor(), True
        if not isinstance(value, torch.Tensor):
            raise AdapterError(
                f"{name} is a {type(value).__name__}; only tensors can be saved: keep it out of "
                "the backbone's state_dict, for example as a constructor argument"
            )
        found[plain_name(name)] = value
    return found, spread


def write_card(
    model: Describable,
    description: Description,
    weights: Mapping[str, torch.Tensor],
    *,
    name: str,
    catalogue: bool,
    ready: bool,
) -> str:
    """Write the model card of a model.

    Args:
        model: has items.
        description: as it is saved.
        weights: that are saved.
        name: repository or folder that the load snippet names.
        catalogue: whether the items are saved.
        ready: whether their embeddings are.

    Returns:
        Markdown with front matter.
    """
    vocabulary = cast(ItemVocabulary, model.vocabulary)
    return render_card(
        CardFacts(
            name=name,
            description=description,
            card=model.card,
            sources=model.sources,
            num_weights=sum(value.numel() for value in weights.values()),
            num_items=len(vocabulary) if catalogue else None,
            item_ids=vocabulary.item_ids[:2],
            ready=ready,
            tables={
                split: metrics_table({"fused": found}, metrics=names)
                for split, found in model.card.results.items()
                if (names := [name for name in found if METRIC.fullmatch(name)])
            },
        )
    )


def _built_in(adapted: list[nn.Module]) -> tuple[str, dict[str, Any]] | None:
    """Name and arguments of the built-in backbone that all sources have."""
    found = [built_in_arguments(backbone) for backbone in adapted]
    return found[0] if all(one == found[0] for one in found) else None


def _plain(about: Mapping[str, Any]) -> dict[str, Any]:
    """Provenance as JSON values."""
    return {
        str(key): value if value is None or isinstance(value, str | int | float) else str(value)
        for key, value in about.items()
    }
