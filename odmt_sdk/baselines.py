"""Counting baselines, which every trained model should beat.

Letters: E events, B histories, M items of a history, N items, Q queries.
"""

from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

from odmt_sdk.config import whole_number
from odmt_sdk.data.collator import SequenceCollator
from odmt_sdk.data.sequences import SequenceDataset, check_same_rows
from odmt_sdk.data.splits import Split
from odmt_sdk.evaluation.metrics import checked_cuts, ranking_metrics
from odmt_sdk.evaluation.ranks import ranks_among
from odmt_sdk.item_neighbours import LATEST_ITEMS, MAX_NEIGHBOURS, ItemNeighbours
from odmt_sdk.item_regression import regression_weights
from odmt_sdk.outputs import Recommendations
from odmt_sdk.scoring import mask_rows_
from odmt_sdk.vocabulary import ItemVocabulary

__all__ = ["CountingBaseline", "ItemToItem", "Popularity"]

REGRESSION_WEIGHT = 2.0  # total of its weights, relative to that of the counts
PENDING_PAIRS = 5_000_000  # counted at once, so that memory does not grow with their number


class CountingBaseline:
    """Base class of the baselines: ranking, evaluation and recommendation from `scores`.

    Args:
        vocabulary: the item ids of rows 1..N.
    """

    def __init__(self, vocabulary: ItemVocabulary) -> None:
        self.vocabulary = vocabulary

    def scores(self, histories: torch.Tensor) -> torch.Tensor:
        """Score all items as the next item of each history.

        Args:
            histories: (B, M) rows in 0..N, oldest first; 0 = padding, on either side.

        Returns:
            Scores (B, N + 1), float64, higher is better; column 0 is padding.
        """
        raise NotImplementedError(f"{type(self).__name__} must define scores")

    def _scores_of_batch(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Scores (B, N + 1) of a batch of `SequenceCollator`."""
        return self.scores(batch["seen_ids"])

    @torch.no_grad()
    def rank_targets(
        self, dataset: Dataset[Any], *, batch_size: int = 256, exclude_seen: bool = True
    ) -> torch.Tensor:
        """Rank the target of each query among all items, like `odmt_sdk.rank_targets`.

        Args:
            dataset: a `RankingDataset`; whole histories are used, regardless of `max_seq_length`.
            batch_size: queries scored at once.
            exclude_seen: whether to exclude the items of the history, except the target.

        Returns:
            (Q,) int64 ranks in 1..N; ties count against the target.

        Raises:
            ValueError: if the dataset is not a ranking dataset, was split with other items, or has
                a row above N.
        """
        check_same_rows(dataset, self.vocabulary, "split")
        found = [torch.zeros(0, dtype=torch.long)]
        for batch in DataLoader(dataset, batch_size=batch_size, collate_fn=SequenceCollator()):
            self._check_batch(batch)
            scores, seen = self._scores_of_batch(batch), batch["seen_ids"]
            excluded = seen if exclude_seen else seen[:, :0]
            found.append(ranks_among(scores, batch["target_ids"][:, None], excluded))
        return torch.cat(found)

    def _check_batch(self, batch: Mapping[str, torch.Tensor]) -> None:
        if not {"target_ids", "seen_ids"} <= batch.keys():
            raise ValueError(
                "the dataset has no targets to rank: evaluate on a RankingDataset, such as the "
                "validation or test part of leave_one_out(...)"
            )
        highest = int(torch.cat([batch["seen_ids"].flatten(), batch["target_ids"]]).max())
        if highest > len(self.vocabulary):
            raise ValueError(
                f"the dataset has item row {highest}, but the baseline counts "
                f"{len(self.vocabulary)} items: evaluate on the split that it was made of"
            )

    def evaluate(
        self, dataset: Dataset[Any], *, k: Sequence[int] = (5, 10, 20), exclude_seen: bool = True
    ) -> dict[str, float]:
        """Evaluate the baseline, with the same metrics as `odmt_sdk.evaluate`.

        Args:
            dataset: a `RankingDataset`, such as `leave_one_out(...).test`.
            k: cut-offs of the metrics.
            exclude_seen: whether to exclude the items of the history, except the target.

        Returns:
            "hit_rate@10", "recall@10", "ndcg@10", "mrr@10", ... -> value in 0..1.

        Raises:
            ValueError: if the dataset is empty or does not fit, see `rank_targets`, or a k is
                below 1.
            TypeError: if a k is not an integer.
        """
        k = checked_cuts(k)
        return ranking_metrics(self.rank_targets(dataset, exclude_seen=exclude_seen), k)

    @torch.no_grad()
    def recommend(
        self, histories: Sequence[Sequence[Hashable]], k: int = 10, *, exclude_seen: bool = True
    ) -> Recommendations:
        """Recommend the next items for histories.

        Args:
            histories: item ids of each user, oldest first.
            k: number of items to recommend.
            exclude_seen: whether to exclude the items of the history.

        Returns:
            Item ids and scores of each history, best first; ties are ordered by row. There are
            fewer than k items if fewer are left.

        Raises:
            ValueError: if k is not in 1..N, or an item id is unknown.
            TypeError: if k is not an integer.
        """
        with suppress(ValueError):
            k = whole_number("k", k)
        if not 1 <= k <= len(self.vocabulary):
            raise ValueError(f"k={k} must lie in 1..{len(self.vocabulary)}, the number of items")
        rows = [torch.tensor(self.vocabulary.rows(history)).long() for history in histories]
        result = Recommendations([], [])
        for start in range(0, len(rows), 256):
            padded = pad_sequence(rows[start : start + 256], batch_first=True)
            scores = self.scores(padded)
            scores[:, 0] = -torch.inf
            if exclude_seen:
                mask_rows_(scores, padded)
            values, columns = scores.sort(dim=1, descending=True, stable=True)
            for user_scores, user_rows in zip(values[:, :k], columns[:, :k], strict=True):
                kept = user_scores > -torch.inf
                result.item_ids.append(list(self.vocabulary.ids(user_rows[kept].tolist())))
                result.scores.append(user_scores[kept].tolist())
        return result


class Popularity(CountingBaseline):
    """Popularity baseline: recommends the most frequent training items to every user.

    Args:
        split: from `leave_one_out` or `time_split`.

    Examples:
        >>> Popularity(split).evaluate(split.test, k=(10,))             # doctest: +SKIP
        {'hit_rate@10': 0.068, ...}
    """

    def __init__(self, split: Split) -> None:
        super().__init__(split.vocabulary)
        self.item_counts = split.item_counts.double()  # (N + 1,)

    def scores(self, histories: torch.Tensor) -> torch.Tensor:
        """Score items by their number of training interactions; see `CountingBaseline.scores`."""
        return self.item_counts.repeat(len(histories), 1)


class ItemToItem(CountingBaseline):
    """Item-to-item baseline: recommends items that occur near the history's items in training.

    Each pair of items in a training sequence adds 1 / distance to the weight from the earlier to
    the later item, and `backward` / distance to the weight in the other direction. A weight is
    divided by the square root of the count of the item it starts from, and by the count of the item
    it leads to, raised to `penalty`. The score of an item is the sum of its weights from the latest
    20 items of the history, and that of the n-th latest is multiplied by `decay ** (n - 1)`.

    Args:
        split: from `leave_one_out` or `time_split`; whole training sequences are used.
        backward: weight of pairs in backward direction.
        decay: factor by which the weight of a history item falls with each later item.
        penalty: how much popular items are held back. 0 = not at all; 0.5 makes the weights
            cosines, which rank worse on all six data sets that were tried.
        max_distance: maximum distance of a pair; None = no limit. It bounds the time for long
            sequences, which is proportional to the number of pairs.
        regression: whether to add the weights of a linear regression (EASE), with twice the total
            of those of the counts. The 1,000 highest weights of each item are kept. For up to
            10,000 items, which take up to 20 s.

    Raises:
        ValueError: if `max_distance` is below 1, or `backward`, `decay` or `penalty` is negative or
            NaN, or the data are too large for the regression.
        TypeError: if `max_distance` is not an integer.

    Examples:
        >>> ItemToItem(split).evaluate(split.test, k=(10,))             # doctest: +SKIP
        {'hit_rate@10': 0.1318, ...}
    """

    def __init__(
        self,
        split: Split,
        *,
        backward: float = 0.5,
        decay: float = 0.7,
        penalty: float = 0.3,
        max_distance: int | None = None,
        regression: bool = False,
    ) -> None:
        super().__init__(split.vocabulary)
        if max_distance is not None:
            max_distance = whole_number("max_distance", max_distance, instead=", or None for all")
        for name, value in (("backward", backward), ("decay", decay), ("penalty", penalty)):
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name}={value} must be a number of at least 0")
        self.decay = decay
        size = len(split.vocabulary) + 1
        pairs, sums = _pair_sums(split.train, size, max_distance)
        earlier, later = pairs // size, pairs % size
        counts = split.item_counts.double().numpy()
        given, scored = np.r_[earlier, later], np.r_[later, earlier]
        weights = np.r_[sums, backward * sums] / (counts[given] ** 0.5 * counts[scored] ** penalty)
        if regression:
            given, scored, weights = _with_regression(given, scored, weights, split)
        else:
            order = np.lexsort((scored, -weights, given))
            given, scored, weights = given[order], scored[order], weights[order]
        self._scored, self._weights = scored, weights  # by given item, and best first
        self._starts = np.searchsorted(given, np.arange(size + 1))

    def neighbours(self, k: int = 50, *, weight: float = 1.0) -> ItemNeighbours:
        """Keep the k neighbours with the highest weights of each item, for a model.

        Args:
            k: maximum number of neighbours.
            weight: factor of their scores when they are added to the scores of the model.

        Returns:
            The neighbours, to set as `model.item_to_item`.

        Raises:
            ValueError: if k is not in 1..1000.
        """
        if not 1 <= k <= MAX_NEIGHBOURS:
            raise ValueError(f"k={k} must lie in 1..{MAX_NEIGHBOURS}")
        given = np.repeat(np.arange(len(self._starts) - 1), np.diff(self._starts))
        place = np.arange(len(given)) - self._starts[given]
        kept = place < k
        size = len(self._starts) - 1, max(1, int(place[kept].max(initial=0)) + 1)
        rows, weights = np.zeros(size, np.int32), np.zeros(size, np.float32)
        cells = given[kept], place[kept]
        rows[cells] = self._scored[kept]
        weights[cells] = self._weights[kept]
        return ItemNeighbours(
            torch.from_numpy(rows), torch.from_numpy(weights), decay=self.decay, weight=weight
        )

    def scores(self, histories: torch.Tensor) -> torch.Tensor:
        """Score items by the latest items of the history; see `CountingBaseline.scores`."""
        items = histories.numpy()
        real = items != 0
        ago = real[:, ::-1].cumsum(1)[:, ::-1] - 1  # (B, M)
        query, slot = (real & (ago < LATEST_ITEMS)).nonzero()
        given, shares = items[query, slot], self.decay ** ago[query, slot]
        sizes = (self._starts[1:] - self._starts[:-1])[given]
        size = len(self._starts) - 1
        scores = np.zeros(len(items) * size)
        pieces = np.cumsum(sizes) // PENDING_PAIRS  # split the work to bound memory
        for piece in np.split(np.arange(len(given)), np.flatnonzero(np.diff(pieces)) + 1):
            many = sizes[piece]
            ends = np.cumsum(many)
            places = np.arange(many.sum()) + np.repeat(
                self._starts[given[piece]] - ends + many, many
            )
            cells = np.repeat(query[piece] * size, many) + self._scored[places]
            added = np.repeat(shares[piece], many) * self._weights[places]
            np.add.at(scores, cells, added)
        return torch.from_numpy(scores).view(len(items), size)


def _with_regression(
    given: npt.NDArray[np.int64],
    scored: npt.NDArray[np.int64],
    weights: npt.NDArray[np.float64],
    split: Split,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Add the weights of a regression.

    Returns:
        Distinct pairs and their weights, by given item, and best first.
    """
    joined = regression_weights(split)  # (N + 1, N + 1)
    joined *= REGRESSION_WEIGHT * weights.sum() / max(float(joined.sum()), 1e-12)
    cells = torch.from_numpy(given), torch.from_numpy(scored)
    joined.index_put_(cells, torch.from_numpy(weights).float(), accumulate=True)
    highest, columns = joined.topk(min(MAX_NEIGHBOURS, len(joined)), dim=1)
    rows, places = (highest > 0).nonzero(as_tuple=True)
    kept = highest[rows, places].double()
    return rows.numpy(), columns[rows, places].numpy(), kept.numpy()


def _pair_sums(
    train: SequenceDataset, size: int, max_distance: int | None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Sum 1 / distance over all pairs of items in the same sequence.

    Returns:
        Distinct pairs, encoded as earlier * size + later, and their sums.
    """
    rows, offsets = (np.asarray(array, dtype=np.int64) for array in train.sequences())
    ends = np.repeat(offsets[1:], np.diff(offsets))  # (E,)
    first = np.arange(len(rows))
    found = np.zeros(0, np.int64), np.zeros(0)
    pending, count = [found], 0
    for distance in range(1, int(np.diff(offsets).max(initial=0))):
        if max_distance is not None and distance > max_distance:
            break
        first = first[first + distance < ends[first]]
        pairs = rows[first] * size + rows[first + distance]
        pending.append((pairs, np.full(len(pairs), 1 / distance)))
        count += len(pairs)
        if count > PENDING_PAIRS:
            pending, count = [_summed(pending)], 0
    return _summed(pending)


def _summed(
    parts: Sequence[tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return the distinct pairs and the sums of their weights."""
    pairs, weights = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    distinct, place = np.unique(pairs, return_inverse=True)
    sums = np.bincount(place, weights, minlength=len(distinct))
    return distinct, sums.astype(np.float64)
