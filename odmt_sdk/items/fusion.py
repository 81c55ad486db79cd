"""Registry of fusions: how an item's ID and modalities become the embeddings of its sources."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from odmt_sdk.config import ODMTConfig
from odmt_sdk.items.encoder import IDEncoder, ItemEncoder
from odmt_sdk.items.fusions.concatenated import ConcatFusion
from odmt_sdk.items.fusions.early_deep import EarlyDeepFusion
from odmt_sdk.items.fusions.gated import GatedFusion
from odmt_sdk.items.fusions.id_ensemble import IdEnsemble
from odmt_sdk.items.fusions.non_invasive import NonInvasiveFusion
from odmt_sdk.items.fusions.only import OnlyContent
from odmt_sdk.items.fusions.summed import SumFusion
from odmt_sdk.items.fusions.towers import Towers
from odmt_sdk.items.fusions.vectors import ItemVectors
from odmt_sdk.items.modality import ModalityTokens


class ItemEmbedder(Protocol):
    """What the wrapper asks of an item encoder."""

    sources: tuple[str, ...]
    modalities: tuple[str, ...]

    def __call__(
        self, item_ids: torch.Tensor, features: Mapping[str, ModalityTokens] | None = None
    ) -> dict[str, torch.Tensor]:
        """Rows (U,) and modality -> tokens, to source -> (U, D)."""


@runtime_checkable
class GrowingItemEmbedder(Protocol):
    """What an item encoder also has if it can represent items that training has never seen."""

    unseen: torch.Tensor

    def set_unseen(self, unseen: torch.Tensor) -> None:
        """Say which rows (N + 1,), bool, training has never seen."""

    def add_items(self, count: int) -> None:
        """Make room for more items, unseen ones."""


@runtime_checkable
class StartingItemEmbedder(Protocol):
    """What an item encoder also has if new IDs can start from what it learned of unknown ones."""

    def start_ids(self) -> None:
        """Start every ID at the vector of unknown IDs, if that has learned anything."""


FusionBuilder = Callable[[ODMTConfig, int, int, Mapping[str, int]], nn.Module]
_FUSIONS: dict[str, FusionBuilder] = {}


def register_fusion(name: str) -> Callable[[FusionBuilder], FusionBuilder]:
    """Make a fusion available as `ODMTConfig(fusion=name)`.

    Args:
        name: its name. One that ends in a colon takes all that start with it: "only:" is what
            `fusion="only:text"` means, and reads the rest from its config.

    Returns:
        A decorator for a function `(config, num_items, hidden_size, modality_widths) -> module`,
        where the module follows `ItemEmbedder`.

    Raises:
        ValueError: if the name is taken.

    Examples:
        >>> @register_fusion("my-fusion")                                    # doctest: +SKIP
        ... def build(config, num_items, hidden_size, modality_widths):
        ...     return MyItemEncoder(num_items, hidden_size, modality_widths)
    """

    def register(builder: FusionBuilder) -> FusionBuilder:
        if name in _FUSIONS:
            raise ValueError(f"a fusion named {name!r} is registered already; choose another name")
        _FUSIONS[name] = builder
        return builder

    return register


def build_item_encoder(
    config: ODMTConfig, num_items: int, hidden_size: int, modality_widths: Mapping[str, int]
) -> nn.Module:
    """Build the item encoder that `config.fusion` names.

    Args:
        config: the settings.
        num_items: N.
        hidden_size: D.
        modality_widths: modality -> feature width.

    Returns:
        A module that follows `ItemEmbedder`.

    Raises:
        ValueError: if no fusion of that name is registered.
    """
    family, colon, _ = config.fusion.partition(":")
    if family + colon not in _FUSIONS:
        raise ValueError(
            f"fusion={config.fusion!r} is not registered; known are {sorted(_FUSIONS)}. "
            "Add your own with register_fusion"
        )
    return _FUSIONS[family + colon](config, num_items, hidden_size, modality_widths)


@register_fusion("odmt")
def _odmt(
    config: ODMTConfig, num_items: int, hidden_size: int, modality_widths: Mapping[str, int]
) -> nn.Module:
    return ItemEncoder(
        num_items=num_items,
        hidden_size=hidden_size,
        modality_widths=modality_widths,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        id_visibility=config.id_visibility,
        dropout=config.dropout,
        layer_norm_eps=config.layer_norm_eps,
        modality_dropout=config.modality_dropout,
        id_dropout=config.id_dropout,
        token_norm=config.token_norm,
        shortcut=config.shortcut,
    )


@register_fusion("id")
def _id(
    config: ODMTConfig, num_items: int, hidden_size: int, modality_widths: Mapping[str, int]
) -> nn.Module:
    return IDEncoder(num_items=num_items, hidden_size=hidden_size)


@register_fusion("id_ensemble")
def _id_ensemble(
    config: ODMTConfig, num_items: int, hidden_size: int, modality_widths: Mapping[str, int]
) -> nn.Module:
    copies = 1 + len(modality_widths) if modality_widths else 3
    return IdEnsemble(num_items=num_items, hidden_size=hidden_size, copies=copies)


@register_fusion("only:")
def _only(
    config: ODMTConfig, num_items: int, hidden_size: int, modality_widths: Mapping[str, int]
) -> nn.Module:
    source = config.fusion.partition(":")[2]
    if source == "id":
        return IdEnsemble(num_items=num_items, hidden_size=hidden_size, copies=1)
    return OnlyContent(
        source,
        num_items=num_items,
        hidden_size=hidden_size,
        modality_widths=modality_widths,
        dropout=config.dropout,
        layer_norm_eps=config.layer_norm_eps,
    )


@register_fusion("early_deep")
def _early_deep(
    config: ODMTConfig, num_items: int, hidden_size: int, modality_widths: Mapping[str, int]
) -> nn.Module:
    config = dataclasses.replace(config, shortcut=False)
    return EarlyDeepFusion(_odmt(config, num_items, hidden_size, modality_widths))


@register_fusion("late_deep")
def _late_deep(
    config: ODMTConfig, num_items: int, hidden_size: int, modality_widths: Mapping[str, int]
) -> nn.Module:
    late = partial(Towers, id_head=False, num_layers=config.num_layers, num_heads=config.num_heads)
    return _of_vectors(late, config, num_items, hidden_size, modality_widths)


def _of_vectors(
    fusion: Callable[..., ItemVectors],
    config: ODMTConfig,
    num_items: int,
    hidden_size: int,
    modality_widths: Mapping[str, int],
) -> nn.Module:
    return fusion(
        num_items=num_items,
        hidden_size=hidden_size,
        modality_widths=modality_widths,
        dropout=config.dropout,
        layer_norm_eps=config.layer_norm_eps,
        modality_dropout=config.modality_dropout,
        id_dropout=config.id_dropout,
    )


_VECTOR_FUSIONS: dict[str, Callable[..., ItemVectors]] = {
    "sum": SumFusion,
    "concat": ConcatFusion,
    "gated": GatedFusion,
    "non_invasive": NonInvasiveFusion,
    "towers": Towers,
    "late": partial(Towers, id_head=False),
}
for _name, _fusion in _VECTOR_FUSIONS.items():
    register_fusion(_name)(partial(_of_vectors, _fusion))
