"""Tokens of one modality read from a store, row by row.

Letters: N items, T tokens of one item, d feature width, U items asked for, P tokens of all of them.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError, safe_open

from odmt_sdk.items.catalogue_tokens import CatalogueTokens, TokensInMemory, mean_and_deviation
from odmt_sdk.items.modality import ModalityTokens, blocks
from odmt_sdk.items.store.manifest import Shard

# Pages that were read belong to the process until its files are unmapped: after so many bytes all
# are, so that resident memory stays the same however much is read. They stay in the system's cache.
_UNMAP_AFTER = 2**29
# The system maps what lies around the page that is read too, 64 KiB on Linux.
_MAPPED_AROUND = 2**16


class ShardFiles:
    """The files of one modality, mapped into memory as they are needed.

    Args:
        folder: of the modality.
        shards: its files in the order of their items.

    Examples:
        >>> files = ShardFiles(Path("store/text"), [Shard("0000-00000.safetensors", 0, 64)])
        >>> tokens = files.tokens(0)                                          # doctest: +SKIP
    """

    def __init__(self, folder: Path, shards: Sequence[Shard]) -> None:
        self.folder, self.shards = folder, shards
        self.first_items = torch.tensor([shard.first for shard in shards])
        self._mapped: dict[int, torch.Tensor] = {}
        self._bytes_mapped = 0

    def tokens(self, number: int) -> torch.Tensor:
        """The tokens (P, d) of one file.

        Args:
            number: its place among `shards`.

        Returns:
            A tensor that reads from the file; nothing is read by this call.

        Raises:
            ValueError: if the file is missing or damaged.
        """
        if number not in self._mapped:
            path = self.folder / self.shards[number].name
            try:
                with safe_open(path, framework="pt") as file:
                    self._mapped[number] = file.get_tensor("tokens")
            except (OSError, SafetensorError) as error:
                raise ValueError(
                    f"{path} cannot be read ({error}): the store is damaged. Delete what is left "
                    "of that file and call ItemFeatures.from_items again with the same items, "
                    "encoders and path: it makes what is missing"
                ) from error
        return self._mapped[number]

    def count(self, places: int, bytes_read: int) -> None:
        """Note what was read, and at how many places, and give its memory back in time."""
        self._bytes_mapped += bytes_read + places * _MAPPED_AROUND
        if self._bytes_mapped > _UNMAP_AFTER:
            self._mapped.clear()
            self._bytes_mapped = 0


@dataclasses.dataclass(frozen=True, eq=False)
class MappedTokens:
    """Tokens of a catalogue in the files of a store; a batch reads its own rows only.

    Args:
        files: where the tokens are.
        offsets: (N_store + 1,) int64, tokens of all items before each item.
        width: d.
        stored: type of the tokens in the files.
        max_tokens: T.
        sums: (2, d) float64, sums of all tokens and of their squares.
        rows: (N + 1,) rows of the store that are selected; None = all.
        moments: (2, d) float32, mean and deviation to shift and scale by; None = tokens as stored.
        dtype: type to return; None = as stored, or float32 with `moments`.

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
        return self  # nothing in it ever changes, and what it maps may not fit in memory

    @property
    def lengths(self) -> torch.Tensor:
        """(N + 1,) valid tokens of each item."""
        if self.rows is not None:
            return self._spans(self.rows)[1]
        return torch.cat([torch.zeros(1, dtype=torch.int64), self.offsets.diff()])

    def whole(self) -> ModalityTokens:
        """Tokens (N + 1, T, d) and lengths (N + 1,), read into memory."""
        rows = len(self.offsets) if self.rows is None else len(self.rows)
        dtype = self.dtype or (self.stored if self.moments is None else torch.float32)
        tokens = torch.zeros(rows, self.max_tokens, self.width, dtype=dtype)
        for block in blocks(rows):
            part = self.gather(torch.arange(rows)[block]).tokens
            tokens[block, : part.shape[1]] = part
        return ModalityTokens(tokens, self.lengths)

    def gather(self, rows: torch.Tensor) -> ModalityTokens:
        """Rows (U,) to tokens (U, T', d) and lengths (U,), on the device of `rows`."""
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
        """Where the tokens of rows of the store start among all, and how many there are."""
        items = (rows - 1).clamp(min=0)
        starts = self.offsets[items]
        return starts, (self.offsets[items + 1] - starts) * (rows > 0)

    def _read(
        self, rows: torch.Tensor, starts: torch.Tensor, lengths: torch.Tensor, longest: int
    ) -> torch.Tensor:
        """Tokens (U, T', d) of rows of the store, zeros past an item's length."""
        tokens = torch.zeros(len(rows), longest, self.width, dtype=self.stored)
        places = tokens.view(-1, self.width)  # (U, T', d) -> (U * T', d)
        shard = torch.searchsorted(self.files.first_items, rows - 1, right=True) - 1
        order = starts.argsort()  # the order in which tokens lie in the files
        counts = lengths[order]
        ends = counts.cumsum(0)
        within = torch.arange(int(counts.sum())) - (ends - counts).repeat_interleave(counts)  # (P,)
        source = starts[order].repeat_interleave(counts) + within
        target = (order * longest).repeat_interleave(counts) + within
        numbers, sizes = (
            shard[order].repeat_interleave(counts).unique_consecutive(return_counts=True)
        )
        first_tokens = self.offsets[self.files.first_items[numbers]]
        begin = 0
        for number, size, first in zip(
            numbers.tolist(), sizes.tolist(), first_tokens.tolist(), strict=True
        ):
            chosen = slice(begin, begin + size)
            found = self.files.tokens(number).index_select(0, source[chosen] - first)
            places.index_copy_(0, target[chosen], found)
            begin += size
        self.files.count(len(rows), begin * self.width * tokens.element_size())
        return tokens

    def select(self, rows: torch.Tensor) -> Self:
        """Only these rows (N' + 1,), of which the first is 0, in this order."""
        return dataclasses.replace(self, rows=rows if self.rows is None else self.rows[rows])

    def standardize(self) -> Self:
        """Every feature with mean 0 and deviation 1 over the valid tokens, as they are read."""
        if self.rows is None and self.moments is None:
            sums, count = self.sums, int(self.offsets[-1])
        else:
            sums, count = self._sums()
        moments = torch.stack(mean_and_deviation(sums[0], sums[1], count))
        if self.moments is not None:  # shifted and scaled already: both in one
            mean, deviation = self.moments
            moments = torch.stack([mean + moments[0] * deviation, deviation * moments[1]])
        return dataclasses.replace(self, moments=moments)

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
        """In another type as they are read, or in memory on another device."""
        if device is not None and torch.device(device).type != "cpu":
            return TokensInMemory(*self.whole()).to(device, dtype)
        return self if dtype is None else dataclasses.replace(self, dtype=dtype)
