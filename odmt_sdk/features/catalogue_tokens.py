"""The tokens of one modality for a whole catalogue: the interface behind `ItemFeatures`.

Letters: N items, T tokens of one item, d feature width, U items asked for.
"""

from typing import Protocol, Self

import torch

from odmt_sdk.features.modality import ModalityTokens, blocks

STANDARD_EPS = 1e-6  # avoids division by zero: a feature that never varies becomes 0


class CatalogueTokens(Protocol):
    """Tokens of N items, in memory or on disk; row 0 is padding."""

    @property
    def width(self) -> int:
        """The feature width d."""

    @property
    def max_tokens(self) -> int:
        """T, the number of tokens of the longest item."""

    @property
    def lengths(self) -> torch.Tensor:
        """(N + 1,) number of valid tokens of each item."""

    @property
    def versions(self) -> tuple[int, ...]:
        """Counters that increase when tokens are changed in place; empty for tokens on disk."""

    def whole(self) -> ModalityTokens:
        """Return all tokens (N + 1, T, d) and lengths (N + 1,) in memory."""

    def gather(self, rows: torch.Tensor) -> ModalityTokens:
        """Return tokens (U, T', d) and lengths (U,) of rows (U,), on the device of `rows`."""

    def select(self, rows: torch.Tensor) -> "CatalogueTokens":
        """Keep only rows (N' + 1,), in the given order; the first one must be 0."""

    @property
    def moments(self) -> torch.Tensor | None:
        """(2, d) mean and standard deviation used to standardize the tokens; None = raw tokens."""

    def standardize(self, moments: torch.Tensor | None = None) -> "CatalogueTokens":
        """Standardize with moments (2, d); None = computed from the valid tokens."""

    def to(self, device: torch.device | str | None, dtype: torch.dtype | None) -> "CatalogueTokens":
        """Move to another device or convert to another dtype."""


class TokensInMemory:
    """Tokens of a catalogue, held in a single tensor.

    Args:
        tokens: (N + 1, T, d).
        lengths: (N + 1,).
        moments: (2, d) float32, mean and standard deviation used to standardize `tokens`.

    Examples:
        >>> tokens = TokensInMemory(torch.randn(4, 7, 16), torch.tensor([0, 7, 2, 0]))
        >>> tokens.gather(torch.tensor([2, 3])).tokens.shape
        torch.Size([2, 2, 16])
    """

    def __init__(
        self, tokens: torch.Tensor, lengths: torch.Tensor, moments: torch.Tensor | None = None
    ) -> None:
        self._tokens, self._lengths, self.moments = tokens, lengths, moments

    @property
    def width(self) -> int:
        """The feature width d."""
        return self._tokens.shape[2]

    @property
    def max_tokens(self) -> int:
        """T, the number of tokens of the longest item."""
        return self._tokens.shape[1]

    @property
    def lengths(self) -> torch.Tensor:
        """(N + 1,) number of valid tokens of each item."""
        return self._lengths

    @property
    def versions(self) -> tuple[int, ...]:
        """How often tokens and lengths were written to."""
        tensors = (self._tokens, self._lengths)
        return tuple(0 if tensor.is_inference() else tensor._version for tensor in tensors)

    def whole(self) -> ModalityTokens:
        """Return the tensors without copying."""
        return ModalityTokens(self._tokens, self._lengths)

    def gather(self, rows: torch.Tensor) -> ModalityTokens:
        """Return tokens (U, T', d) and lengths (U,) of rows (U,), on the device of `rows`."""
        tokens, lengths = self._tokens, self._lengths
        here = rows.to(tokens.device)
        taken = lengths[here]
        longest = tokens.shape[1]
        if tokens.device.type == "cpu" and len(here):  # on a GPU, reading the maximum would sync
            longest = max(1, int(taken.max()))
        return ModalityTokens(
            tokens[:, :longest].index_select(0, here).to(rows.device, non_blocking=True),
            taken.to(rows.device, non_blocking=True),
        )

    def select(self, rows: torch.Tensor) -> Self:
        """Keep only rows (N' + 1,), in the given order; the first one must be 0."""
        return type(self)(self._tokens[rows], self._lengths[rows], self.moments)

    def standardize(self, moments: torch.Tensor | None = None) -> Self:
        """Standardize with moments (2, d), None = computed from the tokens; padding stays 0."""
        tokens, lengths = self._tokens, self._lengths
        valid = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
        if moments is None:
            total, squares = torch.zeros(2, self.width, dtype=torch.float64)
            for block in blocks(len(tokens)):
                chosen = tokens[block][valid[block]].double()  # (rows, T, d) -> (valid tokens, d)
                total += chosen.sum(0).cpu()
                squares += chosen.square().sum(0).cpu()
            moments = torch.stack(mean_and_deviation(total, squares, int(valid.sum())))
        scaled = torch.zeros_like(tokens)
        for block in blocks(len(tokens)):
            scaled[block] = standardized(tokens[block], lengths[block], moments).to(tokens.dtype)
        return type(self)(scaled, lengths, both_moments(self.moments, moments))

    def to(self, device: torch.device | str | None, dtype: torch.dtype | None) -> Self:
        """Move or convert the tokens; tensors that need no change are shared."""
        tokens = self._tokens.to(device=device, dtype=dtype)
        return type(self)(tokens, self._lengths.to(device), self.moments)


def standardized(
    tokens: torch.Tensor, lengths: torch.Tensor, moments: torch.Tensor
) -> torch.Tensor:
    """Standardize the valid tokens of some items.

    Args:
        tokens: (U, T, d).
        lengths: (U,) number of valid tokens of each item, on the device of `tokens`.
        moments: (2, d) mean and standard deviation.

    Returns:
        (U, T, d) float32; tokens past an item's length are 0.
    """
    mean, deviation = moments.to(tokens.device)
    valid = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
    scaled: torch.Tensor = (tokens.float() - mean) / deviation * valid[..., None]
    return scaled


def mean_and_deviation(
    total: torch.Tensor, squares: torch.Tensor, count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the mean and standard deviation of each feature from sums over tokens.

    Args:
        total: (d,) float64, sums.
        squares: (d,) float64, sums of squares.
        count: number of tokens summed.

    Returns:
        Mean and standard deviation, both (d,) float32; the deviation is positive.
    """
    mean = total / max(1, count)
    variance = (squares / max(1, count) - mean.square()).clamp(min=0)
    return mean.float(), (variance.sqrt() + STANDARD_EPS).float()


def both_moments(first: torch.Tensor | None, then: torch.Tensor) -> torch.Tensor:
    """Combine two successive standardizations into one.

    Args:
        first: moments (2, d) applied first, or None.
        then: moments (2, d) applied second.

    Returns:
        Moments (2, d) with the same effect as applying both.
    """
    if first is None:
        return then
    return torch.stack([first[0] + then[0] * first[1], first[1] * then[1]])
