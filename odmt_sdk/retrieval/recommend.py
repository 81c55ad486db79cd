"""Recommends items, with item ids as the user defined them.

Letters: B histories, L positions, N items, S sources, D hidden size.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import torch
from torch.nn.utils.rnn import pad_sequence

from odmt_sdk.config import whole_number
from odmt_sdk.item_neighbours import added_scores
from odmt_sdk.modes import evaluating
from odmt_sdk.outputs import Recommendations
from odmt_sdk.retrieval.popularity_prior import Popularity, PopularityPrior
from odmt_sdk.retrieval.rerank import Reranker, checked_order
from odmt_sdk.retrieval.top_k import top_k_rows
from odmt_sdk.scoring import (
    fused_vectors,
    score_type,
    weighted_query_vectors,
    weights_of,
)
from odmt_sdk.scoring_model import ScoringModel
from odmt_sdk.vocabulary import ItemVocabulary, plain_ids

Histories = Iterable[Iterable[Hashable]]
Choice = Iterable[Hashable] | Iterable[Iterable[Hashable]]


def recommend(
    model: ScoringModel, vocabulary: ItemVocabulary, histories: Histories, **settings: Any
) -> Recommendations:
    """Recommend the next items for histories; see `ODMTWrapper.recommend`.

    Args:
        model: the model that scores items.
        vocabulary: its item ids.
        histories: item ids of each user, oldest first.
        **settings: arguments of `Retrieval`.

    Returns:
        Item ids and scores of each history, best first. A score is the mean over sources of the
        inner products of sequence and item embedding, weighted by `source_weights`, plus the score
        of the item-to-item counts, if the model has them: higher is better, and it is not a
        probability. With `popularity`, scores are divided by their deviation per user before the
        prior is added.

    Raises:
        ValueError: if a setting is out of range, a history is empty, an id is unknown, or there are
            no candidates.
    """
    retrieval = Retrieval(**settings)
    rows = history_rows(vocabulary, histories, retrieval.unknown)
    result = Recommendations([], [])
    for items, scores in retrieval.run(model, vocabulary, rows):
        result.item_ids.append(items)
        result.scores.append(scores)
    return result


def recommend_iter(
    model: ScoringModel, vocabulary: ItemVocabulary, histories: Histories, **settings: Any
) -> Iterator[tuple[list[Hashable], list[float]]]:
    """Recommend for a stream of histories; see `ODMTWrapper.recommend_iter`.

    Args:
        model: the model that scores items.
        vocabulary: its item ids.
        histories: item ids of each user, oldest first; consumed one batch at a time.
        **settings: arguments of `Retrieval`.

    Yields:
        Item ids and scores of each history, best first.
    """
    retrieval = Retrieval(**settings)
    stream = iter(histories)
    done = 0
    while batch := list(islice(stream, retrieval.batch_size)):
        rows = history_rows(vocabulary, batch, retrieval.unknown, first=done)
        yield from retrieval.run(model, vocabulary, rows)
        done += len(batch)


@dataclass(kw_only=True)
class Retrieval:
    """Selects the best items for histories.

    Args:
        k: number of items to recommend; above N, all items.
        exclude_seen: whether to exclude the items of the history.
        unknown: what to do with ids not in the vocabulary: "error" raises, "skip" ignores them.
        batch_size: histories scored at once.
        items: candidate items, one list for all histories or one per history; None = all items.
        exclude: items to exclude, one list for all histories or one per history; None = none.
        popularity: counts (N + 1,), or item id -> count, to add to the scores as a popularity
            prior; None = no prior.
        popularity_weight: weight of the standardized log-popularity, in standard deviations of a
            user's scores, see `PopularityPrior`.
        rerank: re-ranks the best candidates of each history; None = no re-ranking.
        candidates: number of items to re-rank, at least k.
        source_weights: source -> weight in the mean over sources, at least 0; sources that are not
            named have the weight that the model gives them. None = the weights of the model.
    """

    k: int = 10
    exclude_seen: bool = True
    unknown: Literal["error", "skip"] = "error"
    batch_size: int = 256
    items: Choice | None = None
    exclude: Choice | None = None
    popularity: Popularity | None = None
    popularity_weight: float = 4.0
    rerank: Reranker | None = None
    candidates: int = 100
    source_weights: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        """Raise for settings that are out of range."""
        self.k = whole_number("k", self.k)
        self.batch_size = whole_number("batch_size", self.batch_size)
        self.candidates = whole_number("candidates", self.candidates)
        if self.unknown not in ("error", "skip"):
            raise ValueError(f'unknown={self.unknown!r} must be "error" or "skip"')
        if not self.popularity_weight >= 0:
            raise ValueError(f"popularity_weight={self.popularity_weight} must be at least 0")

    @torch.no_grad()
    def run(
        self, model: ScoringModel, vocabulary: ItemVocabulary, rows: list[torch.Tensor]
    ) -> Iterator[tuple[list[Hashable], list[float]]]:
        """Select the items for histories.

        Args:
            model: the model that scores items.
            vocabulary: its item ids.
            rows: the item rows of each history, oldest first.

        Yields:
            Item ids and scores of each history, best first.
        """
        weights_of(model, self.source_weights)  # refuses invalid weights before any work
        among = chosen_rows("items", self.items, vocabulary, len(rows), self.unknown)
        left_out = chosen_rows("exclude", self.exclude, vocabulary, len(rows), self.unknown)
        k = min(self.k, len(vocabulary))  # at most the whole catalogue
        wanted = k if self.rerank is None else min(max(k, self.candidates), len(vocabulary))
        found: list[tuple[list[Hashable], list[float]]] = []
        with evaluating(model):
            catalogue = model.encode_catalogue()
            vectors = fused_vectors(catalogue, model.sources)  # (N + 1, S * D)
            prior = self._prior(model, vocabulary, catalogue, vectors)
            for start in range(0, len(rows), self.batch_size):
                block = slice(start, start + self.batch_size)
                queries = query_vectors(  # (B, S * D)
                    model, rows[block], catalogue, self.source_weights
                )
                items, added = vectors, added_scores(model, rows[block])
                if prior is not None:
                    queries, deviation = prior.extended(queries, rows[block])
                    items = prior.items
                    added = None if added is None else added.times(1 / deviation[:, None])
                closed = rows[block] if self.exclude_seen else [row[:0] for row in rows[block]]
                if left_out is not None:
                    pairs = zip(closed, left_out[block], strict=True)
                    closed = [torch.cat(pair) for pair in pairs]
                scores, best = top_k_rows(
                    queries,
                    items,
                    wanted,
                    excluded=closed,
                    allowed=among and among[block],
                    added=added,
                )
                if self.rerank is not None:
                    order = checked_order(self.rerank(best, scores), best)
                    best, scores = best.gather(1, order)[:, :k], scores.gather(1, order)[:, :k]
                for user_rows, user_scores in zip(best.tolist(), scores.tolist(), strict=True):
                    places = [place for place, row in enumerate(user_rows) if row]  # 0 = none left
                    kept = vocabulary.ids([user_rows[place] for place in places])
                    found.append((list(kept), [user_scores[place] for place in places]))
        yield from found

    def _prior(
        self,
        model: ScoringModel,
        vocabulary: ItemVocabulary,
        catalogue: Mapping[str, torch.Tensor],
        vectors: torch.Tensor,
    ) -> PopularityPrior | None:
        if self.popularity is None:
            return None
        return PopularityPrior(
            self.popularity,
            vocabulary,
            vectors,
            lambda drawn: query_vectors(model, drawn, catalogue, self.source_weights),
            weight=self.popularity_weight,
            max_seq_length=model.max_seq_length,
        )


@torch.no_grad()
def query_vectors(
    model: ScoringModel,
    rows: list[torch.Tensor],
    catalogue: Mapping[str, torch.Tensor],
    source_weights: Mapping[str, float] | None = None,
) -> torch.Tensor:
    """Encode histories into query vectors, whose inner products with item vectors are the scores.

    Args:
        model: the model that encodes sequences.
        rows: the item rows of each history; at least one history.
        catalogue: source -> item embeddings (N + 1, D).
        source_weights: source -> weight in the mean over sources; None = those of the model.

    Returns:
        Query vectors (B, S * D).
    """
    latest = [history[-model.max_seq_length :] for history in rows]
    item_ids = pad_sequence(latest, batch_first=True, padding_side="left")  # (B, L)
    encoded = model.encode_sequences(item_ids.to(model.device), item_embeddings=catalogue)
    return weighted_query_vectors(encoded, model.sources, weights_of(model, source_weights))


@torch.no_grad()
def similar_items(
    model: ScoringModel,
    vocabulary: ItemVocabulary,
    item_ids: Iterable[Hashable],
    *,
    k: int = 10,
    source: str | None = None,
) -> Recommendations:
    """Find the most similar items of each item; see `ODMTWrapper.similar_items`.

    Args:
        model: the model that encodes items.
        vocabulary: its item ids.
        item_ids: the items for which to find similar ones.
        k: number of items to find for each.
        source: the source whose embeddings are compared; None = all sources, concatenated.

    Returns:
        Item ids and cosine similarities, best first.

    Raises:
        ValueError: if k is below 1, or an id or the source is unknown.
    """
    k = min(whole_number("k", k), len(vocabulary))
    if source is not None and source not in model.sources:
        raise ValueError(f"source={source!r} is unknown; known are {list(model.sources)}")
    rows = torch.tensor(vocabulary.rows(plain_ids(item_ids)), dtype=torch.long)
    result = Recommendations([], [])
    if not len(rows):
        return result
    catalogue = model.encode_catalogue()
    chosen = model.sources if source is None else (source,)
    vectors = fused_vectors(catalogue, chosen)
    vectors = torch.nn.functional.normalize(vectors.to(score_type(vectors)), dim=1)
    scores, found = top_k_rows(vectors[rows.to(vectors.device)], vectors, k, excluded=rows[:, None])
    for item_rows, item_scores in zip(found.tolist(), scores.tolist(), strict=True):
        kept = [row for row in item_rows if row]
        result.item_ids.append(list(vocabulary.ids(kept)))
        result.scores.append(item_scores[: len(kept)])
    return result


def chosen_rows(
    name: str,
    choice: Choice | None,
    vocabulary: ItemVocabulary,
    number: int,
    unknown: Literal["error", "skip"],
) -> list[torch.Tensor] | None:
    """Convert `items` or `exclude` to rows for each history.

    Args:
        name: "items", which must not be empty, or "exclude".
        choice: item ids for all histories; or a list, set or array of item ids per history.
        vocabulary: the item ids.
        number: number of histories.
        unknown: "error" or "skip", for ids not in the vocabulary.

    Returns:
        A tensor of rows for each history, the same tensor if the choice is for all; None if
        `choice` is None.

    Raises:
        ValueError: if an id is unknown, the number of lists differs from the number of histories,
            ids and lists are mixed, or "items" is empty.
    """
    if choice is None:
        return None
    if isinstance(choice, str | bytes | Mapping) or not hasattr(choice, "__iter__"):
        raise ValueError(
            f"{name}={choice!r} must be a list of item ids, or one such list for each history"
        )
    if not number:
        return []
    entries = _entries(choice)
    each = [_is_list(entry) for entry in entries]
    if any(each) and not all(each):
        odd = entries[each.index(not each[0])]
        raise ValueError(
            f"{name} mixes item ids and lists, such as {odd!r} and {entries[0]!r}: give item "
            "ids for all histories, or a list of them for each"
        )
    if any(each):
        if len(entries) != number:
            raise ValueError(
                f"{name} has {len(entries)} lists for {number} histories: give one for each, or "
                "one list of item ids for all"
            )
        return [
            _rows_of(f"{name} of history {index}", entry, vocabulary, unknown, name)
            for index, entry in enumerate(entries)
        ]
    return [_rows_of(name, entries, vocabulary, unknown, name)] * number


def _entries(choice: Any) -> list[Any]:
    """Convert a list, tensor, array or series to a list of its entries."""
    for method in ("tolist", "to_list", "to_pylist"):
        if hasattr(choice, method):
            found = getattr(choice, method)()
            return found if isinstance(found, list) else [found]
    return list(choice)


def _is_list(entry: object) -> bool:
    """Check whether an entry is a list of ids; a tuple is not, because it can be an id."""
    listed = isinstance(entry, list | Set) and not isinstance(entry, frozenset)
    return listed or (
        any(hasattr(entry, name) for name in ("tolist", "to_list", "to_pylist"))
        and (getattr(entry, "ndim", 1) > 0)
    )


def _rows_of(
    where: str,
    ids: Iterable[Hashable],
    vocabulary: ItemVocabulary,
    unknown: Literal["error", "skip"],
    name: str,
) -> torch.Tensor:
    ids = plain_ids(ids, name, ordered=False)
    try:
        rows = vocabulary.rows(ids, unknown=unknown)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    if not rows and name == "items":
        raise ValueError(
            f"{where} is empty"
            + (" after leaving out unknown items" if ids else "")
            + ": there is nothing to recommend. Give at least one item, or leave out items= for all"
        )
    return torch.tensor(rows, dtype=torch.long)


def history_rows(
    vocabulary: ItemVocabulary,
    histories: Histories,
    unknown: Literal["error", "skip"],
    *,
    first: int = 0,
) -> list[torch.Tensor]:
    """Check histories and convert them to rows; `first` is the first one's index for messages."""
    found = []
    for index, history in enumerate(histories, start=first):
        unordered = isinstance(history, Set | Mapping)
        single = isinstance(history, str | bytes) or getattr(history, "ndim", 1) == 0
        if single or unordered or not hasattr(history, "__iter__"):
            raise ValueError(
                f"history {index} is {history!r}; histories is a list of lists of item ids, "
                + ("oldest first" if unordered else "for one user [[...]]")
            )
        ids = plain_ids(history)
        try:
            rows = vocabulary.rows(ids, unknown=unknown)
        except ValueError as error:
            raise ValueError(f"history {index}: {error}") from None
        if not rows:
            raise ValueError(
                f"history {index} is empty"
                + (" after leaving out unknown items" if ids else "")
                + ": a recommendation needs at least one known item"
            )
        found.append(torch.tensor(rows))
    return found
