"""The interface of item encoders, and the registry of fusions.

Letters: U items, N items of the catalogue, D hidden size.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

import torch
from torch import nn

from odmt_sdk.config import ODMTConfig
from odmt_sdk.features.modality import ModalityTokens
from odmt_sdk.registry import Registry


class ItemEmbedder(nn.Module):
    """Base class of item encoders, which compute one embedding per source for each item.

    A subclass sets both attributes and defines `forward(item_ids, features)`, where `item_ids` are
    rows (U,) in 0..N and `features` maps each modality to its `ModalityTokens`. `forward` returns
    source -> (U, D).

    Attributes:
        sources: names of the embeddings that it returns. Each source gets its own backbone.
        modalities: names of the features that it reads; empty for an encoder that reads only IDs.

    Examples:
        >>> class Ids(ItemEmbedder):
        ...     sources, modalities = ("id",), ()
        ...
        ...     def __init__(self, num_items, hidden_size):
        ...         super().__init__()
        ...         self.table = nn.Embedding(num_items + 1, hidden_size, padding_idx=0)
        ...
        ...     def forward(self, item_ids, features=None):
        ...         return {"id": self.table(item_ids)}
        >>> Ids(9, 8)(torch.tensor([4, 7]))["id"].shape
        torch.Size([2, 8])
    """

    sources: tuple[str, ...]
    modalities: tuple[str, ...]

    if TYPE_CHECKING:

        def __call__(
            self, item_ids: torch.Tensor, features: Mapping[str, ModalityTokens] | None = None
        ) -> dict[str, torch.Tensor]:
            """Encode items, see `forward`."""


@runtime_checkable
class GrowingItemEmbedder(Protocol):
    """An item encoder that can represent items without training interactions."""

    unseen: torch.Tensor

    def set_unseen(self, unseen: torch.Tensor) -> None:
        """Mark the items without training interactions.

        Args:
            unseen: (N + 1,) bool, True = the item has no training interactions.
        """

    def add_items(self, count: int) -> None:
        """Add items and mark them as unseen.

        Args:
            count: number of new items.
        """


@runtime_checkable
class StartingItemEmbedder(Protocol):
    """An item encoder that can initialize IDs with the unknown-ID vector."""

    def start_ids(self) -> None:
        """Set every ID to the unknown-ID vector, if training has changed that vector."""


FusionBuilder = Callable[[ODMTConfig, int, int, Mapping[str, int]], ItemEmbedder]
Builder = TypeVar("Builder", bound=FusionBuilder)
FUSIONS: Registry[FusionBuilder] = Registry(
    "fusion", "odmt_sdk.register_fusion", "odmt_sdk.items.fusions"
)


def register_fusion(name: str) -> Callable[[Builder], Builder]:
    """Register a fusion, for `ODMTConfig(fusion=name)`.

    Args:
        name: name of the fusion. A name that ends with a colon matches all names that start with
            it: "only:" matches `fusion="only:text"`, and its builder reads the rest of the name
            from the config.

    Returns:
        A decorator for a function `(config, num_items, hidden_size, modality_widths)` that returns
        an `ItemEmbedder`.

    Raises:
        ValueError: if the name is already registered.

    Examples:
        >>> @register_fusion("my-fusion")                                    # doctest: +SKIP
        ... def build(config, num_items, hidden_size, modality_widths):
        ...     return MyItemEncoder(num_items, hidden_size, modality_widths)
    """

    def register(builder: Builder) -> Builder:
        FUSIONS.add(name, builder, by=builder)
        return builder

    return register


def check_fusion(name: str) -> None:
    """Check that a fusion of this name is registered.

    Args:
        name: name such as "odmt" or "only:text".

    Raises:
        ValueError: if it is not registered.
    """
    if _family(name) not in FUSIONS:
        raise ValueError(
            f"fusion={name!r} is not registered; known are {sorted(FUSIONS)}. "
            "Add your own with odmt_sdk.register_fusion"
        )


def build_item_encoder(
    config: ODMTConfig, num_items: int, hidden_size: int, modality_widths: Mapping[str, int]
) -> ItemEmbedder:
    """Build the item encoder of `config.fusion`.

    Args:
        config: the settings.
        num_items: N.
        hidden_size: D.
        modality_widths: modality -> feature width.

    Returns:
        The item encoder; its tables have sparse gradients if `config.sparse_id_gradients`.

    Raises:
        ValueError: if no fusion of that name is registered.
    """
    check_fusion(config.fusion)
    build = FUSIONS.get(_family(config.fusion))
    encoder = build(config, num_items, hidden_size, modality_widths)
    if config.sparse_id_gradients:
        for module in encoder.modules():
            if isinstance(module, nn.Embedding):
                module.sparse = True
    return encoder


def is_built_in_fusion(name: str) -> bool:
    """Whether `ODMTConfig(fusion=name)` is a fusion of this package."""
    return FUSIONS.is_built_in(_family(name))


def _family(name: str) -> str:
    """The registered name: "only:" for "only:text"."""
    family, colon, _ = name.partition(":")
    return family + colon
