"""`RayExtraction`: feature extraction of a large catalogue on a Ray cluster with Ray Data."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from odmt_sdk.errors import missing_library
from odmt_sdk.features.extractor import TokenExtractor
from odmt_sdk.features.store.engine import ExtractorRecipe, ShardJob


class RayExtraction:
    """Extracts features on a Ray cluster: `ItemFeatures.from_items(..., path=..., engine=...)`.

    The program that calls `from_items` reads the table and gives each worker the titles and
    pictures of one file of the folder at a time. Every worker loads the encoders once. After an
    interruption, run the same call again: finished files are kept.

    All machines must see the folder, the files of pictures, and encoders that are given by path.

    Args:
        concurrency: number of workers, or a pair with the smallest and largest number.
        num_threads: torch threads per worker, and CPUs that Ray reserves for it.
        **resources: additional arguments of `Dataset.map_batches`, such as `num_gpus` or `memory`.

    Raises:
        ImportError: if Ray is not installed (`pip install odmt-sdk[ray]`).

    Examples:
        >>> ItemFeatures.from_items(                                            # doctest: +SKIP
        ...     "items.parquet", text_encoder="bert-base-uncased", path="/shared/features",
        ...     engine=RayExtraction(concurrency=8))
    """

    def __init__(
        self, *, concurrency: int | tuple[int, int] = 1, num_threads: int = 1, **resources: Any
    ) -> None:
        try:
            import ray.data  # noqa: F401
        except ImportError as error:
            raise missing_library("RayExtraction needs Ray", error, "ray") from error
        self.concurrency, self.num_threads, self.resources = concurrency, num_threads, resources

    def run(
        self, recipes: Mapping[str, ExtractorRecipe], jobs: Sequence[ShardJob]
    ) -> Iterator[int]:
        """Write the files of a folder of features; `from_items` calls this.

        Args:
            recipes: modality -> how to make its extractor.
            jobs: the files to write.

        Yields:
            The number of values of each file that has been written.
        """
        import ray.data

        if not jobs:
            return
        files = ray.data.from_items([{"job": job} for job in jobs], override_num_blocks=len(jobs))
        written = files.map_batches(
            _ShardWriter,
            fn_constructor_args=(_without_processes(recipes), self.num_threads),
            batch_size=1,
            batch_format="numpy",
            concurrency=self.concurrency,
            num_cpus=self.num_threads,
            **self.resources,
        )
        for row in written.iter_rows():
            yield int(row["values"])


class _ShardWriter:
    """Writes shards in a Ray worker.

    Args:
        recipes: modality -> how to make its extractor.
        num_threads: torch threads.
    """

    def __init__(self, recipes: Mapping[str, ExtractorRecipe], num_threads: int) -> None:
        import torch

        torch.set_num_threads(num_threads)
        self._recipes = recipes
        self._extractors: dict[str, TokenExtractor] = {}

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[int]]:
        """Write the shards of a batch of jobs."""
        found = []
        for job in batch["job"]:
            if job.modality not in self._extractors:
                self._extractors[job.modality] = self._recipes[job.modality].make(job.modality)
            job.write(self._extractors[job.modality])
            found.append(job.size)
        return {"values": found}


def _without_processes(recipes: Mapping[str, ExtractorRecipe]) -> dict[str, ExtractorRecipe]:
    """Let each worker read its pictures itself, unless the user asked for processes."""
    found = {}
    for name, recipe in recipes.items():
        build = recipe.build
        if isinstance(build, partial) and build.keywords.get("num_workers", 0) is None:
            build = partial(build, num_workers=0)
        found[name] = recipe._replace(build=build)
    return found
