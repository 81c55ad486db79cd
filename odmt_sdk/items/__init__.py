"""Item encoders: from an item's ID and content tokens to its embeddings."""

from typing import TYPE_CHECKING

from odmt_sdk.public_names import hand_out

if TYPE_CHECKING:
    from odmt_sdk.items.embedder import GrowingItemEmbedder, ItemEmbedder, StartingItemEmbedder
    from odmt_sdk.items.fusions.vectors import ItemVectors

__all__ = [
    "GrowingItemEmbedder",
    "ItemEmbedder",
    "ItemVectors",
    "StartingItemEmbedder",
]

_HOMES = {
    "GrowingItemEmbedder": "odmt_sdk.items.embedder",
    "ItemEmbedder": "odmt_sdk.items.embedder",
    "ItemVectors": "odmt_sdk.items.fusions.vectors",
    "StartingItemEmbedder": "odmt_sdk.items.embedder",
}

__getattr__, __dir__ = hand_out(__name__, _HOMES)
