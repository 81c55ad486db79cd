"""Index libraries (Faiss, USearch, hnswlib) behind one interface for inner-product search.

Letters: Q queries, N items, W width of a vector.
"""

from abc import ABC, abstractmethod
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from odmt_sdk.errors import missing_library

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]


class IndexLibrary(ABC):
    """Interface of one index library; the vectors are numbered 0..N - 1."""

    name: ClassVar[str]
    filters: ClassVar[bool]  # whether a search can be restricted to some items
    # settings of the approximate index, which is HNSW in every library
    defaults: ClassVar[dict[str, int]] = {"links": 32, "construction": 200, "search": 128}

    @classmethod
    def library(cls) -> Any:
        """Import the library.

        Raises:
            ImportError: if the library is not installed.
        """
        try:
            return import_module(cls.name)
        except ImportError as error:
            purpose = f"an index of {cls.name} needs the library"
            raise missing_library(purpose, error, cls.name) from error

    @abstractmethod
    def build(self, vectors: Floats, *, approximate: bool, settings: dict[str, int]) -> Any:
        """Build an index of vectors (N, W)."""

    @abstractmethod
    def write(self, index: Any, path: Path) -> None:
        """Write an index to a file."""

    @abstractmethod
    def open(
        self, path: Path, *, width: int, size: int, approximate: bool, settings: dict[str, int]
    ) -> Any:
        """Open an index from a file."""

    @abstractmethod
    def search(
        self, index: Any, queries: Floats, k: int, allowed: npt.NDArray[np.bool_] | None
    ) -> tuple[Rows, Floats]:
        """Find the k nearest vectors of each query.

        Args:
            index: the index.
            queries: (Q, W).
            k: number of results, 1..N.
            allowed: (N,) boolean mask of the positions that may be returned; None = all. Only for
                libraries that can filter.

        Returns:
            Positions (Q, k), -1 where there are fewer results, and inner products (Q, k).
        """


class Faiss(IndexLibrary):
    """Faiss: an exact flat index, or HNSW.

    Source: https://github.com/facebookresearch/faiss.
    """

    name = "faiss"
    filters = True

    def build(self, vectors: Floats, *, approximate: bool, settings: dict[str, int]) -> Any:
        """Build an index of vectors (N, W)."""
        faiss = self.library()
        if approximate:
            index = faiss.IndexHNSWFlat(
                vectors.shape[1], settings["links"], faiss.METRIC_INNER_PRODUCT
            )
            index.hnsw.efConstruction = settings["construction"]
            index.hnsw.efSearch = settings["search"]
        else:
            index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(vectors)
        return index

    def write(self, index: Any, path: Path) -> None:
        """Write an index to a file."""
        self.library().write_index(index, str(path))

    def open(
        self, path: Path, *, width: int, size: int, approximate: bool, settings: dict[str, int]
    ) -> Any:
        """Open an index from a file."""
        return self.library().read_index(str(path))

    def search(
        self, index: Any, queries: Floats, k: int, allowed: npt.NDArray[np.bool_] | None
    ) -> tuple[Rows, Floats]:
        """Find the k nearest vectors of each query."""
        faiss = self.library()
        parameters = None
        if allowed is not None:
            selector = faiss.IDSelectorBatch(allowed.nonzero()[0])
            if isinstance(index, faiss.IndexHNSWFlat):
                parameters = faiss.SearchParametersHNSW(
                    sel=selector, efSearch=max(k, index.hnsw.efSearch)
                )
            else:
                parameters = faiss.SearchParameters(sel=selector)
        scores, rows = index.search(queries, k, params=parameters)
        return rows, scores


