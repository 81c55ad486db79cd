"""A table of item IDs with a shared vector for items without training interactions.

Letters: U items, N items of the catalogue, D hidden size.
"""

import torch
from torch import nn

from odmt_sdk.items.growth import append_rows


def id_table(num_items: int, hidden_size: int, initial_length: float) -> nn.Embedding:
    """A table of vectors of the same length, whatever the size of the catalogue.

    Args:
        num_items: N.
        hidden_size: D.
        initial_length: approximate length of the vectors.

    Returns:
        A table of N + 1 rows; row 0, padding, is zero.
    """
    table = nn.Embedding(num_items + 1, hidden_size, padding_idx=0)
    nn.init.normal_(table.weight, std=initial_length * hidden_size**-0.5)
    with torch.no_grad():
        table.weight[0] = 0
    return table


class IdTable(nn.Module):
    """One vector per item ID.

    In eval mode, the unknown-ID vector replaces the IDs of unseen items. It is trained by the IDs
    that are hidden in training. Without hidden IDs it stays zero, the mean of the initial IDs.

    Args:
        num_items: N; the table has N + 1 rows, row 0 is padding.
        hidden_size: D.
        initial_length: approximate length of the vectors before training.

    Examples:
        >>> IdTable(num_items=9, hidden_size=8)(torch.tensor([4, 7])).shape
        torch.Size([2, 8])
    """

    unseen: torch.Tensor

    def __init__(self, *, num_items: int, hidden_size: int, initial_length: float = 0.16) -> None:
        super().__init__()
        self.embedding = id_table(num_items, hidden_size, initial_length)
        self.unknown = nn.Parameter(torch.zeros(hidden_size))
        self.register_buffer("unseen", torch.zeros(num_items + 1, dtype=torch.bool))

    def forward(self, item_ids: torch.Tensor, hidden: torch.Tensor | None = None) -> torch.Tensor:
        """Look IDs up.

        Args:
            item_ids: (U,) rows in 0..N.
            hidden: (U,) bool, IDs that count as unknown in this training batch; None = none.

        Returns:
            (U, D).
        """
        vectors: torch.Tensor = self.embedding(item_ids)
        if not self.training:
            hidden = self.unseen[item_ids]
        if hidden is None:
            return vectors
        return torch.where(hidden[:, None], self.unknown.to(vectors), vectors)

    def add_items(self, count: int) -> None:
        """Add items and mark them as unseen; their IDs start at the unknown-ID vector.

        Args:
            count: number of new items.
        """
        append_rows(self.embedding, self.unknown, count)
        self.unseen = torch.cat([self.unseen, self.unseen.new_ones(count)])
