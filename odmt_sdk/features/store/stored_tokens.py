"""Tokens of one modality, read from a store row by row.

Letters: N items, T tokens of one item, d feature width, U items asked for.
"""

import dataclasses
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch

from odmt_sdk.features.catalogue_tokens import (
    CatalogueTokens,
    TokensInMemory,
    both_moments,
    mean_and_deviation,
)
from odmt_sdk.features.modality import ModalityTokens, blocks
from odmt_sdk.features.store.manifest import Shard
from odmt_sdk.features.store.reading import Kind, opened, tensor_of
from odmt_sdk.files.tensor_file import read_header

_MOST_OPEN = 128  # maximum number of open files per modality


class ShardFiles:
    """Reads parts of the shards of one modality.

    Files are read rather than memory-mapped. A file that is truncated in the meantime raises an
    error, and cached pages do not count as memory of the process.

    Args:
        folder: folder of the modality.
        shards: its shards in item order.
        counts: number of tokens of each shard.
        width: the feature width d.
        dtype: dtype of the tokens.

    Examples:
        >>> shards = [Shard("0000-00000.safetensors", 0, 64)]
        >>> files = ShardFiles(Path("store/text"), shards, [640], 384, torch.float16)
        >>> files.read(0, memoryview(bytearray(768)), [(5, 0, 768)])          # doctest: +SKIP
    """

    def __init__(
        self,
        folder: Path,
        shards: Sequence[Shard],
        counts: Sequence[int],
        width: int,
        dtype: torch.dtype,
    ) -> None:
        self.folder, self.shards, self.counts = folder, shards, counts
        self.width, self.dtype = width, dtype
        self.first_items = torch.tensor([shard.first for shard in shards])
        self._open: OrderedDict[int, _OpenShard] = OrderedDict()  # least recently used first
        self._checked: set[int] = set()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict(), "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def check(self, numbers: Sequence[int]) -> None:
        """Check shards before memory is allocated for their tokens.

        Args:
            numbers: their indices in `shards`.

        Raises:
            FileNotFoundError: if the folder no longer exists.
            ValueError: if a file is missing, damaged or inconsistent with the index.
        """
        for number in numbers:
            if number not in self._checked:
                self._opened(number)

    def read(self, number: int, into: memoryview, pieces: Sequence[tuple[int, int, int]]) -> None:
        """Read tokens of one shard into a buffer.

        Args:
            number: index of the shard in `shards`.
            into: the buffer to fill.
            pieces: tuples of the first token, its byte offset in `into` and the number of bytes.

        Raises:
            FileNotFoundError: if the folder no longer exists.
            ValueError: if the file is missing or damaged.
        """
        shard = self._opened(number)
        size = self.width * self.dtype.itemsize
        for first, begin, length in pieces:
            place, end = shard.start + first * size, begin + length
            while begin < end:
                try:
                    count = _read_at(shard.handle, into[begin:end], place)
                except OSError as error:
                    raise self._damaged(number, error) from error
                if not count:
                    raise self._damaged(number, "it ends early")
                begin, place = begin + count, place + count

    def _opened(self, number: int) -> "_OpenShard":
        with self._lock:
            shard = self._open.pop(number, None) or self._open_shard(number)
            self._checked.add(number)
            self._open[number] = shard
            if len(self._open) > _MOST_OPEN:
                self._open.popitem(last=False)
        return shard

    def _open_shard(self, number: int) -> "_OpenShard":
        path = self.folder / self.shards[number].name
        try:
            with opened(path) as file:
                header, _ = read_header(file, path.name)
                tokens = tensor_of(path, header, "tokens", Kind(self.dtype, 2))
                expected = (self.counts[number], self.width if self.counts[number] else 0)
                if tokens.shape != expected and tokens.shape != (0, self.width):
                    raise ValueError(
                        f"its tokens have the shape {tuple(tokens.shape)}, but the index says "
                        f"{expected}"
                    )
                return _OpenShard(os.dup(file.fileno()), tokens.start)
        except FileNotFoundError as error:
            if not self.folder.is_dir():
                raise FileNotFoundError(
                    f"the folder {self.folder} no longer exists: it was moved, renamed or deleted, "
                    "or its disk is not connected. Open the features at their new place with "
                    "ItemFeatures.open"
                ) from error
            raise self._damaged(number, "it is missing") from error
        except ValueError as error:
            raise self._damaged(number, error) from error

    def _damaged(self, number: int, why: object) -> ValueError:
        path = self.folder / self.shards[number].name
        return ValueError(
            f"{path} cannot be read ({why}): the store is damaged, or has been rewritten since it "
            "was opened. Open it again with ItemFeatures.open. If that does not help, move the "
            "file away and call ItemFeatures.from_items again with the same items, encoders and "
            "path, which creates the missing file"
        )


