"""`ItemIndex`: a nearest-neighbour index that is opened and searched without torch.

Letters: Q queries, N items, W width of a vector.
"""

import json
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from odmt_sdk.indexes.libraries import LIBRARIES, IndexLibrary, index_library

SETTINGS, ITEMS, INDEX = "index.json", "items.json", "items.index"
FORMAT = 1
MORE = 16  # extra candidates, so that items with equal scores at the cut-off are ordered by row


class ItemIndex:
    """Nearest-neighbour index that finds the items with the highest inner products.

    Create an index with `ODMTWrapper.export_index` and open it with `ItemIndex.open`, which needs
    only numpy and the index library. Query vectors come from `ODMTWrapper.encode_histories` or from
    an exported user encoder.

    Attributes:
        item_ids: the N item ids, in row order.
        settings: library, exact or approximate, width, and the fingerprint of the item vectors.

    Examples:
        >>> index = ItemIndex.open("my-index")                                  # doctest: +SKIP
        >>> item_ids, scores = index.search(vectors, k=10, exclude=histories)   # doctest: +SKIP
    """

    def __init__(
        self,
        index: Any,
        library: IndexLibrary,
        item_ids: Sequence[Hashable],
        settings: Mapping[str, Any],
    ) -> None:
        self._index, self._library = index, library
        self.item_ids = tuple(item_ids)
        self.settings = dict(settings)
        self._positions = {item_id: place for place, item_id in enumerate(self.item_ids)}

    @classmethod
    def open(cls, path: str | Path, *, fingerprint: str | None = None) -> Self:
        """Open an index from its folder.

        Args:
            path: a folder written by `ODMTWrapper.export_index`.
            fingerprint: fingerprint of the expected item vectors, from
                `ODMTWrapper.catalogue_fingerprint`. An index of other vectors is refused. None =
                no check.

        Returns:
            The index.

        Raises:
            FileNotFoundError: if the folder contains no index.
            ValueError: if the index is damaged, has an unknown format or has another fingerprint.
            ImportError: if the index library is not installed.
        """
        folder = Path(path).expanduser()
        if not (folder / SETTINGS).is_file():
            raise FileNotFoundError(
                f"{folder} contains no index: it has no {SETTINGS}. Create it with "
                "model.export_index"
            )
        settings = _read_json(folder / SETTINGS)
        known = isinstance(settings, dict) and settings.get("format") == FORMAT
        if not known or settings.get("library") not in LIBRARIES:
            raise ValueError(f"{folder / SETTINGS} does not describe an index of format {FORMAT}")
        if fingerprint is not None and fingerprint != settings.get("fingerprint"):
            raise ValueError(
                f"the index in {folder} has other item vectors than the model: it belongs to "
                "another adapter, or the model has been trained since. Export the index again"
            )
        item_ids = _read_json(folder / ITEMS)
        library = index_library(settings["library"])
        try:
            width, approximate = int(settings["width"]), bool(settings["approximate"])
            index = library.open(
                folder / INDEX,
                width=width,
                size=len(item_ids),
                approximate=approximate,
                settings=settings["settings"],
            )
        except (KeyError, TypeError, RuntimeError, OSError) as error:
            raise ValueError(
                f"the index in {folder} is damaged: {error}. Export it again"
            ) from None
        return cls(index, library, item_ids, settings)

    def __len__(self) -> int:
        return len(self.item_ids)

    def search(
        self,
        query_vectors: npt.ArrayLike,
        k: int = 10,
        *,
        exclude: Sequence[Sequence[Hashable]] | None = None,
        items: Sequence[Hashable] | None = None,
    ) -> tuple[list[list[Hashable]], list[list[float]]]:
        """Find the best items for each query.

        Among items with equal scores, the one with the lower row comes first, as in `recommend`.

        Args:
            query_vectors: (Q, W).
            k: number of items per query, at least 1; at most N are returned.
            exclude: item ids to leave out, per query; unknown ids are ignored.
            items: the only item ids that may be returned; None = all. Only for libraries that can
                filter (faiss, hnswlib).

        Returns:
            Item ids and scores (inner products) per query, best first. A query has fewer than k
            items if not enough remain.

        Raises:
            ValueError: if k is less than 1, shapes do not match, an id in `items` is unknown, or
                the library cannot filter.
        """
        queries = np.ascontiguousarray(np.asarray(query_vectors, dtype=np.float32))
        width = self.settings["width"]
        if queries.ndim != 2 or queries.shape[1] != width:
            raise ValueError(
                f"query_vectors have shape {queries.shape}, but the index needs (Q, {width})"
            )
        if not np.isfinite(queries).all():
            raise ValueError("a query vector holds NaN or infinity")
        if k < 1:
            raise ValueError(f"k={k} must be at least 1")
        if exclude is not None and len(exclude) != len(queries):
            raise ValueError(
                f"exclude has {len(exclude)} lists for {len(queries)} queries: give one list per "
                "query"
            )
        allowed = None if items is None else self._allowed(items)
        if not len(queries):
            return [], []
        left_out = [self._known(ids) for ids in exclude or [()] * len(queries)]
        most = max(map(len, left_out))
        number = min(len(self), k + most + MORE)
        rows, scores = self._library.search(self._index, queries, number, allowed)
        found_ids: list[list[Hashable]] = []
        found_scores: list[list[float]] = []
        for query_rows, query_scores, without in zip(rows, scores, left_out, strict=True):
            order = np.lexsort((query_rows, -query_scores))
            best = [
                place
                for place in order
                if query_rows[place] >= 0 and query_rows[place] not in without
            ][:k]
            found_ids.append([self.item_ids[query_rows[place]] for place in best])
            found_scores.append([float(query_scores[place]) for place in best])
        return found_ids, found_scores

    def _known(self, item_ids: Sequence[Hashable]) -> set[int]:
        return {self._positions[item_id] for item_id in item_ids if item_id in self._positions}

    def _allowed(self, items: Sequence[Hashable]) -> npt.NDArray[np.bool_]:
        if not self._library.filters:
            able = ", ".join(name for name, library in LIBRARIES.items() if library.filters)
            raise ValueError(
                f"an index of {self._library.name} cannot be restricted to some items: export an "
                f"index of {able}"
            )
        unknown = [item_id for item_id in items if item_id not in self._positions]
        if unknown or not items:
            what = f"item id {unknown[0]!r} is not in the index" if unknown else "items is empty"
            raise ValueError(f"{what}: name items of the catalogue")
        allowed = np.zeros(len(self), dtype=np.bool_)
        allowed[[self._positions[item_id] for item_id in items]] = True
        return allowed


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {error}. Export the index again") from None
