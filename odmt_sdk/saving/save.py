"""Saving: a model becomes an adapter folder."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import nn

from odmt_sdk.backbones.adapt import unwrap_backbone
from odmt_sdk.backbones.compared_settings import backbone_settings
from odmt_sdk.backbones.models.by_name import built_in_arguments
from odmt_sdk.backbones.per_source import SourceBackbones
from odmt_sdk.config import ODMTConfig
from odmt_sdk.errors import AdapterError
from odmt_sdk.evaluation.table import metrics_table
from odmt_sdk.item_neighbours import ItemNeighbours
from odmt_sdk.paths import user_path
from odmt_sdk.saving.card import METRIC, CardFacts, render_card
from odmt_sdk.saving.card_details import CardDetails
from odmt_sdk.saving.description import Description, SavedBackbone
from odmt_sdk.saving.fitting import catalogue_weights, weights_of_backbones
from odmt_sdk.saving.folder import AdapterContent, write_adapter
from odmt_sdk.saving.weights import plain_name
from odmt_sdk.vocabulary import ItemVocabulary


class SavableModel(Protocol):
    """What is read of a model to save it; `ODMTWrapper` is one."""

    config: ODMTConfig
    hidden_size: int
    max_seq_length: int
    backbone_name: str
    own_call: bool
    backbones: SourceBackbones | None
    card: CardDetails
    vocabulary: ItemVocabulary | None
    feature_widths: dict[str, int]

    @property
    def feature_provenance(self) -> Mapping[str, Mapping[str, Any]]:
        """Modality -> how its features were made."""

    @property
    def feature_moments(self) -> dict[str, torch.Tensor]:
        """The moments by which the features were standardized."""

    @property
    def item_to_item(self) -> ItemNeighbours | None:
        """Item-to-item counts."""

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources."""

    def state_dict(self) -> Mapping[str, Any]:
        """The weights."""

    def encode_catalogue(self) -> dict[str, torch.Tensor]:
        """Source -> (N + 1, D)."""


def save_adapter(
    model: SavableModel,
    path: str | Path,
    *,
    content_only: bool,
    item_embeddings: bool,
    backbone_weights: bool,
    max_shard_size: int | str,
    is_main_process: bool,
    state_dict: Mapping[str, torch.Tensor] | None,
    repo_id: str | None,
) -> Path:
    """Save a model as an adapter folder; see `ODMTWrapper.save_pretrained`.

    Args:
        model: has items.
        path: the folder to make.
        content_only: leave out everything that belongs to single items.
        item_embeddings: whether to save every item's embeddings.
        backbone_weights: whether to save the weights of the user's modules.
        max_shard_size: a larger file of weights is split.
        is_main_process: whether this process writes.
        state_dict: weights collected by other means.
        repo_id: repository that the model card names; None = the folder.

    Returns:
        The folder.

    Raises:
        AdapterError: if the model cannot be saved, or writing fails.
    """
    folder = user_path(path)
    if model.vocabulary is None or model.backbones is None:
        raise AdapterError("a model without items cannot be saved: call set_items first")
    weights, spread = whole_weights(model.state_dict() if state_dict is None else state_dict)
    if not is_main_process:
        return folder
    leave_out: set[str] = set()
    if content_only:
        leave_out |= catalogue_weights(model.config, model.hidden_size, model.feature_widths)
    if not backbone_weights:
        leave_out |= weights_of_backbones(dict(model.backbones.by_source.items()))
    embeddings = None
    if item_embeddings and not content_only and state_dict is None and not spread:
        try:
            embeddings = model.encode_catalogue()
        except ValueError as error:
            raise AdapterError(
                f"cannot save the item embeddings: {error}. Or pass item_embeddings=False"
            ) from error
    description = describe(model, backbone_weights=backbone_weights)
    if content_only:
        description.config.source_weights = None  # they suit these items
    weights = {name: value for name, value in weights.items() if name not in leave_out}
    content = AdapterContent(
        description=description,
        weights=weights,
        vocabulary=None if content_only else model.vocabulary,
        item_embeddings=embeddings,
        feature_moments=model.feature_moments,
        item_to_item=None if content_only else model.item_to_item,
        card=write_card(
            model,
            description,
            weights,
            name=repo_id or str(path),
            catalogue=not content_only,
            ready=embeddings is not None,
        ),
    )
    write_adapter(folder, content, max_shard_size=max_shard_size)
    return folder


def describe(model: SavableModel, *, backbone_weights: bool) -> Description:
    """Describe a model as it is saved.

    Args:
        model: has items.
        backbone_weights: whether the weights of the user's modules are saved.

    Returns:
        The description, with the hidden size and the length of sequences filled in.

    Raises:
        AdapterError: if something in it cannot be saved.
    """
    adapted = list(model.backbones.by_source.values()) if model.backbones is not None else []
    width = getattr(unwrap_backbone(adapted[0]), "hidden_size", None)
    name, arguments = (None if model.own_call else _built_in(adapted)) or (None, {})
    provenance = model.feature_provenance
    description = Description(
        config=dataclasses.replace(
            model.config, hidden_size=model.hidden_size, max_seq_length=model.max_seq_length
        ),
        widths=model.feature_widths,
        backbone=SavedBackbone(
            name=model.backbone_name,
            width=width if type(width) is int else None,
            built_in=name,
            arguments=arguments,
            weights=backbone_weights,
            settings=settings_by_source(model.backbones.by_source if model.backbones else {}),
            own_call=model.own_call,
        ),
        features={modality: dict(about) for modality, about in provenance.items()},
        card=model.card,
    )
    description.to_config()  # refused before the card is written, and anything else
    return description


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
    model: SavableModel,
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
    vocabulary = cast(ItemVocabulary, model.vocabulary)  # `save_adapter` refuses None
    return render_card(
        CardFacts(
            name=name,
            description=description,
            card=description.card,
            sources=model.sources,
            num_weights=sum(value.numel() for value in weights.values()),
            num_items=len(vocabulary) if catalogue else None,
            item_ids=vocabulary.ids(range(1, min(2, len(vocabulary)) + 1)),
            ready=ready,
            tables={
                split: metrics_table({"fused": complete}, metrics=names)
                for split, found in description.card.results.items()
                if (names := [name for name in found if METRIC.fullmatch(name)])
                and (complete := _with_complete_sources(found, names))
            },
        )
    )


def _with_complete_sources(found: Mapping[str, float], names: list[str]) -> dict[str, float]:
    """Metrics without those of sources that lack one of the named ones."""
    return {
        key: value
        for key, value in found.items()
        if "/" not in key or all(f"{key.split('/')[0]}/{name}" in found for name in names)
    }


def settings_by_source(backbones: Any) -> dict[str, Any]:
    """What decides how backbones compute beside their weights.

    Args:
        backbones: source -> adapted backbone.

    Returns:
        Source -> settings; "" -> those that all have.
    """
    found = {
        source: backbone_settings(unwrap_backbone(adapted)) for source, adapted in backbones.items()
    }
    one = next(iter(found.values()), {})
    return {"": one} if all(other == one for other in found.values()) else found


def _built_in(adapted: list[nn.Module]) -> tuple[str, dict[str, Any]] | None:
    """Name and arguments of the built-in backbone that all sources have."""
    found = [built_in_arguments(backbone) for backbone in adapted]
    return found[0] if all(one == found[0] for one in found) else None
