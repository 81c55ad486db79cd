"""Writing a file so that it is there complete or not at all."""

import os
import re
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

_PARTIAL = ".partial"
# safetensors writes to a file of such a name beside the one it is asked for; a kill leaves it.
_OF_SAFETENSORS = re.compile(r"\.tmp\w{6}")


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file beside its place and move it there when it is complete.

    Args:
        path: the file.
        write: writes it to the path that it is given.

    Raises:
        OSError: if writing fails; what was at `path` before is still there.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{_PARTIAL}")
    try:
        write(partial)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise OSError(
            f"cannot write {path}: {error}. What was written before is kept: make room or choose "
            "another place, then run the same call again"
        ) from error


def write_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], *, note: tuple[str, str] | None = None
) -> None:
    """Write a safetensors file, see `write_whole`; the same tensors make the same bytes.

    Args:
        path: the file.
        tensors: contiguous and each with memory of its own.
        note: one name and text for the header. Several would stand in it in any order.
    """
    metadata = None if note is None else dict([note])
    write_whole(path, lambda partial: save_file(dict(tensors), partial, metadata=metadata))


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, see `write_whole`.

    Args:
        path: the file.
        text: its content.
    """

    def write(partial: Path) -> None:
        partial.write_text(text, encoding="utf-8")

    write_whole(path, write)


def is_partial(name: str) -> bool:
    """Tell whether a file name is that of a file that was never completed."""
    ours = name.startswith(".") and name.endswith(_PARTIAL)
    return ours or _OF_SAFETENSORS.fullmatch(name) is not None
