"""Safetensors reader for files from untrusted sources.

The header is checked against the size of the file before any memory is allocated. Values are read
directly into the destination tensor. There is no memory map, which would crash the process if the
file were truncated in the meantime, and no second copy.
"""

import errno
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, NoReturn, cast

import torch

from odmt_sdk.errors import AdapterError
from odmt_sdk.files.untrusted_files import parse_json

MAX_HEADER_BYTES = 8 << 20
MAX_TENSORS = 30_000  # in all files of one kind in a folder
VALUES_OF_A_TENSOR = 20  # JSON values that one tensor may take in a header
MAX_DIMENSIONS = 16
MAX_NAME = 1000
MAX_HOLES = 64 << 20  # bytes of a sparse file that are not allocated on disk
MAX_SIZE = 1 << 48

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "C64": torch.complex64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "U16": torch.uint16,
    "U32": torch.uint32,
    "U64": torch.uint64,
    "BOOL": torch.bool,
}


@dataclass(frozen=True, slots=True)
class SavedTensor:
    """One tensor of a safetensors file, not yet read.

    Args:
        file: the file, open for reading.
        file_name: name of the file in error messages.
        name: name of the tensor.
        dtype: data type of the values.
        shape: shape of the tensor.
        start: offset of the first value in the file, in bytes.
        num_bytes: size of the values in bytes.
    """

    file: BinaryIO
    file_name: str
    name: str
    dtype: torch.dtype
    shape: torch.Size
    start: int
    num_bytes: int

    def read(self, into: torch.Tensor | None = None) -> torch.Tensor:
        """Read the values.

        Args:
            into: contiguous CPU tensor of this dtype and shape that receives the values; None
                allocates one.

        Returns:
            The tensor that holds the values.

        Raises:
            AdapterError: if the file ends early or a boolean is neither 0 nor 1.
        """
        if into is None:
            into = torch.empty(self.shape, dtype=self.dtype)
        raw = into.reshape(-1).view(torch.uint8)  # the same memory
        self.file.seek(self.start)
        left = raw.numpy().data
        while len(left):
            count = cast(Any, self.file).readinto(left)  # `BinaryIO` does not declare it
            if not count:
                raise AdapterError(f"{self.file_name} is damaged: it ends inside {self.name!r}")
            left = left[count:]
        if self.dtype is torch.bool and raw.numel() and int(raw.max()) > 1:
            raise AdapterError(
                f"{self.file_name} is damaged: {self.name!r} is not of true or false"
            )
        return into


