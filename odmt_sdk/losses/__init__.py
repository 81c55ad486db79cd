"""The training objective: in-batch softmax and online distillation."""

from typing import TYPE_CHECKING

from odmt_sdk.public_names import hand_out

if TYPE_CHECKING:
    from odmt_sdk.losses.distillation import distillation_loss
    from odmt_sdk.losses.online_distillation import LossParts
    from odmt_sdk.losses.teaching import TeachingEdge

__all__ = [
    "LossParts",
    "TeachingEdge",
    "distillation_loss",
]

_HOMES = {
    "LossParts": "odmt_sdk.losses.online_distillation",
    "TeachingEdge": "odmt_sdk.losses.teaching",
    "distillation_loss": "odmt_sdk.losses.distillation",
}

__getattr__, __dir__ = hand_out(__name__, _HOMES)
