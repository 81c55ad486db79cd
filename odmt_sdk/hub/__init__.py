"""The Hugging Face Hub: downloading, describing and pushing adapters."""

from typing import TYPE_CHECKING

from odmt_sdk.public_names import hand_out

if TYPE_CHECKING:
    from odmt_sdk.hub.description import AdapterDescription, describe_adapter
    from odmt_sdk.hub.pull import pull_folder
    from odmt_sdk.hub.push import make_repository, push_folder

__all__ = [
    "AdapterDescription",
    "describe_adapter",
    "make_repository",
    "pull_folder",
    "push_folder",
]

_HOMES = {
    "AdapterDescription": "odmt_sdk.hub.description",
    "describe_adapter": "odmt_sdk.hub.description",
    "make_repository": "odmt_sdk.hub.push",
    "pull_folder": "odmt_sdk.hub.pull",
    "push_folder": "odmt_sdk.hub.push",
}

__getattr__, __dir__ = hand_out(__name__, _HOMES)
