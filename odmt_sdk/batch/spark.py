"""`recommend_spark`: batch recommendation on a Spark cluster with `mapInPandas`."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from odmt_sdk.batch.table_recommender import ITEMS, SCORES, TableRecommender, check_columns
from odmt_sdk.errors import missing_library

# Spark calls the function once per task; the adapter stays loaded in the Python worker in between.
_loaded: dict[str, TableRecommender] = {}


def recommend_spark(
    dataframe: Any,
    adapter: str | Path,
    *,
    k: int = 10,
    user_column: str = "user_id",
    history_column: str = "item_ids",
    exclude_seen: bool = True,
    batch_size: int = 256,
    num_threads: int = 1,
    loading: Mapping[str, Any] | None = None,
) -> Any:
    """Recommend items for the users of a Spark DataFrame.

    The computation is lazy: it runs when the result is read or written, for example with
    `.write.parquet(...)`.

    Args:
        dataframe: a `pyspark.sql.DataFrame` with one row per user.
        adapter: a path that every worker can read, a repository, or "shipped:...".
        k: number of items to recommend per user.
        user_column: name of the user column.
        history_column: name of the column with arrays of item ids, oldest first.
        exclude_seen: whether to leave out the items of the history.
        batch_size: number of histories scored at once by each Python worker.
        num_threads: torch threads per Python worker.
        loading: additional arguments of `from_pretrained`, such as `backbone` or `revision`.

    Returns:
        A `pyspark.sql.DataFrame` with the user column, "item_ids" and "scores".

    Raises:
        ImportError: if PySpark is not installed (`pip install odmt-sdk[spark]`).
        AdapterError: if the driver cannot load the adapter.
        ValueError: if a column is missing or has the wrong type.

    Examples:
        >>> users = spark.read.parquet("users.parquet")                        # doctest: +SKIP
        >>> found = recommend_spark(users, "shipped:films-sasrec")             # doctest: +SKIP
        >>> found.write.parquet("out")                                         # doctest: +SKIP
    """
    try:
        from pyspark.sql.types import ArrayType, FloatType, StructField, StructType
    except ImportError as error:
        raise missing_library("recommend_spark needs PySpark", error, "spark") from error
    settings: dict[str, Any] = {
        "adapter": str(adapter),
        "k": k,
        "user_column": user_column,
        "history_column": history_column,
        "exclude_seen": exclude_seen,
        "batch_size": batch_size,
        "num_threads": num_threads,
        "loading": loading,
    }
    # the driver keeps its own number of threads
    recommender = TableRecommender(**{**settings, "num_threads": None})
    check_columns(dataframe.columns, user_column, history_column)
    field = dataframe.schema[history_column]
    _check_type(field, recommender)
    items = ArrayType(_spark_type(recommender.id_type))
    schema = StructType(
        [
            dataframe.schema[user_column],
            StructField(ITEMS, items),
            StructField(SCORES, ArrayType(FloatType())),
        ]
    )
    return dataframe.select(user_column, history_column).mapInPandas(
        partial(_recommend, settings), schema
    )


def _recommend(settings: Mapping[str, Any], frames: Iterator[Any]) -> Iterator[Any]:
    import pyarrow as pa

    key = repr(sorted(settings.items(), key=lambda item: item[0]))
    if key not in _loaded:
        _loaded.clear()  # keep only one adapter in memory
        _loaded[key] = TableRecommender(**settings)
    recommender = _loaded[key]
    for frame in frames:
        found = recommender(pa.Table.from_pandas(frame, preserve_index=False))
        yield found.to_pandas()


def _spark_type(id_type: type) -> Any:
    from pyspark.sql.types import LongType, StringType

    return LongType() if id_type is int else StringType()


def _check_type(field: Any, recommender: TableRecommender) -> None:
    """Check on the driver that the ids in the column have the type of the adapter's item ids."""
    from pyspark.sql.types import ArrayType, IntegralType, StringType

    needed: Callable[[Any], bool] = (
        (lambda kind: isinstance(kind, IntegralType))
        if recommender.id_type is int
        else (lambda kind: isinstance(kind, StringType))
    )
    if not isinstance(field.dataType, ArrayType) or not needed(field.dataType.elementType):
        raise ValueError(
            f"column {field.name!r} holds {field.dataType.simpleString()}; it needs arrays of "
            f"{recommender.id_type.__name__}, the type of the adapter's item ids: cast it"
        )
