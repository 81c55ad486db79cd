"""The tokens of one modality for a whole catalogue, as `ItemFeatures` asks for them.

Letters: N items, T tokens of one item, d feature width, U items asked for.
"""

from typing import Protocol, Self

import torch

from odmt_sdk.items.modality import ModalityTokens, blocks

STANDARD_EPS = 1e-6  # keeps features that never vary at 0


class CatalogueTokens(Protocol):
    """Tokens of N items, wherever they are kept; row 0 is padding."""

    @property
    def width(self) -> int:
        """D."""

    @property
    def max_tokens(self) -> int:
        """T, of the item that has most."""

    @property
    def lengths(self) -> torch.Tensor:
        """(N + 1,) valid tokens of each item."""

    def whole(self) -> ModalityTokens:
        """Tokens (N + 1, T, d) and lengths (N + 1,) in memory."""

    def gather(self, rows: torch.Tensor) -> ModalityTokens:
        """Rows (U,) to tokens (U, T', d) and lengths (U,), on the device of `rows`."""

    def select(self, rows: torch.Tensor) -> "CatalogueTokens":
        """Only these rows (N' + 1,), of which the first is 0, in this order."""

    def standardize(self) -> "CatalogueTokens":
        """Every feature with mean 0 and deviation 1 over the valid tokens."""

    def to(self, device: torch.device | str | None, dtype: torch.dtype | None) -> "CatalogueTokens":
        """On another device, or in another type."""


class TokensInMemory:
    """Tokens of a catalogue as one tensor.

    Args:
        tokens: (N + 1, T, d).
        lengths: (N + 1,).

    Examples:
        >>> tokens = TokensInMemory(torch.randn(4, 7, 16), torch.tensor([0, 7, 2, 0]))
        >>> tokens.gather(torch.tensor([2, 3])).tokens.shape
        torch.Size([2, 2, 16])
    """

    def __init__(self, tokens: torch.Tensor, lengths: torch.Tensor) -> None:
        self._tokens, self._lengths = tokens, lengths

    @property
    def width(self) -> int:
        """D."""
        return self._tokens.shape[2]

    @property
    def max_tokens(self) -> int:
        """T."""
        return self._tokens.shape[1]

    @property
    def lengths(self) -> torch.Tensor:
        """(N + 1,) valid tokens of each item."""
        return self._lengths

    def whole(self) -> ModalityTokens:
        """The tensors themselves."""
        return ModalityTokens(self._tokens, self._lengths)

    def gather(self, rows: torch.Tensor) -> ModalityTokens:
        """Rows (U,) to tokens (U, T', d) and lengths (U,), on the device of `rows`."""
        tokens, lengths = self._tokens, self._lengths
        here = rows.to(tokens.device)
        taken = lengths[here]
        longest = tokens.shape[1]
        if tokens.device.type == "cpu" and len(here):  # elsewhere the maximum would wait
            longest = max(1, int(taken.max()))
        return ModalityTokens(
            tokens[:, :longest].index_select(0, here).to(rows.device, non_blocking=True),
            taken.to(rows.device, non_blocking=True),
        )

    def select(self, rows: torch.Tensor) -> Self:
        """Only these rows (N' + 1,), of which the first is 0, in this order."""
        return type(self)(self._tokens[rows], self._lengths[rows])

    def standardize(self) -> Self:
        """Every feature with mean 0 and deviation 1 over the valid tokens; the others are 0."""
        tokens, lengths = self._tokens, self._lengths
        valid = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
        total, squares = torch.zeros(2, self.width, dtype=torch.float64)
        for block in blocks(len(tokens)):
            chosen = tokens[block][valid[block]].double()  # (rows, T, d) -> (valid tokens, d)
            total += chosen.sum(0).cpu()
            squares += chosen.square().sum(0).cpu()
        moments = mean_and_deviation(total, squares, int(valid.sum()))
        mean, deviation = (moment.to(tokens.device) for moment in moments)
        scaled = torch.zeros_like(tokens)
        for block in blocks(len(tokens)):
            centred = (tokens[block].float() - mean) / deviation
            scaled[block] = (centred * valid[block, :, None]).to(tokens.dtype)
        return type(self)(scaled, lengths)

    def to(self, device: torch.device | str | None, dtype: torch.dtype | None) -> Self:
        """On another device, or in another type; tensors that need no change are shared."""
        return type(self)(self._tokens.to(device=device, dtype=dtype), self._lengths.to(device))


def mean_and_deviation(
    total: torch.Tensor, squares: torch.Tensor, count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation of each feature from sums over tokens.

    Args:
        total: (d,) float64, sums.
        squares: (d,) float64, sums of squares.
        count: of the tokens.

    Returns:
        Both (d,) float32; the deviation is above 0.
    """
    mean = total / max(1, count)
    variance = (squares / max(1, count) - mean.square()).clamp(min=0)
    return mean.float(), (variance.sqrt() + STANDARD_EPS).float()
