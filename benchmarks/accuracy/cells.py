"""One cell of the comparison: train on the training part, select by validation, test if chosen.

Every cell has a folder: `cell.json` is written by training, `test.json` and `test.safetensors`
(every user's rank and list) by testing. Only settings chosen by validation are tested.
"""

import contextlib
import dataclasses
import json
import platform
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch.utils.data import DataLoader
from transformers import TrainerCallback

import odmt_sdk
from accuracy.data import Data, DataSettings, load_data, target_groups
from accuracy.methods import (
    OF_FIT,
    OF_THE_BACKBONE,
    Method,
    Setting,
    build_backbone,
    setting_name,
)
from accuracy.significance import group_metrics, list_figures
from odmt_sdk import ODMTConfig, ODMTWrapper, SequenceCollator, fit
from odmt_sdk.baselines import CountingBaseline, ItemToItem, Popularity
from odmt_sdk.evaluation import rank_targets
from odmt_sdk.retrieval import fused_vectors, top_k_rows

CHOSEN_BY = "ndcg@10"
LIST_LENGTH = 10


@dataclass(frozen=True)
class Study:
    """Settings shared by all cells."""

    output: Path
    data_settings: DataSettings
    hidden_size: int
    fit_settings: tuple[tuple[str, Any], ...]
    cpu: bool
    bf16: bool
    threads: int

    @property
    def device(self) -> torch.device:
        return torch.device("cuda" if torch.cuda.is_available() and not self.cpu else "cpu")

    def load(self, folder: Path) -> Data:
        return load_data(folder, self.data_settings, self.output / "features")


@dataclass(frozen=True)
class Cell:
    """One training run."""

    data: Path
    backbone: str
    method: str
    setting: Setting
    seed: int

    def folder(self, study: Study) -> Path:
        names = (self.data.name, self.backbone, Method(self.method).name)
        names = (*names, setting_name(self.setting), f"seed-{self.seed}")
        return study.output.joinpath("cells", *(re.sub(r"[^\w.=+-]", "-", name) for name in names))


def train_cell(study: Study, cell: Cell) -> dict[str, Any]:
    """Train a cell, or read the result of an earlier run.

    Args:
        study: settings shared by all cells.
        cell: the cell.

    Returns:
        The content of `cell.json`.

    Raises:
        ValueError: if the folder contains a cell with other settings.
    """
    folder = cell.folder(study)
    settings = _settings(study, cell)
    if (folder / "cell.json").exists():
        found: dict[str, Any] = json.loads((folder / "cell.json").read_text())
        if found["settings"] != json.loads(json.dumps(settings)):
            changed = [k for k, v in settings.items() if found["settings"].get(k) != v]
            raise ValueError(
                f"{folder} was made with other settings ({', '.join(changed)}): choose another "
                "--output, or delete it"
            )
        return found
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(study.threads)
    data = study.load(cell.data)
    # the validation queries replace the test queries, so that training never uses the latter
    split = dataclasses.replace(data.split, test=data.split.validation)
    curve = _Curve()
    start = time.perf_counter()
    with (folder / "train.log").open("w") as log, contextlib.redirect_stdout(log):
        model = _build(study, cell, data)
        result = fit(
            model,
            split,
            folder / "training",
            **settings["fit"],
            metric=CHOSEN_BY,
            k=(10,),
            seed=cell.seed,
            callbacks=[curve],
            disable_tqdm=True,
            resume=True,  # an interrupted cell continues where it stopped
            use_cpu=study.device.type == "cpu",
            bf16=study.bf16,
        )
    model.save_pretrained(folder / "adapter")
    shutil.rmtree(folder / "training")
    record = {
        "settings": settings,
        "validation": result.validation,
        "best_epoch": result.best_epoch,
        "item_to_item_weight": model.item_to_item_weight,
        "epochs": curve.epochs,
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": time.perf_counter() - start,
        "device": _device_name(study),
        "threads": study.threads,
        "versions": {"odmt_sdk": odmt_sdk.__version__, "torch": torch.__version__},
    }
    for stale in ("test.json", "test.safetensors"):
        (folder / stale).unlink(missing_ok=True)
    _write_json(record, folder / "cell.json")
    return record


