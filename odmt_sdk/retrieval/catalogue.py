"""The catalogue's embeddings: computed in batches, kept until weights change.

Letters: N items, S sources, D hidden size.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import nn

from odmt_sdk.scoring import fused_vectors

ITEMS_PER_BATCH = 512
SAMPLED_VALUES = 16  # of every weight, at least


class CatalogueCache:
    """Remembers the embeddings of every item until a weight of their encoder changes.

    An in-place change raises a tensor's version, except those of fused optimisers and those made
    through `.data`; a few values of every weight are compared too, and an optimiser changes all.
    The embeddings are kept as one matrix (N + 1, S * D), the sources side by side, of which those
    of a source are a part: `fused_vectors` finds it again without a copy.
    """

    def __init__(self) -> None:
        self._weights: _Weights | None = None
        self._matrix = torch.empty(0)
        self._widths: dict[str, int] = {}

    def get(
        self, encoder: nn.Module, compute: Callable[[], dict[str, torch.Tensor]]
    ) -> dict[str, torch.Tensor]:
        """The embeddings, computed anew if they may have changed.

        Args:
            encoder: the module whose weights they depend on.
            compute: makes source -> (N + 1, D).

        Returns:
            Source -> (N + 1, D), on the device of the weights.
        """
        kept = self.kept(encoder)
        if kept is None:
            self.keep(encoder, compute())
            kept = self._by_source()
        return kept

    def kept(self, encoder: nn.Module) -> dict[str, torch.Tensor] | None:
        """The embeddings, or None if they may have changed.

        Args:
            encoder: the module whose weights they depend on.

        Returns:
            Source -> (N + 1, D), on the device of the weights.
        """
        weights = _Weights.of(encoder)
        if self._weights is None or not self._weights.same(weights):
            return None
        self._matrix = self._matrix.to(weights.parameters[0].device)
        return self._by_source()

    def keep(self, encoder: nn.Module, embeddings: Mapping[str, torch.Tensor]) -> None:
        """Remember embeddings made some other way.

        Args:
            encoder: the module whose weights they depend on.
            embeddings: source -> (N + 1, D).
        """
        sources = getattr(encoder, "sources", tuple(embeddings))
        self._weights = _Weights.of(encoder)
        self._matrix = fused_vectors(embeddings, sources)
        self._widths = {source: embeddings[source].shape[1] for source in sources}

    def forget(self) -> None:
        """Compute the embeddings anew when they are asked for next."""
        self._weights = None

    def _by_source(self) -> dict[str, torch.Tensor]:
        parts = self._matrix.split(list(self._widths.values()), dim=1)
        return dict(zip(self._widths, parts, strict=True))


class _Weights(NamedTuple):
    """What is compared of an encoder's weights."""

    parameters: list[nn.Parameter]
    versions: list[int]
    sample: torch.Tensor

    @classmethod
    def of(cls, encoder: nn.Module) -> "_Weights":
        parameters = list(encoder.parameters())
        with torch.no_grad():
            samples = [_sampled(parameter) for parameter in parameters]
            sample = torch.cat([values.to("cpu", torch.float64) for values in samples])
        return cls(parameters, [p._version for p in parameters], sample)

    def same(self, other: "_Weights") -> bool:
        return (
            len(self.parameters) == len(other.parameters)
            and all(a is b for a, b in zip(self.parameters, other.parameters, strict=True))
            and self.versions == other.versions
            and torch.equal(self.sample, other.sample)
        )


def _sampled(parameter: torch.Tensor) -> torch.Tensor:
    """At least `SAMPLED_VALUES` of a weight; of its part on this device, where it is sharded."""
    values: torch.Tensor = parameter.to_local() if hasattr(parameter, "to_local") else parameter
    return values.flatten()[:: max(1, values.numel() // SAMPLED_VALUES)]


def encode_in_batches(
    encoder: nn.Module,
    encode_items: Callable[[torch.Tensor], dict[str, torch.Tensor]],
    num_items: int,
) -> dict[str, torch.Tensor]:
    """Encode all items in eval mode, without gradients.

    Args:
        encoder: the module to put into eval mode meanwhile.
        encode_items: rows (U,) to source -> (U, D).
        num_items: N.

    Returns:
        Source -> (N + 1, D); row 0, padding, is zero.
    """
    device = next(encoder.parameters()).device
    training = encoder.training
    encoder.eval()
    try:
        with torch.no_grad():
            batches = [
                encode_items(rows)
                for rows in torch.arange(1, num_items + 1, device=device).split(ITEMS_PER_BATCH)
            ]
    finally:
        encoder.train(training)
    return {
        source: torch.cat([torch.zeros_like(batches[0][source][:1]), *(b[source] for b in batches)])
        for source in batches[0]
    }
