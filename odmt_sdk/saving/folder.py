"""Writing and reading an adapter folder; `layout` names its files, the docs describe them."""

import contextlib
import os
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError
from safetensors.torch import save_file

from odmt_sdk.errors import AdapterError
from odmt_sdk.files.tensor_file import MAX_TENSORS, SavedTensor, check_tensors, read_header
from odmt_sdk.files.untrusted_files import open_inside, read_json
from odmt_sdk.item_neighbours import MAX_NEIGHBOURS, ItemNeighbours
from odmt_sdk.saving.atomic_replacement import exchange, locked, remove_leftovers
from odmt_sdk.saving.card import MARK
from odmt_sdk.saving.description import Description, ReadDescription
from odmt_sdk.saving.item_ids import check_item_ids, read_item_ids, write_item_ids
from odmt_sdk.saving.layout import (
    CARD,
    CONFIG,
    MAX_CONFIG_BYTES,
    MAX_SHARDS,
    FileName,
    parse_name,
)
from odmt_sdk.saving.migrations import renamed
from odmt_sdk.saving.tied_weights import without_shared
from odmt_sdk.vocabulary import ItemVocabulary

POPULARITY = "item_log_probability"  # a weight of every adapter with items, (N + 1,)
TRIES = 5


@dataclass(frozen=True, kw_only=True)
class AdapterContent:
    """What is written.

    Args:
        description: goes to `config.json`.
        weights: state dict; weights that are one and the same are written once.
        vocabulary: item ids in row order, or None for an adapter without a catalogue.
        item_embeddings: source -> (N + 1, D), or None to leave them out.
        feature_moments: modality -> mean and deviation (2, d) by which features are standardized.
        item_to_item: item-to-item counts, or None.
        card: text of the model card.
    """

    description: Description
    weights: Mapping[str, torch.Tensor]
    vocabulary: ItemVocabulary | None
    item_embeddings: Mapping[str, torch.Tensor] | None
    feature_moments: Mapping[str, torch.Tensor] = field(default_factory=dict)
    item_to_item: ItemNeighbours | None = None
    card: str


@dataclass(frozen=True, kw_only=True)
class OpenAdapter:
    """An adapter whose files are open, checked as far as that goes without the model.

    Args:
        description: from `config.json`.
        weights: by name, not read yet.
        vocabulary: item ids, or None for an adapter without a catalogue.
        item_embeddings: source -> (N + 1, D), not read yet; empty if not asked for or not saved.
        feature_moments: modality -> mean and deviation (2, d) by which features are standardized;
            empty if they are not, or older than that was saved.
        item_to_item: item-to-item counts, or None.
    """

    description: Description
    weights: Mapping[str, SavedTensor]
    vocabulary: ItemVocabulary | None
    item_embeddings: Mapping[str, SavedTensor]
    feature_moments: Mapping[str, torch.Tensor]
    item_to_item: ItemNeighbours | None

    def trained_with(self, settings: Mapping[str, Any]) -> Self:
        """The same adapter, to be trained on in another way.

        Args:
            settings: as for `ODMTConfig.trained_with`.

        Returns:
            A new description of the same files.
        """
        config = self.description.config.trained_with(settings)
        return replace(self, description=replace(self.description, config=config))


def write_adapter(folder: Path, content: AdapterContent, *, max_shard_size: int | str) -> None:
    """Put an adapter into a folder, in place of the one that is there; other files stay.

    Killed at any moment, it leaves the old adapter or the new one, complete.

    Args:
        folder: is made if it is not there.
        content: what to write.
        max_shard_size: weights larger than this are split, such as "5GB".

    Raises:
        AdapterError: if something cannot be saved so that it is the same once loaded, the folder
            holds something else than an adapter, or writing fails; what was there before is still
            there.
    """
    save_id = uuid.uuid4().hex
    if content.vocabulary is not None:
        check_item_ids(content.vocabulary)
    check_tensors(content.weights)
    check_tensors(content.item_embeddings or {})
    _refuse_file(folder)
    new = not folder.exists()
    try:
        weights, shared = without_shared(content.weights)
        config = replace(content.description, shared_weights=shared).to_config(save_id)
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            remove_leftovers(folder, _named_by_old(folder))
            _write(folder, content, config, weights, max_shard_size)
    except AdapterError:
        _remove_new(folder, new)
        raise
    except (OSError, RuntimeError, SafetensorError, TypeError, ValueError) as error:
        _remove_new(folder, new)
        raise AdapterError(
            f"cannot save the adapter to {str(folder)!r}: {error}. The folder is unchanged: save "
            "to a writable folder with enough free space"
        ) from error


def check_target(folder: Path) -> None:
    """Check, before work is spent, that an adapter can be saved to a folder.

    Args:
        folder: the folder to save to; it need not exist yet.

    Raises:
        AdapterError: if it is a file, holds something else than an adapter, or is not writable.
    """
    _refuse_file(folder)
    if folder.is_dir():
        _named_by_old(folder)
    there = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not there.is_dir():
        raise AdapterError(
            f"cannot save to {str(folder)!r}: {str(there)!r} is a file: choose another path"
        )
    if not os.access(there, os.W_OK | os.X_OK):
        raise AdapterError(
            f"cannot save to {str(folder)!r}: no permission to write to {str(there)!r}: choose a "
            "writable folder"
        )


