"""Item-to-item counts of a model: the items that follow each item in training, with weights.

Letters: N items, K neighbours of an item, B histories, H items of a history, M added scores of a
history, N' items of a block.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import torch
from torch.nn.utils.rnn import pad_sequence

LATEST_ITEMS = 20  # items of a history that are read
MAX_NEIGHBOURS = 1000


class AddedScores(NamedTuple):
    """Values to add to the scores of some items for each history.

    Attributes:
        rows: (B, M) int64 rows of items, 0 = none; a row may occur several times.
        values: (B, M) values to add to their scores.
    """

    rows: torch.Tensor
    values: torch.Tensor

    def times(self, factor: float | torch.Tensor) -> "AddedScores":
        """Multiply all values by a factor, or the values of each history by its factor (B, 1)."""
        return AddedScores(self.rows, (self.values * factor).to(self.values.dtype))

    def add_to_(self, scores: torch.Tensor, block: slice, first_row: int = 0) -> None:
        """Add the values of some histories, in place.

        Args:
            scores: (B', N') scores of the items from `first_row` on.
            block: the B' histories.
            first_row: row of the item in column 0 of `scores`.
        """
        columns = self.rows[block].to(scores.device) - first_row
        values = self.values[block].to(scores)
        outside = (columns < 0) | (columns >= scores.shape[1])
        columns = columns.clamp(0, scores.shape[1] - 1)
        scores.scatter_add_(1, columns, values.masked_fill(outside, 0.0))

    def of_rows(self, rows: torch.Tensor) -> torch.Tensor:
        """Look up the values of chosen items.

        Args:
            rows: (C,) rows of items.

        Returns:
            (B, C).
        """
        distinct, place = torch.unique(rows, return_inverse=True)
        at = torch.searchsorted(distinct, self.rows.contiguous()).clamp(max=len(distinct) - 1)
        values = self.values.where(distinct[at] == self.rows, 0.0)
        sums = values.new_zeros(len(values), len(distinct)).scatter_add_(1, at, values)
        return sums[:, place]


class ItemNeighbours:
    """The K most frequent neighbours of each item in training, as an additional source of scores.

    For each of the latest 20 items of a history, the scores of its neighbours are increased by
    `weight` times the weight of the neighbour. This is multiplied by `decay ** (n - 1)` for the
    n-th latest item.

    `odmt_sdk.baselines.ItemToItem.neighbours` counts the neighbours, and `fit` adds them to the
    model.

    Args:
        rows: (N + 1, K) int32 neighbours of each row, 0 = none; row 0 is padding.
        weights: (N + 1, K) float32 weights of the neighbours, at least 0.
        decay: factor by which the weight of a history item falls with each later item, above 0 and
            at most 1.
        weight: factor of these scores when they are added to the mean of the sources' scores, at
            least 0.

    Raises:
        ValueError: if shapes or types differ from these, or a value is out of range.

    Examples:
        >>> rows = torch.tensor([[0], [2], [1]], dtype=torch.int32)
        >>> near = ItemNeighbours(rows, torch.tensor([[0.0], [0.5], [0.25]]), weight=2.0)
        >>> near.scores(torch.tensor([[2, 1]]))
        AddedScores(rows=tensor([[1, 2]]), values=tensor([[0.3500, 1.0000]]))
    """

    def __init__(
        self,
        rows: torch.Tensor,
        weights: torch.Tensor,
        *,
        decay: float = 0.7,
        weight: float = 1.0,
    ) -> None:
        if rows.ndim != 2 or rows.shape != weights.shape or not rows.shape[1] >= 1:
            raise ValueError(
                f"rows {tuple(rows.shape)} and weights {tuple(weights.shape)} must both have shape "
                "(N + 1, K)"
            )
        if rows.dtype != torch.int32 or weights.dtype != torch.float32:
            raise ValueError(
                f"rows have dtype {rows.dtype} and weights {weights.dtype}; they must have int32 "
                "and float32"
            )
        if rows.shape[1] > MAX_NEIGHBOURS:
            raise ValueError(
                f"items have {rows.shape[1]} neighbours; there can be at most {MAX_NEIGHBOURS}"
            )
        low, high = (int(value) for value in rows.aminmax())
        if low < 0 or high >= len(rows):
            raise ValueError(
                f"a neighbour has row {low if low < 0 else high}, outside 0..{len(rows) - 1}"
            )
        if not bool((weights.isfinite() & (weights >= 0)).all()):
            raise ValueError("the weight of a neighbour must be finite and at least 0")
        if not 0 < decay <= 1:
            raise ValueError(f"decay={decay} must be above 0 and at most 1")
        self.rows, self.weights, self.decay = rows.cpu(), weights.cpu(), float(decay)
        self.weight = weight

    @property
    def weight(self) -> float:
        """Factor of these scores in the score of an item; 0 turns them off."""
        return self._weight

    @weight.setter
    def weight(self, weight: float) -> None:
        if not 0 <= weight < math.inf:
            raise ValueError(f"weight={weight} must be at least 0 and finite")
        self._weight = float(weight)

    def __len__(self) -> int:
        return len(self.rows)

    def with_new_items(self, number: int) -> Self:
        """Return a copy with more items, which have no neighbours and are not neighbours.

        Args:
            number: number of items to add.
        """
        rows, weights = (
            torch.cat([values, values.new_zeros(number, values.shape[1])])
            for values in (self.rows, self.weights)
        )
        return type(self)(rows, weights, decay=self.decay, weight=self.weight)

    def scores(self, histories: torch.Tensor | Sequence[torch.Tensor]) -> AddedScores:
        """Score the neighbours of the latest items of each history.

        Args:
            histories: (B, L) rows in 0..N, oldest first, padded with 0 anywhere; or the rows of
                each history.

        Returns:
            Rows and values (B, H * K), on the CPU; H is at most 20.
        """
        latest = _latest(histories)  # (B, H)
        ago = torch.arange(latest.shape[1] - 1, -1, -1)
        shares = self.weight * self.decay ** ago.float()  # (H,)
        values = self.weights[latest] * shares[:, None]  # (B, H, K)
        return AddedScores(self.rows[latest].long().flatten(1), values.flatten(1))


def added_scores(
    model: Any, histories: torch.Tensor | Sequence[torch.Tensor]
) -> AddedScores | None:
    """The scores that a model's item-to-item counts add.

    Args:
        model: any scoring model.
        histories: as for `ItemNeighbours.scores`.

    Returns:
        The scores, on the device of the model; None if the model has no counts or their weight is
        0.
    """
    neighbours: ItemNeighbours | None = getattr(model, "item_to_item", None)
    if neighbours is None or not neighbours.weight:
        return None
    found = neighbours.scores(histories)
    return AddedScores(found.rows.to(model.device), found.values.to(model.device))


def _latest(histories: torch.Tensor | Sequence[torch.Tensor]) -> torch.Tensor:
    """The latest items (B, H) on the CPU, padded on the left with 0."""
    if not isinstance(histories, torch.Tensor):
        latest = [history[-LATEST_ITEMS:].cpu().long() for history in histories]
        return pad_sequence(latest, batch_first=True, padding_side="left")
    histories = histories.cpu().long()
    slots = torch.arange(histories.shape[1])
    # padding first, then the items in their order
    order = (slots + (histories != 0) * len(slots)).argsort(1)[:, -LATEST_ITEMS:]
    return histories.gather(1, order)
