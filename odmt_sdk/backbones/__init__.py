"""Sequence backbones: the protocol, bridges to other interfaces, the built-in models."""

from typing import TYPE_CHECKING

from odmt_sdk.public_names import hand_out

if TYPE_CHECKING:
    from odmt_sdk.backbones.adapt import adapt_backbone, is_adapted, unwrap_backbone
    from odmt_sdk.backbones.bridge import BackboneBridge
    from odmt_sdk.backbones.check.report import BackboneReport, Finding
    from odmt_sdk.backbones.protocol import SequenceBackbone

__all__ = [
    "BackboneBridge",
    "BackboneReport",
    "Finding",
    "SequenceBackbone",
    "adapt_backbone",
    "is_adapted",
    "unwrap_backbone",
]

_HOMES = {
    "BackboneBridge": "odmt_sdk.backbones.bridge",
    "BackboneReport": "odmt_sdk.backbones.check.report",
    "Finding": "odmt_sdk.backbones.check.report",
    "SequenceBackbone": "odmt_sdk.backbones.protocol",
    "adapt_backbone": "odmt_sdk.backbones.adapt",
    "is_adapted": "odmt_sdk.backbones.adapt",
    "unwrap_backbone": "odmt_sdk.backbones.adapt",
}

__getattr__, __dir__ = hand_out(__name__, _HOMES)
