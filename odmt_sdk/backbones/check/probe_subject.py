"""`Subject`: the backbone under test and the tiny batches for its probes.

Letters: B users, L positions, D hidden size.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch

from odmt_sdk.backbones.bridge import BackboneBridge
from odmt_sdk.backbones.protocol import AdaptedBackbone
from odmt_sdk.backbones.signature.trial import random_embeds, seeded
from odmt_sdk.backbones.undisturbed import tried, undisturbed

ITEMS, LENGTH = 9, 5


class Subject:
    """A backbone under test, with a few random items; use it inside `Subject.measured`.

    Args:
        backbone: a module that follows `SequenceBackbone`.
        hidden_size: D.
        max_seq_length: longest sequence that the backbone will receive.
        allow_future: whether it may read later items.
    """

    def __init__(
        self,
        backbone: AdaptedBackbone,
        *,
        hidden_size: int,
        max_seq_length: int,
        allow_future: bool,
    ) -> None:
        self.backbone = backbone
        self.max_seq_length = max_seq_length
        self.allow_future = allow_future
        self.last_only = bool(getattr(backbone, "last_only", False))
        self.reads_item_ids = bool(getattr(backbone, "reads_item_ids", False))
        self.way_out_of_the_future = getattr(
            backbone, "way_out_of_the_future", BackboneBridge.way_out_of_the_future
        )
        self.table = random_embeds(self.backbone, ITEMS + 1, hidden_size)
        self.table[0] = 0  # padding
        self.length = min(LENGTH, max_seq_length)
        self.changes_its_input = False  # set by `read`
        self._known: dict[tuple[object, ...], torch.Tensor] = {}

    @contextmanager
    def measured(self) -> Iterator[Self]:
        """Put the backbone into eval mode and restore it on exit."""
        with tried(self.backbone):
            yield self

    def rows(self, batch: int) -> torch.Tensor:
        """Sequences (B, L) of items without repetitions within a sequence."""
        users = torch.arange(batch, device=self.table.device).unsqueeze(1)
        positions = torch.arange(self.length, device=self.table.device)
        return (positions + 2 * users) % ITEMS + 1

    def run(self, rows: torch.Tensor, *, seed: int = 0, again: bool = False) -> torch.Tensor:
        """Run the backbone without gradients; results are cached.

        Args:
            rows: (B, L) items, 0 = padding.
            seed: seed of the global random number generators.
            again: whether to run the backbone even if the result is cached.

        Returns:
            (B, L, D), or (B, D) if the backbone returns only the last position.
        """
        key = (self.table.dtype, self.table.device, seed, *rows.shape, *rows.flatten().tolist())
        if again or key not in self._known:
            with torch.no_grad(), seeded(self.backbone, seed):
                self._known[key] = self.read(rows)
        return self._known[key]

    def read(self, rows: torch.Tensor) -> Any:
        """Run the backbone in its current mode, and record whether it changes its input."""
        embeds, mask = self.inputs(rows)
        given = embeds.clone(), mask.clone()
        hidden = self.backbone(*given, **self.ids(rows))
        kept = torch.equal(given[0], embeds) and torch.equal(given[1], mask)
        self.changes_its_input = self.changes_its_input or not kept
        return hidden

    def inputs(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings (B, L, D) and mask (B, L) of the sequences."""
        return self.table[rows], (rows != 0).long()

    def ids(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        """The additional keyword argument of a backbone that reads item ids."""
        return {"item_ids": rows} if self.reads_item_ids else {}

    @contextmanager
    def training(self, seed: int = 0) -> Iterator[None]:
        """Training mode with seeded randomness; eval mode is set on exit."""
        self.backbone.train()
        try:
            with seeded(self.backbone, seed):
                yield
        finally:
            self.backbone.eval()

    @contextmanager
    def moved(
        self, *, device: str | None = None, dtype: torch.dtype | None = None
    ) -> Iterator[Self]:
        """Move the backbone to another device or dtype for the duration of the context."""
        moved = copy.copy(self)
        moved.table = self.table.to(device=device, dtype=dtype)
        with undisturbed(self.backbone, values=False):
            self.backbone.to(device=device, dtype=dtype)
            yield moved
