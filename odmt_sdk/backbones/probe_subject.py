"""A copy of a backbone, and tiny batches to put to it.

Letters: B users, L positions, D hidden size.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

import torch
from torch import nn

from odmt_sdk.backbones.adapter import BackboneAdapter
from odmt_sdk.backbones.trial import copy_module, random_embeds, seeded

ITEMS, LENGTH = 9, 5


class Subject:
    """A copy of a backbone, and a few items to feed it.

    Args:
        backbone: follows `SequenceBackbone`; it is copied.
        hidden_size: D.
        max_seq_length: longest sequence that it will be given.
        allow_future: whether it may read later items.
    """

    def __init__(
        self, backbone: nn.Module, *, hidden_size: int, max_seq_length: int, allow_future: bool
    ) -> None:
        self.backbone = copy_module(backbone)
        self.max_seq_length = max_seq_length
        self.allow_future = allow_future
        self.last_only = bool(getattr(backbone, "last_only", False))
        self.reads_item_ids = bool(getattr(backbone, "reads_item_ids", False))
        self.way_out_of_the_future = getattr(
            backbone, "way_out_of_the_future", BackboneAdapter.way_out_of_the_future
        )
        self.table = random_embeds(self.backbone, ITEMS + 1, hidden_size)
        self.table[0] = 0  # padding
        self.length = min(LENGTH, max_seq_length)

    def rows(self, batch: int) -> torch.Tensor:
        """Sequences (B, L) of items, each item at most once in a sequence."""
        users = torch.arange(batch, device=self.table.device).unsqueeze(1)
        positions = torch.arange(self.length, device=self.table.device)
        return (positions + 2 * users) % ITEMS + 1

    def run(self, rows: torch.Tensor, *, seed: int = 0) -> torch.Tensor:
        """Read sequences without gradients.

        Args:
            rows: (B, L) items, 0 = padding.
            seed: of the random numbers that the backbone may draw.

        Returns:
            (B, L, D), or (B, D) if the backbone returns only the last position.
        """
        with torch.no_grad(), seeded(self.backbone, seed):
            hidden: torch.Tensor = self.backbone(*self.inputs(rows), **self.ids(rows))
        return hidden

    def inputs(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings (B, L, D) and mask (B, L) of sequences."""
        return self.table[rows], (rows != 0).long()

    def ids(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        """The keyword argument of a backbone that reads item ids."""
        return {"item_ids": rows} if self.reads_item_ids else {}

    @contextmanager
    def training(self) -> Iterator[None]:
        """In training mode, where some layers alone have gradients."""
        self.backbone.train()
        try:
            with seeded(self.backbone):
                yield
        finally:
            self.backbone.eval()

    def moved(self, *, device: str | None = None, dtype: torch.dtype | None = None) -> Self:
        """A copy on another device, or with another type of numbers."""
        moved = copy.copy(self)
        moved.backbone = copy_module(self.backbone).to(device=device, dtype=dtype)
        moved.table = self.table.to(device=device, dtype=dtype)
        return moved
