"""Identifies the run that a checkpoint belongs to, by its data, model and settings.

A run writes its mark to its output folder when it starts, and to every checkpoint.
"""

import hashlib
import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from transformers import TrainingArguments

from odmt_sdk.data.sequences import RankingDataset, SequenceDataset

MARK = "training_run.json"
_STATE = "trainer_state.json"  # the last file written to a checkpoint
_MAX_BYTES = 2**20

# Settings that must be equal to resume a run. Length, logging and evaluation may differ.
_SETTINGS = (
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "learning_rate",
    "lr_scheduler_type",
    "lr_scheduler_kwargs",
    "warmup_steps",
    "optim",
    "optim_args",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "max_grad_norm",
    "seed",
    "data_seed",
    "dataloader_drop_last",
    "train_sampling_strategy",
    "group_by_length",
)


@dataclass(frozen=True)
class RunMark:
    """The identity of a run.

    Args:
        run: id of the run; empty if it has not started.
        about: data, model and settings by name -> value, or a hash of it.
    """

    run: str
    about: dict[str, str]

    @classmethod
    def of(
        cls,
        model: Any,
        args: TrainingArguments,
        datasets: Mapping[str, object],
        settings: Mapping[str, Any],
    ) -> Self:
        """Describe a run that has not started.

        Args:
            model: the model to train.
            args: the training arguments.
            datasets: "training data" and "validation data" -> data set.
            settings: further settings that must be equal to resume a run.

        Returns:
            Its mark, without an id.
        """
        about = {name: _hash_of(_data(dataset)) for name, dataset in datasets.items()}
        about["items"] = _hash_of(_items(model))
        about["shapes of the model's weights"] = _hash_of(
            f"{name} {tuple(weight.shape)};" for name, weight in model.state_dict().items()
        )
        config: Any = getattr(model, "config", None)
        parts: dict[str, Any] = dict(config.to_dict()) if hasattr(config, "to_dict") else {}
        for name in ("backbone_name", "max_seq_length"):
            parts[name] = getattr(model, name, None)
        parts |= {name: getattr(args, name, None) for name in _SETTINGS}
        parts |= settings
        return cls("", about | {name: _shown(value) for name, value in sorted(parts.items())})

    def begun(self) -> Self:
        """Return the mark with the id of a new run."""
        return type(self)(uuid.uuid4().hex, self.about)

    def write(self, folder: Path) -> None:
        """Write the mark to a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARK).write_text(json.dumps(asdict(self), indent=2), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Read the mark of a folder; None if it is missing or damaged."""
        try:
            if (folder / MARK).stat().st_size > _MAX_BYTES:
                return None
            content = json.loads((folder / MARK).read_text(encoding="utf-8"))
            run, about = content["run"], content["about"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        sound = isinstance(run, str) and isinstance(about, dict)
        return cls(run, {str(n): str(v) for n, v in about.items()}) if sound else None

    def differences(self, other: "RunMark") -> list[str]:
        """Describe the differences from another run."""
        names = dict.fromkeys([*self.about, *other.about])
        found = []
        for name in names:
            mine, theirs = self.about.get(name, "none"), other.about.get(name, "none")
            if mine != theirs:
                hashed = any(value.startswith("sha256:") for value in (mine, theirs))
                found.append(f"other {name}" if hashed else f"{name} {theirs}, here {mine}")
        return found


def find_checkpoint(folder: Path, mark: RunMark) -> tuple[Path, RunMark] | None:
    """Find the last checkpoint of a run.

    Args:
        folder: the output folder.
        mark: the mark of the run to resume.

    Returns:
        The checkpoint and its mark; None if the run has no checkpoint in the folder.

    Raises:
        ValueError: if the checkpoints in the folder belong to another run.
    """
    checkpoints = list(_checkpoints(folder))
    latest = RunMark.read(folder)
    if latest is None and checkpoints:
        latest = RunMark.read(checkpoints[0])
        if latest is None:
            raise ValueError(
                f"{str(checkpoints[0])!r} does not record which run it belongs to, so it is not "
                f"resumed. {_way_out(folder)}"
            )
    if latest is None:
        return None
    differences = mark.differences(latest)
    if differences and checkpoints:
        named = "; ".join(differences[:5]) + ("; ..." if len(differences) > 5 else "")
        raise ValueError(
            f"{str(checkpoints[0])!r} belongs to another run, so it is not resumed: it has "
            f"{named}. {_way_out(folder)}"
        )
    for checkpoint in checkpoints:
        own = RunMark.read(checkpoint)
        if own is not None and own.run == latest.run:
            return checkpoint, own
    return None


def _way_out(folder: Path) -> str:
    return (
        "Use the data and settings of that run, or another output folder; or start again without "
        f"resuming, which ignores the old checkpoints in {str(folder)!r}"
    )


def _checkpoints(folder: Path) -> Iterator[Path]:
    """Return the complete checkpoints of a folder, latest step first."""
    found = []
    for path in folder.glob("checkpoint-*") if folder.is_dir() else ():
        step = path.name.removeprefix("checkpoint-")
        if step.isdigit() and (path / _STATE).is_file():
            found.append((int(step), path))
    return (path for _, path in sorted(found, reverse=True))


def _shown(value: Any) -> str:
    value = getattr(value, "value", value)  # unwraps enums
    return f"{value:g}" if isinstance(value, float) else str(value)


def _data(dataset: object) -> Iterator[str | bytes]:
    """Yield the content that identifies a data set; only the size for unknown types."""
    yield f"{type(dataset).__name__} {getattr(dataset, 'max_seq_length', None)};"
    if isinstance(dataset, Mapping):
        for name, part in dataset.items():
            yield f"{name}:"
            yield from _data(part)
    elif hasattr(dataset, "__len__"):
        yield f"{len(dataset)};"
    if isinstance(dataset, SequenceDataset):
        rows, offsets = dataset.sequences()
        yield rows.tobytes()
        yield offsets.tobytes()
    elif isinstance(dataset, RankingDataset):
        yield dataset.targets.numpy().tobytes()


def _items(model: Any) -> Iterator[str]:
    for item_id in getattr(model, "vocabulary", None) or ():
        yield f"{item_id!r};"


def _hash_of(parts: Iterator[str | bytes] | Any) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part if isinstance(part, bytes) else part.encode("utf-8", "surrogatepass"))
    return f"sha256:{digest.hexdigest()}"
