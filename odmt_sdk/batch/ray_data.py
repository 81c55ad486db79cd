"""`recommend_ray`: batch recommendation on a Ray cluster with Ray Data."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from odmt_sdk.batch.table_recommender import TableRecommender
from odmt_sdk.errors import missing_library


def recommend_ray(
    dataset: Any,
    adapter: str | Path,
    *,
    k: int = 10,
    user_column: str = "user_id",
    history_column: str = "item_ids",
    exclude_seen: bool = True,
    batch_size: int = 256,
    concurrency: int | tuple[int, int] = 1,
    num_threads: int = 1,
    loading: Mapping[str, Any] | None = None,
    **resources: Any,
) -> Any:
    """Recommend items for the users of a Ray dataset.

    The computation is lazy: it runs when the result is read or written, for example with
    `.write_parquet(...)`.

    Args:
        dataset: a `ray.data.Dataset` with one row per user.
        adapter: a path that every worker can read, a repository, or "shipped:...".
        k: number of items to recommend per user.
        user_column: name of the user column.
        history_column: name of the column with lists of item ids, oldest first.
        exclude_seen: whether to leave out the items of the history.
        batch_size: number of histories scored at once by each worker.
        concurrency: number of workers, or a pair with the smallest and largest number. Each worker
            loads its own copy of the adapter once. Leave a CPU of the cluster for reading and
            writing, which otherwise wait forever.
        num_threads: torch threads per worker, and CPUs that Ray reserves for it.
        loading: additional arguments of `from_pretrained`, such as `backbone` or `revision`.
        **resources: additional arguments of `Dataset.map_batches`, such as `num_gpus` or `memory`.

    Returns:
        A `ray.data.Dataset` with the user column, "item_ids" and "scores".

    Raises:
        ImportError: if Ray is not installed (`pip install odmt-sdk[ray]`).
        TypeError: if `dataset` is not a Ray dataset.

    Examples:
        >>> import ray                                                         # doctest: +SKIP
        >>> users = ray.data.read_parquet("users.parquet")                     # doctest: +SKIP
        >>> found = recommend_ray(users, "shipped:films-sasrec", concurrency=2)  # doctest: +SKIP
        >>> found.write_parquet("out")                                         # doctest: +SKIP
    """
    try:
        from ray.data import Dataset
    except ImportError as error:
        raise missing_library("recommend_ray needs Ray", error, "ray") from error
    if not isinstance(dataset, Dataset):
        raise TypeError(
            f"dataset is a {type(dataset).__name__}; it needs a ray.data.Dataset, for example of "
            "ray.data.read_parquet(...)"
        )
    _warn_if_no_cpu_is_left(concurrency, num_threads)
    return dataset.map_batches(
        TableRecommender,
        fn_constructor_args=(str(adapter),),
        fn_constructor_kwargs={
            "k": k,
            "user_column": user_column,
            "history_column": history_column,
            "exclude_seen": exclude_seen,
            "batch_size": batch_size,
            "num_threads": num_threads,
            "loading": loading,
        },
        batch_size=max(batch_size, 1024),
        batch_format="pyarrow",
        concurrency=concurrency,
        num_cpus=num_threads,
        **resources,
    )


def _warn_if_no_cpu_is_left(concurrency: int | tuple[int, int], num_threads: int) -> None:
    import ray

    cluster: Any = ray  # its functions are partly untyped
    workers = concurrency if isinstance(concurrency, int) else concurrency[0]
    cpus = cluster.cluster_resources().get("CPU", 0) if cluster.is_initialized() else None
    if cpus is not None and workers * num_threads >= cpus:
        warnings.warn(
            f"{workers} workers of {num_threads} threads use all {cpus:g} CPUs of the Ray cluster, "
            "so reading and writing would wait forever unless the cluster grows: lower "
            "concurrency= or num_threads=, or start Ray with more CPUs",
            UserWarning,
            stacklevel=3,
        )