class _OpenShard:
    """An open file, which is closed when it is no longer referenced."""

    def __init__(self, handle: int, start: int) -> None:
        self.handle, self.start = handle, start
        weakref.finalize(self, os.close, handle)


def _read_at(handle: int, into: memoryview, place: int) -> int:
    """Read from an offset of a file into a buffer; return the number of bytes read."""
    if hasattr(os, "preadv"):
        return os.preadv(handle, [into], place)
    os.lseek(handle, place, os.SEEK_SET)  # Windows
    found = os.read(handle, len(into))
    into[: len(found)] = found
    return len(found)


@dataclasses.dataclass(frozen=True, eq=False)
class StoredTokens:
    """Tokens of a catalogue in a store; each batch reads only its own rows.

    Args:
        files: the shards with the tokens.
        offsets: (N_store + 1,) int64, number of tokens before each item.
        width: the feature width d.
        stored: dtype of the tokens in the files.
        max_tokens: T.
        sums: (2, d) float64, sums of all tokens and of their squares.
        rows: (N + 1,) selected rows of the store; None = all.
        moments: (2, d) float32, mean and standard deviation to standardize with; None = raw tokens.
        dtype: dtype to return; None = as stored, or float32 with `moments`.

    Examples:
        >>> features = ItemFeatures.open("my-features")                       # doctest: +SKIP
        >>> features.gather(torch.tensor([3, 1]))["text"].tokens.shape        # doctest: +SKIP
        torch.Size([2, 12, 384])
    """

    files: ShardFiles
    offsets: torch.Tensor
    width: int
    stored: torch.dtype
    max_tokens: int
    sums: torch.Tensor
    rows: torch.Tensor | None = None
    moments: torch.Tensor | None = None
    dtype: torch.dtype | None = None

    def __deepcopy__(self, memo: object) -> Self:
        return self  # immutable

    @property
    def versions(self) -> tuple[int, ...]:
        """Empty: nothing is kept in memory that could be changed."""
        return ()

    @property
    def lengths(self) -> torch.Tensor:
        """(N + 1,) number of valid tokens of each item."""
        if self.rows is not None:
            return self._spans(self.rows)[1]
        return torch.cat([torch.zeros(1, dtype=torch.int64), self.offsets.diff()])

    def whole(self) -> ModalityTokens:
        """Return all tokens (N + 1, T, d) and lengths (N + 1,), read into memory."""
        rows = len(self.offsets) if self.rows is None else len(self.rows)
        dtype = self.dtype or (self.stored if self.moments is None else torch.float32)
        tokens = torch.zeros(rows, self.max_tokens, self.width, dtype=dtype)
        for block in blocks(rows):
            part = self.gather(torch.arange(rows)[block]).tokens
            tokens[block, : part.shape[1]] = part
        return ModalityTokens(tokens, self.lengths)

    def gather(self, rows: torch.Tensor) -> ModalityTokens:
        """Return tokens (U, T', d) and lengths (U,) of rows (U,), on the device of `rows`."""
        here = rows.cpu()
        if self.rows is not None:
            here = self.rows[here]
        starts, lengths = self._spans(here)
        longest = max(1, int(lengths.max())) if len(here) else 1
        tokens = self._read(here, starts, lengths, longest).to(rows.device, non_blocking=True)
        lengths = lengths.to(rows.device, non_blocking=True)
        if self.moments is not None:
            mean, deviation = self.moments.to(rows.device, non_blocking=True)
            exists = torch.arange(longest, device=rows.device) < lengths[:, None]
            tokens = (tokens.float() - mean).div_(deviation).mul_(exists[..., None])
        if self.dtype is not None:
            tokens = tokens.to(self.dtype)
        return ModalityTokens(tokens, lengths)

    def _spans(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the offset of the first token and the number of tokens of rows in the store."""
        items = (rows - 1).clamp(min=0)
        starts = self.offsets[items]
        return starts, (self.offsets[items + 1] - starts) * (rows > 0)

    def _read(
        self, rows: torch.Tensor, starts: torch.Tensor, lengths: torch.Tensor, longest: int
    ) -> torch.Tensor:
        """Read tokens (U, T', d) of rows of the store; zeros past an item's length."""
        shard = torch.searchsorted(self.files.first_items, rows - 1, right=True) - 1
        order = starts.argsort()  # the order of the tokens in the files
        order = order[lengths[order] > 0]
        numbers, sizes = shard[order].unique_consecutive(return_counts=True)
        self.files.check(numbers.tolist())
        tokens = torch.zeros(len(rows), longest, self.width, dtype=self.stored)
        buffer = tokens.view(-1).view(torch.uint8).numpy().data
        size = self.width * tokens.element_size()  # bytes of a token
        first_tokens = self.offsets[self.files.first_items[numbers]].repeat_interleave(sizes)
        within = (starts[order] - first_tokens).tolist()
        places = (order * (longest * size)).tolist()
        pieces = list(zip(within, places, (lengths[order] * size).tolist(), strict=True))
        begin = 0
        for number, count in zip(numbers.tolist(), sizes.tolist(), strict=True):
            self.files.read(number, buffer, pieces[begin : begin + count])
            begin += count
        return tokens

    def select(self, rows: torch.Tensor) -> Self:
        """Keep only rows (N' + 1,), in the given order; the first one must be 0."""
        return dataclasses.replace(self, rows=rows if self.rows is None else self.rows[rows])

    def standardize(self, moments: torch.Tensor | None = None) -> Self:
        """Standardize with moments (2, d) when reading; None = computed from the tokens."""
        if moments is None:
            if self.rows is None and self.moments is None:
                sums, count = self.sums, int(self.offsets[-1])
            else:
                sums, count = self._sums()
            moments = torch.stack(mean_and_deviation(sums[0], sums[1], count))
        return dataclasses.replace(self, moments=both_moments(self.moments, moments))

    def _sums(self) -> tuple[torch.Tensor, int]:
        lengths = self.lengths
        sums = torch.zeros(2, self.width, dtype=torch.float64)
        for block in blocks(len(lengths)):
            tokens, valid = self.gather(torch.arange(len(lengths))[block])
            exists = torch.arange(tokens.shape[1]) < valid[:, None]
            chosen = tokens[exists].double()  # (rows, T, d) -> (valid tokens, d)
            sums += torch.stack([chosen.sum(0), chosen.square().sum(0)])
        return sums, int(lengths.sum())

    def to(self, device: torch.device | str | None, dtype: torch.dtype | None) -> CatalogueTokens:
        """Convert to another dtype when reading, or load into memory on another device."""
        if device is not None and torch.device(device).type != "cpu":
            return TokensInMemory(*self.whole(), self.moments).to(device, dtype)
        return self if dtype is None else dataclasses.replace(self, dtype=dtype)