class Usearch(IndexLibrary):
    """USearch: HNSW, or exact search over the vectors of the same index.

    Source: https://github.com/unum-cloud/usearch.
    """

    name = "usearch"
    filters = False

    def build(self, vectors: Floats, *, approximate: bool, settings: dict[str, int]) -> Any:
        """Build an index of vectors (N, W)."""
        index = self._empty(vectors.shape[1], settings)
        index.add(np.arange(len(vectors)), vectors)
        index.exact = not approximate
        return index

    def write(self, index: Any, path: Path) -> None:
        """Write an index to a file."""
        index.save(str(path))

    def open(
        self, path: Path, *, width: int, size: int, approximate: bool, settings: dict[str, int]
    ) -> Any:
        """Open an index from a file."""
        index = self._empty(width, settings)
        index.load(str(path))
        index.exact = not approximate
        return index

    def search(
        self, index: Any, queries: Floats, k: int, allowed: npt.NDArray[np.bool_] | None
    ) -> tuple[Rows, Floats]:
        """Find the k nearest vectors of each query."""
        found = index.search(queries, k, exact=index.exact)
        keys = np.atleast_2d(found.keys).astype(np.int64)
        distances = np.atleast_2d(found.distances)
        rows = np.full((len(queries), k), -1, dtype=np.int64)
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        counts = np.atleast_1d(getattr(found, "counts", len(found)))
        for query, count in enumerate(counts):
            rows[query, :count] = keys[query, :count]
            scores[query, :count] = 1 - distances[query, :count]  # distance = 1 - inner product
        return rows, scores

    def _empty(self, width: int, settings: dict[str, int]) -> Any:
        module = import_module("usearch.index") if self.library() else None
        assert module is not None
        return module.Index(
            ndim=width,
            metric="ip",
            dtype="f32",
            connectivity=settings["links"],
            expansion_add=settings["construction"],
            expansion_search=settings["search"],
        )


class Hnswlib(IndexLibrary):
    """hnswlib: HNSW, or the library's brute-force index.

    Source: https://github.com/nmslib/hnswlib.
    """

    name = "hnswlib"
    filters = True

    def build(self, vectors: Floats, *, approximate: bool, settings: dict[str, int]) -> Any:
        """Build an index of vectors (N, W)."""
        index = self._empty(vectors.shape[1], approximate=approximate)
        if approximate:
            index.init_index(
                max_elements=len(vectors),
                M=settings["links"],
                ef_construction=settings["construction"],
            )
            index.set_ef(settings["search"])
        else:
            index.init_index(max_elements=len(vectors))
        index.add_items(vectors, np.arange(len(vectors)))
        return index

    def write(self, index: Any, path: Path) -> None:
        """Write an index to a file."""
        index.save_index(str(path))

    def open(
        self, path: Path, *, width: int, size: int, approximate: bool, settings: dict[str, int]
    ) -> Any:
        """Open an index from a file."""
        index = self._empty(width, approximate=approximate)
        index.load_index(str(path), max_elements=size)
        if approximate:
            index.set_ef(settings["search"])
        return index

    def search(
        self, index: Any, queries: Floats, k: int, allowed: npt.NDArray[np.bool_] | None
    ) -> tuple[Rows, Floats]:
        """Find the k nearest vectors of each query."""
        if hasattr(index, "set_ef") and k > index.ef:
            index.set_ef(k)  # HNSW requires at least k search candidates
        if allowed is None:
            rows, distances = index.knn_query(queries, k=k)
        else:
            rows, distances = index.knn_query(
                queries, k=k, num_threads=1, filter=lambda position: bool(allowed[position])
            )
        return rows.astype(np.int64), (1 - distances).astype(np.float32)

    def _empty(self, width: int, *, approximate: bool) -> Any:
        library = self.library()
        kind = library.Index if approximate else library.BFIndex
        return kind(space="ip", dim=width)


LIBRARIES: dict[str, type[IndexLibrary]] = {
    library.name: library for library in (Faiss, Usearch, Hnswlib)
}


def index_library(name: str) -> IndexLibrary:
    """Look up an index library by name.

    Raises:
        ValueError: if the name is unknown.
        ImportError: if the library is not installed.
    """
    if name not in LIBRARIES:
        raise ValueError(f"library={name!r} is unknown; choose one of {', '.join(LIBRARIES)}")
    LIBRARIES[name].library()
    return LIBRARIES[name]()
