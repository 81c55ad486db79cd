"""`describe_adapter`: describes an adapter without loading its weights."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from odmt_sdk.config import ODMTConfig
from odmt_sdk.errors import AdapterError
from odmt_sdk.hub.download import HubOptions, locate
from odmt_sdk.saving.folder import read_config
from odmt_sdk.saving.item_ids import count_item_ids

_SHOWN = ("encoder", "revision", "pooling", "tokens", "width", "standardized")


@dataclass(frozen=True, kw_only=True)
class AdapterDescription:
    """Description of an adapter; prints as a short text.

    Args:
        folder: the folder of the adapter on this machine.
        backbone: class name of the sequence model.
        built_in: whether the backbone is built in, so that `from_pretrained` can create it. For
            other backbones, pass `backbone=`.
        num_items: number of items that it recommends; 0 = no catalogue, for transfer to others.
        modalities: modality -> feature width.
        sources: names of the sources; empty if no item embeddings are saved.
        provenance: modality -> how its features were made: encoder, revision, pooling and so on.
        settings: the settings of `ODMTConfig`.
        card: contents of the model card: title, description, dataset, license, training, results.
        files: name -> size in bytes.
    """

    folder: Path
    backbone: str
    built_in: bool
    num_items: int
    modalities: dict[str, int]
    sources: tuple[str, ...]
    provenance: dict[str, dict[str, Any]]
    settings: dict[str, Any]
    card: dict[str, Any]
    files: dict[str, int]

    @property
    def num_bytes(self) -> int:
        """Size of all files."""
        return sum(self.files.values())

    def __str__(self) -> str:
        own = "" if self.built_in else " (your own: pass it as backbone=)"
        rows = [
            ["title", self.card.get("title") or "none"],
            ["backbone", f"{self.backbone}{own}"],
            ["items", f"{self.num_items:,}" if self.num_items else "none of its own"],
            ["sources", ", ".join(self.sources) or "not saved"],
            ["size", f"{self.num_bytes / 1e6:.1f} MB in {len(self.files)} files"],
        ]
        for name, made in self.provenance.items():
            shown = {key: made[key] for key in _SHOWN if made.get(key) is not None}
            rows.append([f"{name} features", ", ".join(f"{k} {v}" for k, v in shown.items())])
        for name in ("dataset", "license", "description", "limits"):
            if self.card.get(name):
                rows.append([name, str(self.card[name])])
        rows += [[f"training: {name}", str(v)] for name, v in self.card["training"].items()]
        for split, metrics in self.card["results"].items():
            shown = {k: v for k, v in metrics.items() if k in ("hit_rate@10", "ndcg@10")}
            if shown:
                rows.append([split, ", ".join(f"{k} {v:.4f}" for k, v in shown.items())])
        default = ODMTConfig().to_dict()
        changed = {k: v for k, v in self.settings.items() if v != default.get(k)}
        rows.append(["settings", ", ".join(f"{k}={v}" for k, v in changed.items()) or "defaults"])
        width = max(len(row[0]) for row in rows)
        return "\n".join(f"{name:<{width}}  {' '.join(value.split())}" for name, value in rows)


def describe_adapter(
    path: str | Path,
    *,
    subfolder: str = "",
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> AdapterDescription:
    """Describe an adapter without loading its weights. Nothing in it is executed.

    Args:
        path: a folder, a repository on the Hugging Face Hub, which is downloaded, or "shipped:...".
        subfolder: path of the adapter in the folder or repository.
        revision: branch, tag or commit of the repository.
        token: access token for a private repository; None = the token of the account that is
            logged in.
        cache_dir: folder for downloads; None = the default cache of huggingface_hub.
        local_files_only: whether to use only files that were downloaded before.

    Returns:
        Sizes, sources, settings, provenance of the features, and contents of the model card.

    Raises:
        AdapterError: if there is no adapter, or its files are damaged.

    Examples:
        >>> describe_adapter("shipped:films-sasrec").backbone
        'SASRec'
    """
    options = HubOptions(
        revision=revision, token=token, cache_dir=cache_dir, local_files_only=local_files_only
    )
    folder = locate(path, subfolder, options, item_embeddings=True)
    read = read_config(folder)
    about = read.description
    names = ["config.json", *(name for role in read.files.values() for name in role)]
    sources: dict[str, None] = {}
    try:
        for name in read.files["item_embeddings"]:
            with safe_open(folder / name, "numpy") as file:
                sources |= dict.fromkeys(file.keys())
        num_items = sum(count_item_ids(folder / name) for name in read.files["items"])
        files = {name: (folder / name).stat().st_size for name in names}
    except (OSError, SafetensorError, ValueError) as error:
        raise AdapterError(f"the adapter in {str(folder)!r} is damaged: {error}") from error
    order = ["id", *about.widths]
    return AdapterDescription(
        folder=folder,
        backbone=about.backbone.name,
        built_in=about.backbone.built_in is not None,
        num_items=num_items,
        modalities=dict(about.widths),
        sources=tuple(sorted(sources, key=lambda s: order.index(s) if s in order else len(order))),
        provenance={name: dict(made) for name, made in about.features.items()},
        settings=about.config.to_dict(),
        card=dataclasses.asdict(about.card),
        files=files,
    )