def evaluate_cell(study: Study, cell: Cell) -> dict[str, Any]:
    """Test a trained cell once.

    Args:
        study: settings shared by all cells.
        cell: the cell.

    Returns:
        The content of `test.json`.
    """
    folder = cell.folder(study)
    if (folder / "test.json").exists():
        return json.loads((folder / "test.json").read_text())  # type: ignore[no-any-return]
    torch.set_num_threads(study.threads)
    data = study.load(cell.data)
    model = ODMTWrapper.from_pretrained(
        folder / "adapter", _backbone(study, cell), data.features
    ).to(study.device)
    ranks = rank_targets(model, data.split.test, progress=False)
    lists = _lists(model, data)
    counts = data.split.item_counts
    groups = target_groups(data.split.test.targets, counts)
    record = {
        "metrics": group_metrics(ranks["fused"], groups),
        "sources": {
            source: group_metrics(ranks[source], groups)["all"] for source in model.sources
        },
        "lists": list_figures(lists, counts),
    }
    tensors = {name: values.int() for name, values in {**ranks, "lists": lists}.items()}
    save_file(tensors, folder / "test.safetensors")
    _write_json(record, folder / "test.json")
    return record


def counts_of(study: Study, folder: Path) -> dict[str, dict[str, Any]]:
    """Test results of baselines that only count interactions, as group metrics.

    Args:
        study: settings shared by all cells.
        folder: folder of the dataset.

    Returns:
        Baseline -> metrics of all targets and of groups of targets.
    """
    split = study.load(folder).split
    groups = target_groups(split.test.targets, split.item_counts)
    baselines: dict[str, CountingBaseline] = {
        "popularity": Popularity(split),
        "item-to-item": ItemToItem(split),
    }
    with contextlib.suppress(ValueError):  # the data are too large for it
        baselines["item-to-item, regression"] = ItemToItem(split, max_distance=20, regression=True)
    return {
        name: group_metrics(baseline.rank_targets(split.test), groups)
        for name, baseline in baselines.items()
    }


def _settings(study: Study, cell: Cell) -> dict[str, Any]:
    """Everything that affects the result of a cell, as JSON values."""
    chosen = {**dict(cell.setting), **Method(cell.method).settings}
    backbone = {name: chosen.pop(name) for name in OF_THE_BACKBONE if name in chosen}
    of_fit = {name: chosen.pop(name) for name in OF_FIT if name in chosen}
    config = ODMTConfig(**{"max_seq_length": study.data_settings.positions, **chosen})
    return {
        "data": dataclasses.asdict(study.data_settings),
        "hidden_size": study.hidden_size,
        "backbone": backbone,
        "config": config.to_dict(),
        "fit": {**dict(study.fit_settings), **of_fit},
        "bf16": study.bf16,
    }


def _backbone(study: Study, cell: Cell) -> torch.nn.Module:
    settings = _settings(study, cell)["backbone"]
    return build_backbone(
        cell.backbone,
        study.hidden_size,
        study.data_settings.positions,
        settings.get("backbone_dropout"),
        settings.get("backbone_layers"),
    )


def _build(study: Study, cell: Cell, data: Data) -> ODMTWrapper:
    settings = _settings(study, cell)
    torch.manual_seed(cell.seed)
    return ODMTWrapper(
        _backbone(study, cell),
        data.features,
        ODMTConfig.from_dict(settings["config"]),
        fresh_copies=settings["backbone"].get("fresh_copies", False),
        check=False,
    ).to(study.device)


@torch.no_grad()
def _lists(model: ODMTWrapper, data: Data) -> torch.Tensor:
    """Recommended items for each test user, rows (Q, K)."""
    catalogue = model.encode_catalogue()
    items = fused_vectors(catalogue, model.sources)  # (N + 1, S D)
    found = []
    for batch in DataLoader(data.split.test, batch_size=256, collate_fn=SequenceCollator()):
        encoded = model.encode_sequences(
            batch["item_ids"].to(model.device),
            batch["attention_mask"].to(model.device),
            item_embeddings=catalogue,
        )
        queries = fused_vectors(encoded, model.sources) / len(model.sources)
        seen = batch["seen_ids"].to(model.device)
        added = None if model.item_to_item is None else model.item_to_item.scores(seen)
        found.append(top_k_rows(queries, items, LIST_LENGTH, excluded=seen, added=added)[1].cpu())
    return torch.cat(found)


class _Curve(TrainerCallback):
    """Records the validation metrics of every epoch, for the mean of the sources and for each."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, Any]] = []

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        metrics = kwargs["metrics"]
        if any(name.startswith("eval_") for name in metrics):
            kept = {
                name.removeprefix("eval_"): value
                for name, value in metrics.items()
                if name.endswith(("ndcg@10", "hit_rate@10"))
            }
            self.epochs.append({"epoch": state.epoch, **kept})


def _device_name(study: Study) -> str:
    if study.device.type == "cuda":
        return torch.cuda.get_device_name()
    return f"{platform.processor() or platform.machine()} CPU"


def _write_json(record: dict[str, Any], path: Path) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(record, indent=1) + "\n")
    part.replace(path)
