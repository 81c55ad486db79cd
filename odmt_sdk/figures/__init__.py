"""Figures, one call each; matplotlib is imported when one is drawn."""

from typing import TYPE_CHECKING

from odmt_sdk.public_names import hand_out

if TYPE_CHECKING:
    from odmt_sdk.figures.score_contributions import Contributions, contributions

__all__ = [
    "Contributions",
    "contributions",
]

_HOMES = {
    "Contributions": "odmt_sdk.figures.score_contributions",
    "contributions": "odmt_sdk.figures.score_contributions",
}

__getattr__, __dir__ = hand_out(__name__, _HOMES)
