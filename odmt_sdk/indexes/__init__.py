"""Nearest-neighbour indexes of the item vectors; searching one does not require torch."""

from typing import TYPE_CHECKING

from odmt_sdk.public_names import hand_out

if TYPE_CHECKING:
    from odmt_sdk.indexes.build import build_index
    from odmt_sdk.indexes.item_index import ItemIndex

__all__ = [
    "ItemIndex",
    "build_index",
]

_HOMES = {
    "ItemIndex": "odmt_sdk.indexes.item_index",
    "build_index": "odmt_sdk.indexes.build",
}

__getattr__, __dir__ = hand_out(__name__, _HOMES)
