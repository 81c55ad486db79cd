"""Atomic file writing: a file appears complete or not at all."""

import os
import re
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

_PARTIAL = ".partial"
# safetensors first writes to a temporary file with such a name; a killed process leaves it behind.
_OF_SAFETENSORS = re.compile(r"\.tmp\w{6}")


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file under a temporary name and move it to its path once it is complete.

    Args:
        path: where the file goes.
        write: writes the content to the temporary path that it receives.

    Raises:
        OSError: if writing fails; a file that was at `path` before is kept.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{_PARTIAL}")
    try:
        write(partial)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, FileNotFoundError) and path.parent.is_dir():
            raise OSError(
                f"cannot write {path}: its temporary file has disappeared. Another process seems "
                "to write to the same folder: let it finish, then run the same call again"
            ) from error
        raise OSError(
            f"cannot write {path}: {error}. What was written before is kept: make room or choose "
            "another place, then run the same call again"
        ) from error


def write_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], *, note: tuple[str, str] | None = None
) -> None:
    """Write a safetensors file atomically; equal tensors give equal bytes.

    Args:
        path: where the file goes.
        tensors: contiguous tensors by name; no two may share memory.
        note: one key and value for the header's metadata. Only one, because safetensors does not
            fix the order of several.
    """
    metadata = None if note is None else dict([note])
    write_whole(path, lambda partial: save_file(dict(tensors), partial, metadata=metadata))


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically.

    Args:
        path: where the file goes.
        text: the content.
    """

    def write(partial: Path) -> None:
        partial.write_text(text, encoding="utf-8")

    write_whole(path, write)


def is_partial(name: str) -> bool:
    """Whether a file name belongs to a file that was never completed."""
    ours = name.startswith(".") and name.endswith(_PARTIAL)
    return ours or _OF_SAFETENSORS.fullmatch(name) is not None
