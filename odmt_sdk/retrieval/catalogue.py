"""The catalogue's embeddings: computed in batches, kept until weights change.

Letters: N items, D hidden size.
"""

from collections.abc import Callable

import torch
from torch import nn

ITEMS_PER_BATCH = 512


class CatalogueCache:
    """Remembers the embeddings of every item until a weight of their encoder changes."""

    def __init__(self) -> None:
        self._weights: list[tuple[nn.Parameter, int]] = []
        self._embeddings: dict[str, torch.Tensor] = {}

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
        # every in-place update raises a tensor's version; moving a module to a device does not
        weights = [(weight, weight._version) for weight in encoder.parameters()]
        if not self._embeddings or not _same(self._weights, weights):
            self._embeddings = compute()
            self._weights = weights
        device = weights[0][0].device
        self._embeddings = {source: e.to(device) for source, e in self._embeddings.items()}
        return dict(self._embeddings)

    def clear(self) -> None:
        """Forget them."""
        self._weights, self._embeddings = [], {}


def _same(old: list[tuple[nn.Parameter, int]], new: list[tuple[nn.Parameter, int]]) -> bool:
    return len(old) == len(new) and all(
        a is b and version == now for (a, version), (b, now) in zip(old, new, strict=True)
    )


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
