"""Item embeddings of the catalogue, computed in batches and cached until their inputs change.

Letters: N items, S sources, D hidden size.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import nn

from odmt_sdk.features.extractor import progress_bar
from odmt_sdk.modes import evaluating, without_autocast
from odmt_sdk.scoring import fused_vectors

ITEMS_PER_BATCH = 512
SECONDS_BEFORE_BAR = 3
SAMPLED_VALUES = 16  # minimum number of values to compare per weight


class CatalogueCache:
    """Caches the embeddings of all items until a weight or feature that they depend on changes.

    Changes are detected by version counters, which torch increases on every write to a tensor.
    Fused optimizers and writes through `.data` do not increase those of the weights, so a sample of
    values of every weight is compared too.

    The embeddings of all sources are stored side by side in one matrix (N + 1, S * D). The
    embeddings of a source are a view of it, and `fused_vectors` returns it without a copy.
    """

    def __init__(self) -> None:
        self._weights: _Weights | None = None
        self._features: tuple[int, ...] = ()
        self._matrix = torch.empty(0)
        self._widths: dict[str, int] = {}

    def get(
        self,
        encoders: Sequence[nn.Module],
        features: object,
        compute: Callable[[], dict[str, torch.Tensor]],
    ) -> dict[str, torch.Tensor]:
        """Return the embeddings, and recompute them if they may have changed.

        Args:
            encoders: the modules whose weights they depend on, the item encoder first.
            features: the features they depend on; only those with `versions` are checked.
            compute: returns source -> embeddings (N + 1, D).

        Returns:
            Source -> embeddings (N + 1, D), on the device of the weights.
        """
        kept = self.kept(encoders, features)
        if kept is None:
            self.keep(encoders, features, compute())
            kept = self._by_source()
        return kept

    def kept(
        self, encoders: Sequence[nn.Module], features: object
    ) -> dict[str, torch.Tensor] | None:
        """Return the cached embeddings, or None if they may have changed.

        Args:
            encoders: as for `get`.
            features: the features they depend on, see `get`; None = not at hand, not checked.

        Returns:
            Source -> embeddings (N + 1, D), on the device of the weights; or None.
        """
        weights = _Weights.of(encoders)
        if self._weights is None or not self._weights.same(weights):
            return None
        if features is not None and self._features != _versions(features):
            return None
        self._matrix = self._matrix.to(weights.parameters[0].device)
        return self._by_source()

    def keep(
        self,
        encoders: Sequence[nn.Module],
        features: object,
        embeddings: Mapping[str, torch.Tensor],
    ) -> None:
        """Cache embeddings that were computed elsewhere.

        Args:
            encoders: as for `get`.
            features: the features they depend on, see `get`.
            embeddings: source -> embeddings (N + 1, D).
        """
        sources = getattr(encoders[0], "sources", tuple(embeddings))
        self._weights = _Weights.of(encoders)
        self._features = _versions(features)
        self._matrix = fused_vectors(embeddings, sources)
        self._widths = {source: embeddings[source].shape[1] for source in sources}

    def forget(self) -> None:
        """Clear the cache."""
        self._weights = None

    def _by_source(self) -> dict[str, torch.Tensor]:
        parts = self._matrix.split(list(self._widths.values()), dim=1)
        return dict(zip(self._widths, parts, strict=True))


class _Weights(NamedTuple):
    """The state of weights, used to detect changes."""

    parameters: list[nn.Parameter]
    versions: list[int]
    sample: torch.Tensor

    @classmethod
    def of(cls, encoders: Sequence[nn.Module]) -> "_Weights":
        parameters = [p for encoder in encoders for p in encoder.parameters()]
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


def _versions(features: object) -> tuple[int, ...]:
    versions: tuple[int, ...] = getattr(features, "versions", ())
    return versions


def _sampled(parameter: torch.Tensor) -> torch.Tensor:
    """Sample at least `SAMPLED_VALUES` values of a weight, or of its local shard."""
    values: torch.Tensor = parameter.to_local() if hasattr(parameter, "to_local") else parameter
    return values.flatten()[:: max(1, values.numel() // SAMPLED_VALUES)]


def encode_in_batches(
    encoders: Sequence[nn.Module],
    encode_items: Callable[[torch.Tensor], dict[str, torch.Tensor]],
    num_items: int,
    *,
    progress: bool = False,
) -> dict[str, torch.Tensor]:
    """Encode all items in eval mode, without gradients and without autocast.

    The embeddings are cached and saved, so they must not depend on the caller's autocast.

    Args:
        encoders: the modules to put into eval mode during encoding.
        encode_items: rows (U,) -> source -> embeddings (U, D).
        num_items: N.
        progress: whether to show a progress bar if it takes more than a few seconds.

    Returns:
        Source -> embeddings (N + 1, D); row 0, padding, is zero.
    """
    device = next(encoders[0].parameters()).device
    batches = []
    with (
        evaluating(*encoders),
        torch.no_grad(),
        without_autocast(device),
        progress_bar("item", num_items, progress, delay=SECONDS_BEFORE_BAR) as bar,
    ):
        for rows in torch.arange(1, num_items + 1, device=device).split(ITEMS_PER_BATCH):
            batches.append(encode_items(rows))
            bar.update(len(rows))
    return {
        source: torch.cat([torch.zeros_like(batches[0][source][:1]), *(b[source] for b in batches)])
        for source in batches[0]
    }
