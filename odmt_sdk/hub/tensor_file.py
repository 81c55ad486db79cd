"""Reading safetensors files that somebody else may have made.

The header is checked against the size of the file before anything is allocated, and values are
read straight into the tensor that keeps them: no memory map, which would crash the process if the
file were cut meanwhile, and no second copy.
"""

import math
import os
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import torch

from odmt_sdk.errors import AdapterError
from odmt_sdk.hub.folder_files import parse_json

MAX_HEADER_BYTES = 16 << 20  # over a hundred thousand tensors
MAX_DIMENSIONS = 16
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


@dataclass(frozen=True)
class SavedTensor:
    """One tensor of a safetensors file, not read yet.

    Args:
        file: open for reading.
        file_name: for messages.
        name: of the tensor.
        dtype: its type.
        shape: its shape.
        start: where its values begin in the file, in bytes.
    """

    file: BinaryIO
    file_name: str
    name: str
    dtype: torch.dtype
    shape: torch.Size
    start: int

    @property
    def num_bytes(self) -> int:
        """Bytes of its values."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self, into: torch.Tensor | None = None) -> torch.Tensor:
        """Read the values.

        Args:
            into: contiguous tensor on the CPU, of this type and shape, that gets them; None makes
                one.

        Returns:
            The tensor that has them.

        Raises:
            AdapterError: if the file ends early or a value is none of its type.
        """
        if into is None:
            into = torch.empty(self.shape, dtype=self.dtype)
        raw = into.reshape(-1).view(torch.uint8)  # the same memory
        self.file.seek(self.start)
        left = memoryview(cast(Any, raw.numpy()))
        while len(left):
            count = cast(Any, self.file).readinto(left)
            if not count:
                raise AdapterError(f"{self.file_name} is damaged: it ends inside {self.name!r}")
            left = left[count:]
        if self.dtype is torch.bool and raw.numel() and int(raw.max()) > 1:
            raise AdapterError(
                f"{self.file_name} is damaged: {self.name!r} is not of true or false"
            )
        return into


def read_header(file: BinaryIO, file_name: str) -> tuple[dict[str, SavedTensor], dict[str, str]]:
    """Read which tensors a safetensors file holds.

    Args:
        file: open for reading; it must stay open for the tensors to be read.
        file_name: for messages.

    Returns:
        Its tensors by name, and its metadata.

    Raises:
        AdapterError: if the header is not sound, or does not describe the whole file.
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
    header = parse_json(file.read(length), file_name)
    if not isinstance(header, dict):
        raise damaged("its header is no JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise damaged("its metadata are not strings by name")
    tensors = {}
    ranges = []
    for name, entry in header.items():
        tensor, end = _tensor(file, file_name, name, entry, 8 + length, damaged)
        tensors[name] = tensor
        ranges.append((tensor.start, end, name))
    position = 8 + length
    for start, end, name in sorted(ranges):
        if start != position:
            raise damaged(f"the values of {name!r} begin at {start}, not at {position}")
        position = end
    if position != size:
        raise damaged(f"its header describes {position} bytes, it has {size}")
    return tensors, metadata


def _tensor(
    file: BinaryIO, file_name: str, name: str, entry: Any, values: int, damaged: Any
) -> tuple[SavedTensor, int]:
    """A tensor of the header, and where its values end."""
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
    tensor = SavedTensor(file, file_name, name, DTYPES[dtype], torch.Size(shape), values + start)
    return tensor, values + end
