"""Reads the files of a store without trusting their content.

Files are read rather than memory-mapped, so that a file truncated in the meantime raises an error
instead of crashing the process.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch

from odmt_sdk.errors import AdapterError
from odmt_sdk.files.tensor_file import SavedTensor, read_header
from odmt_sdk.files.untrusted_files import open_inside, read_json


class Kind(NamedTuple):
    """The expected type of a tensor in a file.

    Args:
        dtype: its dtype.
        dimensions: its number of dimensions.
        needed: whether it must be present in every file.
    """

    dtype: torch.dtype
    dimensions: int = 1
    needed: bool = True


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file of a store.

    Args:
        path: the file.

    Yields:
        The open file.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it is not a regular file in its folder, is damaged, or cannot be read.
    """
    try:
        with open_inside(path.parent, path.name) as file:
            yield file
    except FileNotFoundError:
        raise
    except AdapterError as error:  # the message begins with the file name
        raise ValueError(f"{path.parent}{os.sep}{error}") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read: it is damaged, or {error}") from error


def read_object(path: Path, *, max_bytes: int) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: the file.
        max_bytes: maximum file size; a larger file is rejected without reading it.

    Returns:
        Its content.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it is damaged, see `read_json`, or is not a JSON object.
    """
    with opened(path) as file:
        content = read_json(file, path.name, max_bytes=max_bytes)
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged: it is not a JSON object")
    return content


def read_tensors(
    path: Path, kinds: Mapping[str, Kind]
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read tensors of a safetensors file into memory.

    Args:
        path: the file.
        kinds: name -> expected type; other tensors in the file are not read.

    Returns:
        The tensors by name, and the metadata of the file.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it is damaged, or a tensor is missing or of the wrong type.
    """
    with opened(path) as file:
        header, metadata = read_header(file, path.name)
        return {
            name: tensor_of(path, header, name, kind).read()
            for name, kind in kinds.items()
            if kind.needed or name in header
        }, metadata


def tensor_of(path: Path, header: Mapping[str, SavedTensor], name: str, kind: Kind) -> SavedTensor:
    """Look up a tensor in a file header and check its type.

    Args:
        path: the file.
        header: the header of the file.
        name: name of the tensor.
        kind: its expected type.

    Returns:
        The tensor, not yet read.

    Raises:
        ValueError: if it is missing or of the wrong type.
    """
    found = header.get(name)
    if found is None or (found.dtype, len(found.shape)) != (kind.dtype, kind.dimensions):
        raise ValueError(
            f"{path} is damaged: it has no {name!r} of type {kind.dtype} and {kind.dimensions} "
            "dimensions"
        )
    return found
