"""Popularity of a catalogue, added to the scores of an adapter that was trained on another one.

The scores of such an adapter have two parts: one depends on the history, the other estimates
popularity and is the same for all users. The second part comes from the catalogue that the adapter
was trained on. It is removed, and the log-counts of the new catalogue are added instead.

Letters: B histories, N items, W width of a vector.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from odmt_sdk.scoring import score_deviation
from odmt_sdk.vocabulary import ItemVocabulary

Popularity = torch.Tensor | Mapping[Any, float]
Encode = Callable[[list[torch.Tensor]], torch.Tensor]
DRAWN = 256  # histories whose mean stands for those of all users
SEED = 0


class PopularityPrior:
    """Turns inner products into standardized scores plus log-popularity.

    The usual score of an item is its mean score for random histories, whose items are drawn by
    popularity and whose number of items is about that of the given history. It is subtracted, and
    the rest is divided by its standard deviation over the catalogue. The standardized log-counts,
    times `weight`, are added.

    Args:
        popularity: counts (N + 1,), or item id -> count.
        vocabulary: the item ids.
        vectors: item vectors (N + 1, W).
        encode: encodes rows of histories as query vectors (B, W).
        max_seq_length: largest number of items that the model reads.
        weight: weight of the log-popularity, in standard deviations of a user's scores.

    Attributes:
        items: (N + 1, W + 1) the item vectors, with the standardized log-counts as last column.

    Raises:
        ValueError: if the shape of the counts is wrong, or one is negative or not finite.

    Examples:
        >>> prior = PopularityPrior(                                    # doctest: +SKIP
        ...     counts, model.vocabulary, items, encode, max_seq_length=model.max_seq_length)
        >>> extended, _ = prior.extended(queries, rows)                 # doctest: +SKIP
        >>> scores = extended @ prior.items.T                           # doctest: +SKIP
    """

    def __init__(
        self,
        popularity: Popularity,
        vocabulary: ItemVocabulary,
        vectors: torch.Tensor,
        encode: Encode,
        *,
        max_seq_length: int,
        weight: float = 4.0,
    ) -> None:
        self.counts = popularity_counts(popularity, vocabulary)
        self.encode = encode
        self.weight = weight
        self.max_seq_length = max_seq_length
        prior = log_popularity(self.counts)
        self.items = torch.cat([vectors, prior.to(vectors)[:, None]], dim=1)  # (N + 1, W + 1)
        self._usual: dict[int, torch.Tensor] = {}

    def extended(
        self, queries: torch.Tensor, rows: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Extend query vectors, so that their products with `items` are the scores.

        Args:
            queries: query vectors (B, W).
            rows: the rows of each history.

        Returns:
            (B, W + 1), and the standard deviations (B,) float64 by which scores were divided.
        """
        usual = [self._usual_query(like_length(len(row), self.max_seq_length)) for row in rows]
        unusual = queries - torch.stack(usual).to(queries)
        deviation = score_deviation(unusual, self.items[:, :-1])
        scaled = (unusual.double() / deviation[:, None]).to(queries.dtype)
        added = scaled.new_full((len(scaled), 1), self.weight)
        return torch.cat([scaled, added], dim=1), deviation

    def _usual_query(self, length: int) -> torch.Tensor:
        if length not in self._usual:
            self._usual[length] = self.encode(drawn_histories(self.counts, length)).mean(0)
        return self._usual[length]


def like_length(length: int, longest: int) -> int:
    """The power of two nearest to a length, at most `longest`.

    Examples:
        >>> [like_length(length, 50) for length in (1, 5, 6, 100)]
        [1, 4, 8, 50]
    """
    return min(1 << round(math.log2(length)), longest)


def drawn_histories(counts: torch.Tensor, length: int) -> list[torch.Tensor]:
    """Draw random histories by popularity, always the same ones.

    Args:
        counts: (N + 1,) counts; entry 0 is ignored.
        length: items of a history.

    Returns:
        `DRAWN` histories, rows (length,) in 1..N.
    """
    shares = counts[1:] if bool(counts[1:].any()) else torch.ones(len(counts) - 1).double()
    generator = torch.Generator().manual_seed(SEED)
    number = DRAWN * length
    cumulative = shares.cumsum(0)
    points = torch.rand(number, generator=generator, dtype=torch.float64) * cumulative[-1]
    rows = torch.searchsorted(cumulative, points, right=True).clamp(max=len(shares) - 1) + 1
    return list(rows.view(DRAWN, length))


def popularity_counts(popularity: Popularity, vocabulary: ItemVocabulary) -> torch.Tensor:
    """Return the counts of items by row.

    Args:
        popularity: counts (N + 1,), of which entry 0 is ignored; or item id -> count, where missing
            items count 0.
        vocabulary: the item ids.

    Returns:
        (N + 1,) float64.

    Raises:
        ValueError: if the shape is wrong, a count is negative or not finite, or a mapping has no
            item of the catalogue.
        TypeError: if it is a text.
    """
    if isinstance(popularity, Mapping):
        counts = torch.zeros(len(vocabulary) + 1, dtype=torch.float64)
        known = [item_id for item_id in popularity if item_id in vocabulary]
        if not known:
            example = next(iter(popularity), None)
            raise ValueError(
                f"popularity has {len(popularity)} item ids (for example {example!r}), but none of "
                f"the catalogue (for example {vocabulary.ids([1])[0]!r}): ids are compared by "
                "value and type"
            )
        for item_id, row in zip(known, vocabulary.rows(known), strict=True):
            counts[row] = float(popularity[item_id])
    elif isinstance(popularity, str | bytes):
        raise TypeError(f"popularity={popularity!r} must be counts, or a mapping of them")
    else:
        counts = torch.as_tensor(popularity).cpu().double()
    if counts.shape != (len(vocabulary) + 1,):
        raise ValueError(
            f"popularity has shape {tuple(counts.shape)}; it needs one count per row, "
            f"({len(vocabulary) + 1},), or a mapping from item ids to counts"
        )
    if not bool((torch.isfinite(counts) & (counts >= 0))[1:].all()):
        raise ValueError("popularity holds a count that is negative or not finite")
    return counts


def log_popularity(counts: torch.Tensor) -> torch.Tensor:
    """Return log(1 + count), standardized over the catalogue.

    Args:
        counts: (N + 1,) counts; entry 0 is ignored.

    Returns:
        (N + 1,) float32 with mean 0 and standard deviation 1; entry 0 is 0.
    """
    log_counts = torch.log1p(counts[1:].double())
    spread = log_counts.std(correction=0).clamp(min=1e-12)
    scaled = (log_counts - log_counts.mean()) / spread
    return torch.cat([scaled.new_zeros(1), scaled]).float()
