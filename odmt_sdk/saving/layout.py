"""Names and limits of an adapter folder.

`config.json` says what the folder holds and in which files. It is the one file that is replaced to
exchange an adapter for another, so every other file may carry the mark of a save in its name:
`model.safetensors` while nothing is being saved, `model-1f0c3a55.safetensors` in between.
"""

import re
from typing import NamedTuple

LIBRARY = "odmt-sdk"
FORMAT_VERSION = 2
CONFIG = "config.json"
CARD = "README.md"
EXTENSIONS = {
    "model": "safetensors",
    "item_embeddings": "safetensors",
    "feature_moments": "safetensors",
    "item_to_item": "safetensors",
    "items": "json",
}
STAGE = re.compile(r"\.save-[0-9a-f]{8}")  # folder in which a save prepares its files
MAX_SHARDS = 200
MAX_LAYERS = 64
MAX_MODALITIES = 32
MAX_LAYERS_OF_ALL_MODALITIES = 256  # a fusion may have its layers once for each modality
MAX_BUILT_TENSORS = 3_000  # of a model that is made from its folder alone
MAX_CONFIG_BYTES = 1 << 20
MAX_ID_BYTES = 4096  # of an item id, as JSON

_NAME = re.compile(
    r"(?P<role>model|item_embeddings|feature_moments|item_to_item|items)(?:-(?P<mark>[0-9a-f]{8}))?"
    r"(?:-(?P<number>\d{5})-of-(?P<count>\d{5}))?\.(?P<extension>safetensors|json)"
)


class FileName(NamedTuple):
    """A file of an adapter.

    Args:
        role: "model", "items", "item_embeddings", "feature_moments" or "item_to_item".
        mark: of the save that wrote it; "" once nothing else has the plain name.
        number: of the shard, from 1.
        shards: how many there are.
    """

    role: str
    mark: str = ""
    number: int = 1
    shards: int = 1

    def __str__(self) -> str:
        mark = f"-{self.mark}" if self.mark else ""
        shard = f"-{self.number:05d}-of-{self.shards:05d}" if self.shards > 1 else ""
        return f"{self.role}{mark}{shard}.{EXTENSIONS[self.role]}"


def parse_name(name: str) -> FileName | None:
    """Read a file name.

    Args:
        name: without a folder.

    Returns:
        Its parts, or None if no adapter has a file of this name.
    """
    found = _NAME.fullmatch(name)
    if found is None or not found["role"]:
        return None
    parts = FileName(
        found["role"], found["mark"] or "", int(found["number"] or 1), int(found["count"] or 1)
    )
    return parts if str(parts) == name and 1 <= parts.number <= parts.shards else None
