"""How a model becomes an adapter, and an adapter a model."""

from typing import TYPE_CHECKING

from odmt_sdk.public_names import hand_out

if TYPE_CHECKING:
    from odmt_sdk.saving.card_details import CardDetails
    from odmt_sdk.saving.shipped import ShippedAdapter, ShippedAdapters
    from odmt_sdk.saving.transfer import TransferReport

__all__ = [
    "CardDetails",
    "ShippedAdapter",
    "ShippedAdapters",
    "TransferReport",
]

_HOMES = {
    "CardDetails": "odmt_sdk.saving.card_details",
    "ShippedAdapter": "odmt_sdk.saving.shipped",
    "ShippedAdapters": "odmt_sdk.saving.shipped",
    "TransferReport": "odmt_sdk.saving.transfer",
}

__getattr__, __dir__ = hand_out(__name__, _HOMES)
