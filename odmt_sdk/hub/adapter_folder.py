"""An adapter as a folder of safetensors and JSON.

`config.json` holds the settings, `model.safetensors` the weights, `items.json` the item ids in row
order, `item_embeddings.safetensors` every item's embedding by source, ready to recommend from.
"""

import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from odmt_sdk.errors import AdapterError
from odmt_sdk.vocabulary import ItemVocabulary

LIBRARY = "odmt-sdk"
FORMAT_VERSION = 1
CONFIG = "config.json"
ITEMS = "items.json"
WEIGHTS = "model.safetensors"
ITEM_EMBEDDINGS = "item_embeddings.safetensors"


class AdapterFiles(NamedTuple):
    """What an adapter folder holds.

    Args:
        description: settings of the model, widths of its modalities, name of its backbone.
        weights: state dict.
        vocabulary: item ids in row order.
        item_embeddings: source -> (N + 1, D).
    """

    description: dict[str, Any]
    weights: dict[str, torch.Tensor]
    vocabulary: ItemVocabulary
    item_embeddings: dict[str, torch.Tensor]


def write_adapter(path: Path, files: AdapterFiles) -> Path:
    """Write an adapter folder; other files in it stay.

    All files are written beside `path` first and moved when complete. Each carries the mark of
    this save, so a folder with files of two saves in it is told apart from a good one.

    Args:
        path: the folder.
        files: its content.

    Returns:
        `path`.

    Raises:
        AdapterError: if an item id is neither a string nor an integer, the folder holds a foreign
            `config.json`, or writing fails; what was there before is still there.
    """
    item_ids = files.vocabulary.item_ids
    for item_id in item_ids:
        if type(item_id) not in (str, int):
            raise AdapterError(
                f"item id {item_id!r} is a {type(item_id).__name__}; only strings and integers can "
                "be saved: use for example str(item_id) as the id"
            )
    if (path / CONFIG).exists():
        _read_config(path)  # a foreign config.json is not overwritten
    elif (path / WEIGHTS).exists() or (path.exists() and not path.is_dir()):
        raise AdapterError(
            f"{str(path)!r} holds something else than an adapter; save to another folder"
        )
    save_id = uuid.uuid4().hex
    config = {
        "library_name": LIBRARY,
        "format_version": FORMAT_VERSION,
        "save_id": save_id,
        **files.description,
    }
    partial: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent)
        folder = Path(partial)
        _write_tensors(folder / WEIGHTS, files.weights, save_id)
        _write_tensors(folder / ITEM_EMBEDDINGS, files.item_embeddings, save_id)
        _write_json(folder / ITEMS, {"save_id": save_id, "item_ids": item_ids})
        _write_json(folder / CONFIG, config)
        if path.exists():
            for name in (WEIGHTS, ITEM_EMBEDDINGS, ITEMS, CONFIG):
                os.replace(folder / name, path / name)
        else:
            folder.chmod(0o755)  # mkdtemp makes private folders
            folder.rename(path)
    except (OSError, SafetensorError) as error:
        raise AdapterError(f"cannot save the adapter to {str(path)!r}: {error}") from error
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)
    return path


def read_adapter(path: Path) -> AdapterFiles:
    """Read an adapter folder.

    Args:
        path: the folder.

    Returns:
        Its content, tensors on the CPU.

    Raises:
        AdapterError: if it is no adapter, was written in another format, or is damaged.
    """
    if not (path / CONFIG).is_file():
        raise AdapterError(
            f"{str(path)!r} is no saved adapter: it has no {CONFIG}. An adapter is a folder "
            "written by model.save_pretrained"
        )
    config = _read_config(path)
    save_id = config.pop("save_id", None)
    try:
        items = json.loads((path / ITEMS).read_text(encoding="utf-8"))
        vocabulary = ItemVocabulary(items["item_ids"])
        weights, weights_id = _read_tensors(path / WEIGHTS)
        embeddings, embeddings_id = _read_tensors(path / ITEM_EMBEDDINGS)
        if {items["save_id"], weights_id, embeddings_id} != {save_id}:
            raise AdapterError(
                f"the files in {str(path)!r} come from different saves: a save was interrupted "
                "or files were mixed. Save the adapter again"
            )
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
        raise AdapterError(f"the adapter in {str(path)!r} is damaged: {error}") from error
    return AdapterFiles(config, weights, vocabulary, embeddings)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AdapterError(f"cannot read {CONFIG} in {str(path)!r}: {error}") from error
    if not isinstance(config, dict) or config.get("library_name") != LIBRARY:
        raise AdapterError(
            f"{str(path)!r} is no adapter of {LIBRARY}: its {CONFIG} was written by something else"
        )
    if config.get("format_version") != FORMAT_VERSION:
        raise AdapterError(
            f"the adapter in {str(path)!r} has format {config.get('format_version')!r}, this "
            f"version of {LIBRARY} reads format {FORMAT_VERSION}: upgrade {LIBRARY}"
        )
    return config


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    with path.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=2 if path.name == CONFIG else None, ensure_ascii=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())


def _write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], save_id: str) -> None:
    written: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        if tensor.untyped_storage().data_ptr() in seen:
            tensor = tensor.clone()  # safetensors refuses tensors that share memory
        seen.add(tensor.untyped_storage().data_ptr())
        written[name] = tensor
    save_file(written, path, metadata={"format": "pt", "save_id": save_id})
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], str | None]:
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, (file.metadata() or {}).get("save_id")