def read_header(
    file: BinaryIO, file_name: str, *, max_tensors: int = MAX_TENSORS
) -> tuple[dict[str, SavedTensor], dict[str, str]]:
    """Read the header of a safetensors file.

    Args:
        file: open for reading; keep it open until the tensors have been read.
        file_name: name of the file in error messages.
        max_tensors: the most tensors that the file may hold. The header is refused without being
            parsed if its JSON is too large for that many tensors.

    Returns:
        The tensors by name, and the metadata.

    Raises:
        AdapterError: if the header is malformed, does not describe the whole file or names too many
            tensors, or if most of the file is a hole that takes no space on disk.
    """

    def damaged(why: str) -> AdapterError:
        return AdapterError(f"{file_name} is damaged: {why}")

    size = os.fstat(file.fileno()).st_size
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > size - 8:
        raise damaged(f"it has {size} bytes, too few for its header")
    if length > MAX_HEADER_BYTES:
        raise damaged(f"its header has {length} bytes, more than {MAX_HEADER_BYTES}")
    if _holes(file, size) > max(MAX_HOLES, size // 2):
        raise damaged("most of it is a hole, which takes no space on disk but would take memory")
    most = VALUES_OF_A_TENSOR * (max_tensors + 1)
    header = parse_json(file.read(length), file_name, max_values=most)
    if not isinstance(header, dict):
        raise damaged("its header is no JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise damaged("its metadata are not strings by name")
    if len(header) > max_tensors:
        raise damaged(f"it exceeds the limit of {MAX_TENSORS} tensors in all files of its kind")
    tensors = {}
    for name, entry in header.items():
        tensors[name] = _tensor(file, file_name, name, entry, 8 + length, damaged)
    position = 8 + length
    for tensor in sorted(tensors.values(), key=lambda tensor: (tensor.start, tensor.num_bytes)):
        if tensor.start != position:
            raise damaged(
                f"the values of {tensor.name!r} begin at {tensor.start}, not at {position}"
            )
        position += tensor.num_bytes
    if position != size:
        raise damaged(f"its header describes {position} bytes, it has {size}")
    return tensors, metadata


def check_tensors(tensors: Mapping[str, torch.Tensor]) -> None:
    """Check that tensors can be written to a file that `read_header` accepts.

    Args:
        tensors: tensors by name.

    Raises:
        AdapterError: if a tensor has no values, or a dtype, shape or name that the file format does
            not support, or if there are too many tensors.
    """

    def refuse(name: str, why: str) -> NoReturn:
        raise AdapterError(f"cannot save {name}: {why}")

    if len(tensors) > MAX_TENSORS:
        raise AdapterError(
            f"cannot save {len(tensors)} weights, an adapter has at most {MAX_TENSORS}: "
            "share_backbone=True saves those of the backbone only once"
        )
    types = set(DTYPES.values())
    for name, tensor in tensors.items():
        if tensor.is_meta:
            refuse(name, "it is on the meta device and has no values; load or draw them first")
        if tensor.layout is not torch.strided or tensor.is_quantized:
            refuse(name, f"it is a {tensor.layout} tensor of {tensor.dtype}; make it a dense one")
        if tensor.dtype not in types:
            refuse(name, f"{tensor.dtype} is no type of a safetensors file; use another")
        if tensor.ndim > MAX_DIMENSIONS:
            refuse(name, f"it has {tensor.ndim} dimensions, more than {MAX_DIMENSIONS}")
        if len(name) > MAX_NAME or name == "__metadata__":
            refuse(name[:40], f"a weight needs a name of at most {MAX_NAME} characters")


def _holes(file: BinaryIO, size: int) -> int:
    """Bytes of a sparse file that were never written, or 0 where the system cannot tell.

    The position in the file is restored.
    """
    if size <= MAX_HOLES or not hasattr(os, "SEEK_HOLE"):
        return 0
    handle, holes, data = file.fileno(), 0, 0
    # behind the back of the buffer of `file`, which goes on to read from here
    position = os.lseek(handle, 0, os.SEEK_CUR)
    try:
        for _ in range(100_000):
            start = os.lseek(handle, data, os.SEEK_DATA)
            holes += start - data
            data = os.lseek(handle, start, os.SEEK_HOLE)
            if data >= size:
                break
    except OSError as error:  # no more data, or a file system that does not report holes
        holes += size - data if error.errno == errno.ENXIO else 0
    finally:
        os.lseek(handle, position, os.SEEK_SET)
    return holes


def _tensor(
    file: BinaryIO, file_name: str, name: str, entry: Any, values: int, damaged: Any
) -> SavedTensor:
    """One tensor of the header; the values of the file begin at the offset `values`."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise damaged(f"{name!r} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise damaged(f"{name!r} has the unknown type {str(dtype)[:20]!r}")
    for numbers in (shape, offsets):
        if not isinstance(numbers, list) or len(numbers) > MAX_DIMENSIONS:
            raise damaged(f"{name!r} has a shape or place that is no short list of numbers")
        if not all(type(n) is int and 0 <= n < MAX_SIZE for n in numbers):
            raise damaged(f"{name!r} has a shape or place out of range")
    if len(offsets) != 2:
        raise damaged(f"{name!r} has no beginning and end")
    start, end = offsets
    if math.prod(shape) * DTYPES[dtype].itemsize != end - start:
        raise damaged(f"{name!r} has the shape {shape}, which is not its {end - start} bytes")
    return SavedTensor(
        file,
        file_name,
        name,
        DTYPES[dtype],
        torch.Size(shape),
        start=values + start,
        num_bytes=end - start,
    )
