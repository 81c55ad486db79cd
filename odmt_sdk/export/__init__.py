"""Export of the user encoder as a graph that runs without the package (PyTorch, ONNX Runtime)."""

from typing import TYPE_CHECKING

from odmt_sdk.public_names import hand_out

if TYPE_CHECKING:
    from odmt_sdk.export.exported import ExportedUserEncoder

__all__ = ["ExportedUserEncoder"]

_HOMES = {"ExportedUserEncoder": "odmt_sdk.export.exported"}

__getattr__, __dir__ = hand_out(__name__, _HOMES)
