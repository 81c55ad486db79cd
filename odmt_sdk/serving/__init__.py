"""HTTP service for recommendations from an adapter."""

from typing import TYPE_CHECKING

from odmt_sdk.public_names import hand_out

if TYPE_CHECKING:
    from odmt_sdk.serving.app import create_app
    from odmt_sdk.serving.limits import Limits

__all__ = [
    "Limits",
    "create_app",
]

_HOMES = {
    "Limits": "odmt_sdk.serving.limits",
    "create_app": "odmt_sdk.serving.app",
}

__getattr__, __dir__ = hand_out(__name__, _HOMES)