def _refuse_file(folder: Path) -> None:
    if os.path.lexists(folder) and not folder.is_dir():
        raise AdapterError(f"{str(folder)!r} is a file, not an adapter folder: choose another path")


def _remove_new(folder: Path, new: bool) -> None:
    """Take away a folder that was made in vain."""
    if new:
        with contextlib.suppress(OSError):
            folder.rmdir()  # only if it is empty


def _write(
    folder: Path,
    content: AdapterContent,
    config: Mapping[str, Any],
    weights: Mapping[str, torch.Tensor],
    max_shard_size: int | str,
) -> None:
    save_id = config["save_id"]

    def write(stage: Path) -> dict[str, list[FileName]]:
        files = {"model": _write_tensors(stage, "model", weights, save_id, max_shard_size)}
        if content.vocabulary is not None:
            files["items"] = [FileName("items")]
            write_item_ids(stage / str(FileName("items")), content.vocabulary, save_id)
        if content.feature_moments:
            files["feature_moments"] = _write_tensors(
                stage, "feature_moments", content.feature_moments, save_id, max_shard_size
            )
        if content.item_to_item is not None:
            near = content.item_to_item
            tensors = {
                "rows": near.rows,
                "weights": near.weights,
                "decay": torch.tensor(near.decay, dtype=torch.float64),
                "weight": torch.tensor(near.weight, dtype=torch.float64),
            }
            files["item_to_item"] = _write_tensors(
                stage, "item_to_item", tensors, save_id, max_shard_size
            )
        if content.item_embeddings is not None:
            files["item_embeddings"] = _write_tensors(
                stage, "item_embeddings", content.item_embeddings, save_id, max_shard_size
            )
        return files

    texts = {} if has_own_card(folder) else {CARD: content.card}
    exchange(folder, config, save_id, write, texts)


def has_own_card(folder: Path) -> bool:
    """Whether the folder has a model card that somebody wrote by hand.

    Args:
        folder: the folder.

    Returns:
        Whether there is one without the mark of those written with the adapter.
    """
    path = folder / CARD
    if not path.is_file():
        return os.path.lexists(path)
    with path.open(encoding="utf-8", errors="replace") as file:
        return MARK not in file.read(MAX_CONFIG_BYTES)


def _write_tensors(
    stage: Path,
    role: str,
    tensors: Mapping[str, torch.Tensor],
    save_id: str,
    max_shard_size: int | str,
) -> list[FileName]:
    split = split_torch_state_dict_into_shards(dict(tensors), max_shard_size=max_shard_size)
    shards = list(split.filename_to_tensors.values()) or [[]]
    if len(shards) > MAX_SHARDS:
        raise ValueError(
            f"max_shard_size={max_shard_size!r} makes {len(shards)} files, more than {MAX_SHARDS}: "
            "choose a larger size"
        )
    names = []
    for number, members in enumerate(shards, start=1):
        name = FileName(role, "", number, len(shards))
        part = {key: tensors[key].detach().cpu().contiguous() for key in members}
        save_file(part, stage / str(name), metadata={"format": "pt", "save_id": save_id})
        names.append(name)
    return names


def _named_by_old(folder: Path) -> set[str]:
    """Names of the adapter's files that are there now, which must be an adapter if anything."""
    if not os.path.lexists(folder / CONFIG):
        foreign = [
            name for name in os.listdir(folder) if (parts := parse_name(name)) and not parts.mark
        ]
        if foreign:
            raise AdapterError(
                f"{str(folder)!r} has {sorted(foreign)[0]} but no {CONFIG}, so it is not an "
                "adapter: save to another folder"
            )
        return set()
    found = read_config(folder)
    return {name for names in found.files.values() for name in names}


def read_config(folder: Path) -> ReadDescription:
    """Read `config.json` alone.

    Args:
        folder: the adapter.

    Returns:
        What it says.

    Raises:
        AdapterError: if there is none, or it is not sound.
    """
    try:
        with open_inside(folder, CONFIG) as file:
            content = read_json(file, CONFIG, max_bytes=MAX_CONFIG_BYTES)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise AdapterError(
            f"{str(folder)!r} is not a saved adapter: it has no {CONFIG}. An adapter is a folder "
            "written by model.save_pretrained"
        ) from error
    except OSError as error:
        raise AdapterError(f"cannot read {CONFIG} in {str(folder)!r}: {error}") from error
    return ReadDescription.from_json(content, where=repr(str(folder)))


