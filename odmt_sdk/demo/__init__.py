"""A page to try a model in the browser: histories, recommendations, what each source added."""

from typing import TYPE_CHECKING

from odmt_sdk.public_names import hand_out

if TYPE_CHECKING:
    from odmt_sdk.demo.page import build
    from odmt_sdk.demo.server import launch
    from odmt_sdk.demo.space import make_space

__all__ = [
    "build",
    "launch",
    "make_space",
]

_HOMES = {
    "build": "odmt_sdk.demo.page",
    "launch": "odmt_sdk.demo.server",
    "make_space": "odmt_sdk.demo.space",
}

__getattr__, __dir__ = hand_out(__name__, _HOMES)
