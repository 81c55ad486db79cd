"""`TableRecommender`: maps a table of histories to a table of recommendations, on any engine."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from odmt_sdk.retrieval.recommend import Retrieval
from odmt_sdk.vocabulary import ItemVocabulary
from odmt_sdk.wrapper import ODMTWrapper

if TYPE_CHECKING:
    import pyarrow as pa

ITEMS, SCORES = "item_ids", "scores"


class TableRecommender:
    """Recommend items for the histories in an Arrow table.

    `recommend_parquet`, `recommend_ray` and `recommend_spark` all call this class, each on its own
    share of the users, and therefore return the same results as `model.recommend`.

    Args:
        adapter: path, repository or "shipped:..." for `ODMTWrapper.from_pretrained`; or a model.
        k: number of items to recommend per user.
        user_column: name of the user column; the column is kept unchanged.
        history_column: name of the column with lists of item ids, oldest first.
        exclude_seen: whether to leave out the items of the history.
        batch_size: number of histories scored at once.
        num_threads: number of torch threads in this process; None = unchanged.
        loading: additional arguments of `from_pretrained`, such as `backbone` or `revision`.

    Raises:
        AdapterError: if the adapter cannot be loaded.
        ImportError: if pyarrow is not installed (`pip install odmt-sdk[tables]`).
        ValueError: if a setting is out of range, or the item ids are of several types, which one
            column cannot store.

    Examples:
        >>> recommender = TableRecommender("shipped:films-sasrec", k=5)         # doctest: +SKIP
        >>> recommender(pa.table({"user_id": [7], "item_ids": [["1", "2"]]}))   # doctest: +SKIP
    """

    def __init__(
        self,
        adapter: str | Path | ODMTWrapper,
        *,
        k: int = 10,
        user_column: str = "user_id",
        history_column: str = "item_ids",
        exclude_seen: bool = True,
        batch_size: int = 256,
        num_threads: int | None = None,
        loading: Mapping[str, Any] | None = None,
    ) -> None:
        if k < 1 or batch_size < 1:
            raise ValueError(f"k={k} and batch_size={batch_size} must be at least 1")
        if user_column in (ITEMS, SCORES):
            raise ValueError(
                f"user_column={user_column!r} is the name of a column of the result: rename it"
            )
        if num_threads is not None:
            torch.set_num_threads(num_threads)
        if isinstance(adapter, ODMTWrapper):
            self.model = adapter
        else:
            self.model = ODMTWrapper.from_pretrained(adapter, **(loading or {}))
        vocabulary = self.model.vocabulary
        if vocabulary is None:
            raise ValueError("the model has no items to recommend: call set_items first")
        self.vocabulary: ItemVocabulary = vocabulary
        self.id_type = _id_type(vocabulary)
        self.k = min(k, len(vocabulary))
        self.user_column = user_column
        self.history_column = history_column
        self.exclude_seen = exclude_seen
        self.batch_size = batch_size

    def __call__(self, table: "pa.Table") -> "pa.Table":
        """Recommend items for each row of a table.

        Args:
            table: must have the user and the history column; other columns are dropped.

        Returns:
            One row per user: the user column, "item_ids" (lists of up to k ids, best first) and
            "scores". A user without known items gets empty lists.

        Raises:
            ValueError: if a column is missing, or the ids in the histories do not have the type of
                the adapter's item ids.
        """
        import pyarrow as pa

        check_columns(table.column_names, self.user_column, self.history_column)
        rows = self._rows(table.column(self.history_column))
        known = [index for index, history in enumerate(rows) if len(history)]
        retrieval = Retrieval(k=self.k, exclude_seen=self.exclude_seen, batch_size=self.batch_size)
        found = retrieval.run(self.model, self.vocabulary, [rows[index] for index in known])
        items: list[Sequence[object]] = [()] * len(rows)
        scores: list[Sequence[float]] = [()] * len(rows)
        for index, (user_items, user_scores) in zip(known, found, strict=True):
            items[index], scores[index] = user_items, user_scores
        return pa.table(
            {
                self.user_column: table.column(self.user_column),
                ITEMS: pa.array(items, pa.list_(self._arrow_id_type())),
                SCORES: pa.array(scores, pa.list_(pa.float32())),
            }
        )

    def schema(self, user_type: "pa.DataType") -> "pa.Schema":
        """The schema of the result.

        Args:
            user_type: Arrow type of the user column.

        Returns:
            The schema with the user column, "item_ids" and "scores".
        """
        import pyarrow as pa

        return pa.schema(
            [
                (self.user_column, user_type),
                (ITEMS, pa.list_(self._arrow_id_type())),
                (SCORES, pa.list_(pa.float32())),
            ]
        )

    def _rows(self, column: "pa.ChunkedArray") -> Sequence[torch.Tensor]:
        """Look up the rows of the known items in each history.

        Every distinct item id is looked up once, and no history becomes a Python list.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        self._check_type(column.type)
        lists = column.combine_chunks()
        lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
        values = pc.list_flatten(lists)  # all items of all users
        if not pa.types.is_dictionary(values.type):
            values = values.dictionary_encode()
        item_ids = values.dictionary.to_pylist()
        places = [place for place, item_id in enumerate(item_ids) if item_id in self.vocabulary]
        row_of = np.zeros(len(item_ids) + 1, dtype=np.int64)  # 0 = unknown or null
        row_of[places] = self.vocabulary.rows([item_ids[place] for place in places])
        indices = pc.fill_null(values.indices.cast(pa.int64()), len(item_ids))
        rows = row_of[indices.to_numpy(zero_copy_only=False)]
        users = np.repeat(np.arange(len(lengths)), lengths)
        known = rows > 0
        counts = np.bincount(users[known], minlength=len(lengths))
        return torch.from_numpy(rows[known]).split(counts.tolist()) if len(counts) else ()

    def _arrow_id_type(self) -> "pa.DataType":
        import pyarrow as pa

        return pa.int64() if self.id_type is int else pa.string()

    def _check_type(self, column_type: "pa.DataType") -> None:
        import pyarrow as pa

        kinds = pa.types
        listed = kinds.is_list(column_type) or kinds.is_large_list(column_type)
        if not (listed or kinds.is_fixed_size_list(column_type)):
            raise ValueError(
                f"column {self.history_column!r} holds {column_type}; it needs lists of item ids: "
                "one row per user, oldest item first"
            )
        held = column_type.value_type
        if kinds.is_dictionary(held):
            held = held.value_type
        is_text = kinds.is_string(held) or kinds.is_large_string(held)
        fits = is_text if self.id_type is str else kinds.is_integer(held)
        if not (fits or kinds.is_null(held)):
            name = self.id_type.__name__
            raise ValueError(
                f"column {self.history_column!r} holds lists of {held}, but the adapter's item ids "
                f"are of type {name} (for example {self.vocabulary.ids([1])[0]!r}): cast the column"
            )


def check_columns(names: Sequence[str], user_column: str, history_column: str) -> None:
    """Raise `ValueError` if a table lacks a column.

    Args:
        names: the columns of the table.
        user_column: name of the user column.
        history_column: name of the column with histories.

    Raises:
        ValueError: if it lacks one.
    """
    for column in (user_column, history_column):
        if column not in names:
            raise ValueError(
                f"column {column!r} is not among {names}: pass its name as user_column= or "
                "history_column="
            )


def _id_type(vocabulary: ItemVocabulary) -> type:
    types: set[type] = {type(item_id) for item_id in vocabulary}
    if types not in ({int}, {str}):
        shown = ", ".join(sorted(kind.__name__ for kind in types))
        raise ValueError(
            f"the adapter's item ids are of type {shown}; a column of recommendations needs ids "
            "that are all int or all str"
        )
    return types.pop()