@contextlib.contextmanager
def open_adapter(folder: Path, *, item_embeddings: bool) -> Iterator[OpenAdapter]:
    """Open an adapter folder; the tensors can be read while it is open.

    Args:
        folder: the adapter; it may be saved anew meanwhile.
        item_embeddings: whether the ready item embeddings are wanted.

    Returns:
        A context manager.

    Raises:
        AdapterError: if it is no adapter, was written in another format, or is damaged.
    """
    with contextlib.ExitStack() as files:
        for attempt in range(TRIES):
            config = read_config(folder)
            try:
                opened = _open(folder, config, files, item_embeddings)
                break
            except AdapterError:
                # Files that were exchanged meanwhile are looked for again under their new names.
                if attempt + 1 == TRIES or read_config(folder) == config:
                    raise
        yield opened


def _open(
    folder: Path, config: ReadDescription, files: contextlib.ExitStack, item_embeddings: bool
) -> OpenAdapter:
    roles = ["model", "items", "feature_moments", "item_to_item"]
    roles += ["item_embeddings"] if item_embeddings else []
    found: dict[str, dict[str, SavedTensor]] = {}
    save_ids: set[object] = set()
    try:
        handles = {
            name: files.enter_context(open_inside(folder, name))
            for role in roles
            for name in config.files[role]
        }
        for role in ("model", "item_embeddings", "feature_moments", "item_to_item"):
            found[role] = {}
            for name in config.files[role] if role in roles else ():
                left = MAX_TENSORS - len(found[role])
                tensors, metadata = read_header(handles[name], name, max_tensors=left)
                save_ids.add(metadata.get("save_id"))
                if set(tensors) & set(found[role]):
                    raise AdapterError(f"{name} is damaged: it repeats tensors of another shard")
                found[role].update(tensors)
        weights = {renamed(n, config.renamed_weights): t for n, t in found["model"].items()}
        shared = config.description.shared_weights
        if len(weights) + len(shared) > MAX_TENSORS:
            raise AdapterError(f"it has more than {MAX_TENSORS} weights")
        for name, kept in shared.items():
            if name in weights or kept not in weights:
                raise AdapterError(f"{CONFIG} is damaged: {name!r} cannot be tied to {kept!r}")
            weights[name] = weights[kept]
        vocabulary = None
        for name in config.files["items"]:
            rows = weights[POPULARITY].shape if POPULARITY in weights else ()
            if len(rows) != 1 or rows[0] < 2:
                raise AdapterError(f"the weights have no {POPULARITY}, which counts the items")
            vocabulary, save_id = read_item_ids(handles[name], name, count=rows[0] - 1)
            save_ids.add(save_id)
        moments = _read_moments(found["feature_moments"], config.description.widths)
        num_items = None if vocabulary is None else len(vocabulary)
        item_to_item = _read_item_to_item(found["item_to_item"], num_items)
        if save_ids != {config.save_id}:
            raise AdapterError(
                "its files come from different saves: files were mixed. Save or download it again"
            )
    except (AdapterError, OSError) as error:
        raise AdapterError(f"the adapter in {str(folder)!r} is damaged: {error}") from error
    return OpenAdapter(
        description=config.description,
        weights=weights,
        vocabulary=vocabulary,
        item_embeddings=found["item_embeddings"],
        feature_moments=moments,
        item_to_item=item_to_item,
    )


def _read_moments(
    saved: Mapping[str, SavedTensor], widths: Mapping[str, int]
) -> dict[str, torch.Tensor]:
    found = {}
    for name, entry in saved.items():
        if name not in widths or entry.shape != (2, widths[name]) or entry.dtype != torch.float32:
            raise AdapterError(f"the moments of {name!r} do not belong to a modality")
        found[name] = entry.read()
        if not found[name].isfinite().all() or not (found[name][1] > 0).all():
            raise AdapterError(f"the moments of {name!r} are not a mean and a standard deviation")
    return found


def _read_item_to_item(
    saved: Mapping[str, SavedTensor], num_items: int | None
) -> ItemNeighbours | None:
    if not saved:
        return None
    if num_items is None:
        raise AdapterError("it has item-to-item counts, but no items")
    wanted = {
        "rows": torch.int32,
        "weights": torch.float32,
        "decay": torch.float64,
        "weight": torch.float64,
    }
    if {name: entry.dtype for name, entry in saved.items()} != wanted:
        raise AdapterError(f"the item-to-item counts are not {', '.join(wanted)}")
    rows, weights = saved["rows"].shape, saved["weights"].shape
    if len(rows) != 2 or rows[0] != num_items + 1 or not 1 <= rows[1] <= MAX_NEIGHBOURS:
        raise AdapterError(
            f"the item-to-item counts have shape {tuple(rows)}, which does not fit {num_items} "
            "items"
        )
    if weights != rows or saved["decay"].shape != () or saved["weight"].shape != ():
        raise AdapterError(
            "the weights of the item-to-item counts have another shape than the rows"
        )
    try:
        return ItemNeighbours(
            saved["rows"].read(),
            saved["weights"].read(),
            decay=float(saved["decay"].read()),
            weight=float(saved["weight"].read()),
        )
    except ValueError as error:
        raise AdapterError(f"the item-to-item counts are damaged: {error}") from error
