"""`build_index`: write a nearest-neighbour index of item vectors to a folder.

Letters: N items, W width of a vector.
"""

import hashlib
import json
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from odmt_sdk.files.atomic_files import write_text, write_whole
from odmt_sdk.indexes.item_index import FORMAT, INDEX, ITEMS, SETTINGS, ItemIndex
from odmt_sdk.indexes.libraries import index_library


def fingerprint(vectors: npt.NDArray[np.float32]) -> str:
    """A digest that identifies a set of item vectors: SHA-256 of their shape and values."""
    digest = hashlib.sha256(str(vectors.shape).encode())
    digest.update(np.ascontiguousarray(vectors, dtype=np.float32).tobytes())
    return digest.hexdigest()


def build_index(
    path: str | Path,
    item_ids: Sequence[Hashable],
    vectors: npt.NDArray[np.float32],
    *,
    library: Literal["faiss", "usearch", "hnswlib"] = "faiss",
    approximate: bool = False,
    settings: dict[str, int] | None = None,
) -> ItemIndex:
    """Write an index of item vectors to a folder; `ODMTWrapper.export_index` calls this.

    Args:
        path: the folder to create, or a folder with an index, which is replaced.
        item_ids: N item ids, strings or integers.
        vectors: (N, W) item vectors.
        library: the index library to use.
        approximate: whether to build an approximate index (an HNSW graph), for large catalogues.
            False = exact search.
        settings: settings of the HNSW graph: "links" per item, and the number of candidates at
            "construction" and at "search". None = the defaults of the library.

    Returns:
        The index, ready to search.

    Raises:
        ValueError: if the shapes do not match, a value is not finite, a setting is unknown, or the
            folder contains something other than an index.
        TypeError: if an item id is neither a string nor an integer.
        ImportError: if the library is not installed.
    """
    able = index_library(library)
    chosen = {**able.defaults, **(settings or {})}
    unknown = sorted(chosen.keys() - able.defaults.keys())
    if unknown or min(chosen.values()) < 1:
        raise ValueError(
            f"settings={settings} must name some of {', '.join(able.defaults)}, each at least 1"
        )
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != len(item_ids) or not len(item_ids):
        raise ValueError(f"vectors have shape {vectors.shape} for {len(item_ids)} item ids")
    if not np.isfinite(vectors).all():
        raise ValueError("an item vector holds NaN or infinity")
    strange = next((i for i in item_ids if type(i) not in (str, int)), None)
    if strange is not None:
        raise TypeError(f"item id {strange!r} is neither a string nor an integer: rename the items")
    folder = Path(path).expanduser()
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: name a folder for the index")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / SETTINGS).is_file():
        raise ValueError(f"{folder} contains something other than an index: name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    about: dict[str, Any] = {
        "format": FORMAT,
        "library": library,
        "approximate": approximate,
        "settings": chosen,
        "width": vectors.shape[1],
        "items": len(item_ids),
        "fingerprint": fingerprint(vectors),
    }
    index = able.build(vectors, approximate=approximate, settings=chosen)
    (folder / SETTINGS).unlink(missing_ok=True)  # written last: without it the index is invalid
    write_whole(folder / INDEX, lambda partial: able.write(index, partial))
    write_text(folder / ITEMS, json.dumps(list(item_ids), ensure_ascii=False))
    write_text(folder / SETTINGS, json.dumps(about))
    return ItemIndex(index, able, item_ids, about)
