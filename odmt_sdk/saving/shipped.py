"""The pretrained adapters that come with the package.

Their names begin with "shipped:", which no repository of the Hub can be called and no local folder
is looked for under, so that such a name means one thing everywhere.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from odmt_sdk.errors import AdapterError
from odmt_sdk.markdown import markdown_table
from odmt_sdk.saving.folder import read_config
from odmt_sdk.saving.item_ids import count_item_ids
from odmt_sdk.saving.layout import CONFIG

PREFIX = "shipped:"
FOLDER = Path(__file__).parent.parent / "pretrained"
SHOWN_METRICS = ("hit_rate@10", "ndcg@10")


@dataclass(frozen=True, kw_only=True)
class ShippedAdapter:
    """Description of a pretrained adapter of the package.

    Args:
        name: name for `ODMTWrapper.from_pretrained`, such as "shipped:films-sasrec".
        purpose: purpose of the adapter.
        backbone: class name of its sequence model.
        encoders: modality -> encoder of its features.
        num_items: number of items that it recommends; 0 = no catalogue, for transfer to others.
        num_bytes: size of its files.
        results: split -> metrics in its model card.
        folder: folder of the adapter.
    """

    name: str
    purpose: str
    backbone: str
    encoders: Mapping[str, str]
    num_items: int
    num_bytes: int
    results: Mapping[str, Mapping[str, float]]
    folder: Path


class ShippedAdapters(tuple[ShippedAdapter, ...]):
    """The pretrained adapters; prints as a table.

    Examples:
        >>> print(ShippedAdapters(()))
        | name | for | backbone | text | image | items | MB | hit_rate@10 | ndcg@10 |
        |------|----:|---------:|-----:|------:|------:|---:|------------:|--------:|
    """

    __slots__ = ()

    def __str__(self) -> str:
        header = ["name", "for", "backbone", "text", "image", "items", "MB", *SHOWN_METRICS]
        return markdown_table([header, *map(_row, self)])


def shipped_adapters() -> ShippedAdapters:
    """List the pretrained adapters that come with the package; no network is needed.

    Returns:
        Name, purpose, encoders, backbone, size and results of each adapter; prints as a table.

    Examples:
        >>> for adapter in shipped_adapters():                       # doctest: +SKIP
        ...     model = ODMTWrapper.from_pretrained(adapter.name)
    """
    return ShippedAdapters(_describe(folder) for folder in _folders(FOLDER).values())


def is_shipped(name: object) -> bool:
    """Whether a name given to `from_pretrained` means a pretrained adapter of the package."""
    return isinstance(name, str) and name.startswith(PREFIX)


def shipped_folder(name: str) -> Path:
    """Where a pretrained adapter lies.

    Args:
        name: begins with "shipped:".

    Returns:
        Its folder.

    Raises:
        AdapterError: if the package has none of this name.
    """
    folders = _folders(FOLDER)
    known = name.removeprefix(PREFIX)
    if known not in folders:
        listed = [f"{PREFIX}{folder}" for folder in folders]
        raise AdapterError(
            f"{name!r} is not among the adapters that come with the package: choose one of "
            f"{listed}. For a folder of this name pass Path({name!r}) or './{name}'"
        )
    return folders[known]


def _folders(parent: Path) -> dict[str, Path]:
    return {path.parent.name: path.parent for path in sorted(parent.glob(f"*/{CONFIG}"))}


@functools.cache
def _describe(folder: Path) -> ShippedAdapter:
    read = read_config(folder)
    description = read.description
    return ShippedAdapter(
        name=PREFIX + folder.name,
        purpose=description.card.title or folder.name,
        backbone=description.backbone.name,
        encoders={
            modality: str(description.features.get(modality, {}).get("encoder", "not recorded"))
            for modality in description.widths
        },
        num_items=sum(count_item_ids(folder / name) for name in read.files["items"]),
        num_bytes=sum(path.stat().st_size for path in folder.iterdir()),
        results=description.card.results,
        folder=folder,
    )


def _row(adapter: ShippedAdapter) -> list[str]:
    found = next(
        (adapter.results[split] for split in ("test", "validation") if split in adapter.results), {}
    )
    return [
        adapter.name,
        adapter.purpose,
        adapter.backbone,
        *(adapter.encoders.get(m, "").rpartition("/")[2] for m in ("text", "image")),
        f"{adapter.num_items:,}" if adapter.num_items else "none",
        f"{adapter.num_bytes / 1e6:.1f}",
        *(f"{found[name]:.4f}" if name in found else "" for name in SHOWN_METRICS),
    ]
