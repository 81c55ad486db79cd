"""A small drawn shop and tiny encoders, for examples and tests."""

from typing import TYPE_CHECKING

from odmt_sdk.public_names import hand_out

if TYPE_CHECKING:
    from odmt_sdk.toy_shop.tiny_encoders import tiny_image_encoder, tiny_text_encoder

__all__ = [
    "tiny_image_encoder",
    "tiny_text_encoder",
]

_HOMES = {
    "tiny_image_encoder": "odmt_sdk.toy_shop.tiny_encoders",
    "tiny_text_encoder": "odmt_sdk.toy_shop.tiny_encoders",
}

__getattr__, __dir__ = hand_out(__name__, _HOMES)
