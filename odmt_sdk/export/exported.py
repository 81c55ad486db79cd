"""An exported user encoder, opened from its folder.

Letters: B histories, L positions, N items, W width of a vector.
"""

import hashlib
import json
import zipfile
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt

from odmt_sdk.errors import missing_library

if TYPE_CHECKING:
    from odmt_sdk.indexes.item_index import ItemIndex

SETTINGS, ITEMS, VECTORS = "export.json", "items.json", "item_vectors.npy"
NEIGHBOURS = "item_to_item.npz"
GRAPHS = {"torch_export": "user_encoder.pt2", "onnx": "user_encoder.onnx"}
FORMAT = 1
Run = Callable[..., tuple[npt.NDArray[Any], ...]]


class ExportedUserEncoder:
    """Encodes histories of item ids with an exported graph, and recommends from its item vectors.

    `odmt_sdk.export_user_encoder` creates it, and `ExportedUserEncoder.open` opens it. An ONNX
    export can be opened without torch.

    Attributes:
        item_ids: the N item ids; row i of the graph is the i-th id, counted from 1.
        item_vectors: (N, W) float32, memory-mapped from the file.
        settings: kind, max_seq_length, width, top_k and the fingerprint of the item vectors.

    Examples:
        >>> encoder = ExportedUserEncoder.open("exported")                      # doctest: +SKIP
        >>> item_ids, scores = encoder.recommend([["1", "3114", "588"]], k=5)   # doctest: +SKIP
    """

    def __init__(
        self,
        run: Run,
        item_ids: Sequence[Hashable],
        item_vectors: npt.NDArray[np.float32],
        settings: Mapping[str, Any],
        neighbours: tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]] | None = None,
    ) -> None:
        self._neighbours = neighbours
        self.run, self.item_vectors, self.settings = run, item_vectors, dict(settings)
        self.item_ids = tuple(item_ids)
        self._rows = {item_id: row for row, item_id in enumerate(self.item_ids, start=1)}

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        vocabulary: Iterable[Hashable] | None = None,
        fingerprint: str | None = None,
        threads: int | None = None,
    ) -> Self:
        """Open an export. Open only exports from sources that you trust.

        Args:
            path: a folder written by `export_user_encoder`.
            vocabulary: the expected item ids in row order; an export with other ids is refused.
            fingerprint: fingerprint of the expected item vectors, from
                `ODMTWrapper.catalogue_fingerprint` or an index. An export of other vectors is
                refused. None = no check.
            threads: number of threads of ONNX Runtime; None = its default.

        Returns:
            The user encoder.

        Raises:
            FileNotFoundError: if the folder contains no export.
            ValueError: if the export is damaged, has an unknown format, or has another vocabulary
                or fingerprint.
            ImportError: if ONNX Runtime or PyTorch, whichever the export needs, is not installed.
        """
        folder = Path(path).expanduser()
        if not (folder / SETTINGS).is_file():
            raise FileNotFoundError(
                f"{folder} contains no export: it has no {SETTINGS}. Create an export with "
                "odmt_sdk.export_user_encoder"
            )
        settings = _read_json(folder / SETTINGS)
        known = isinstance(settings, dict) and settings.get("format") == FORMAT
        if not known or settings.get("kind") not in GRAPHS:
            raise ValueError(
                f"{folder / SETTINGS} does not describe an export of format {FORMAT}: export the "
                "model again with this version"
            )
        item_ids = _read_json(folder / ITEMS)
        if vocabulary is not None:
            _check_vocabulary(folder, item_ids, list(vocabulary))
        if fingerprint is not None and fingerprint != settings.get("fingerprint"):
            raise ValueError(
                f"the export in {folder} has other item vectors: it belongs to another adapter, or "
                "the model has been trained since. Export the model again"
            )
        graph = folder / GRAPHS[settings["kind"]]
        try:
            with graph.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            vectors = np.load(folder / VECTORS, mmap_mode="r", allow_pickle=False)
            shape = (len(item_ids), settings["width"])
            neighbours = None
            if "item_to_item_decay" in settings:
                with np.load(folder / NEIGHBOURS, allow_pickle=False) as arrays:
                    neighbours = arrays["rows"], arrays["weights"]
                if {len(array) for array in neighbours} != {len(item_ids) + 1}:
                    raise ValueError(f"{NEIGHBOURS} belongs to other items")
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"the export in {folder} is damaged: {error}. Export it again"
            ) from None
        if digest != settings.get("graph") or vectors.shape != shape:
            raise ValueError(
                f"the export in {folder} is damaged: its files do not belong together. Export it "
                "again"
            )
        run = _onnx(graph, threads) if settings["kind"] == "onnx" else _torch(graph)
        return cls(run, item_ids, vectors, settings, neighbours)

    def __len__(self) -> int:
        return len(self.item_ids)

    def encode(
        self,
        histories: Iterable[Sequence[Hashable]],
        *,
        unknown: Literal["error", "skip"] = "error",
        batch_size: int = 256,
    ) -> npt.NDArray[np.float32]:
        """Encode histories as query vectors, for `recommend` or an index of the item vectors.

        Args:
            histories: item ids of each user, oldest first; the latest `max_seq_length` are read.
            unknown: what to do with item ids that the export does not have: "skip" ignores them,
                "error" raises.
            batch_size: histories encoded at once.

        Returns:
            (B, W) float32.

        Raises:
            ValueError: if a history is empty, an item id is unknown, or the export finds the best
                items itself (`top_k`).
        """
        if self.settings["top_k"] is not None:
            raise ValueError(
                "this export returns items instead of query vectors: use recommend, or export with "
                "top_k=None"
            )
        rows = self._read(histories, unknown)
        found = [
            self.run(*self._inputs(rows[start : start + batch_size]))[0]
            for start in range(0, len(rows), batch_size)
        ]
        return np.concatenate([np.zeros((0, self.settings["width"]), np.float32), *found])

    def recommend(
        self,
        histories: Iterable[Sequence[Hashable]],
        k: int = 10,
        *,
        exclude_seen: bool = True,
        unknown: Literal["error", "skip"] = "error",
        index: "ItemIndex | None" = None,
        batch_size: int = 256,
    ) -> tuple[list[list[Hashable]], list[list[float]]]:
        """Recommend the next items of some histories.

        Args:
            histories: item ids of each user, oldest first.
            k: number of items to recommend; at most `top_k` if the export has it.
            exclude_seen: whether to exclude all items of the history.
            unknown: what to do with item ids that the export does not have: "skip" ignores them,
                "error" raises.
            index: an index of the same item vectors to search instead of comparing all vectors. It
                ranks by the vectors alone, without the model's item-to-item counts.
            batch_size: histories encoded at once.

        Returns:
            Item ids and scores, best first, as from `ODMTWrapper.recommend`. Among items with equal
            scores, the one with the lower row comes first.

        Raises:
            ValueError: if k is out of range, a history is empty, an item id is unknown, or the
                index has other item vectors.
        """
        most = self.settings["top_k"]
        if k < 1 or (most is not None and k > most):
            raise ValueError(f"k={k} must be at least 1" + (f", at most {most}" if most else ""))
        if index is not None and most is not None:
            raise ValueError("this export finds the best items itself: leave out index=")
        if index is not None and "item_to_item_decay" in self.settings:
            raise ValueError(
                "this export adds item-to-item counts to the scores, but an index cannot: leave "
                "out index=, or set model.item_to_item_weight = 0 and export the model again"
            )
        if index is not None and index.settings["fingerprint"] != self.settings["fingerprint"]:
            raise ValueError(
                "the index and the export have different item vectors: create both from one model"
            )
        rows = self._read(histories, unknown)
        found: tuple[list[list[Hashable]], list[list[float]]] = ([], [])
        for start in range(0, len(rows), batch_size):
            block = rows[start : start + batch_size]
            closed = block if exclude_seen else [row[:0] for row in block]
            if most is not None:
                scores, best = self.run(*self._inputs(block), _padded(closed))
                items, values = self._named(scores[:, :k], best[:, :k])
            elif index is not None:
                seen = [[self.item_ids[row - 1] for row in user] for user in closed]
                items, values = index.search(self.run(*self._inputs(block))[0], k, exclude=seen)
            else:
                queries = self.run(*self._inputs(block))[0]
                items, values = self._named(*self._best(queries, block, closed, min(k, len(self))))
            found[0].extend(items)
            found[1].extend(values)
        return found

    def _read(
        self, histories: Iterable[Sequence[Hashable]], unknown: str
    ) -> list[npt.NDArray[np.int64]]:
        """The rows of each history."""
        if unknown not in ("error", "skip"):
            raise ValueError(f'unknown={unknown!r} must be "error" or "skip"')
        if isinstance(histories, str | bytes | Mapping):
            raise ValueError("histories must be a list of lists of item ids; [[...]] for one user")
        found = []
        for number, history in enumerate(histories):
            if isinstance(history, str | bytes | Mapping) or not hasattr(history, "__iter__"):
                raise ValueError(f"history {number} is {history!r}; it needs a list of item ids")
            ids = history.tolist() if hasattr(history, "tolist") else list(history)
            strange = [item_id for item_id in ids if item_id not in self._rows]
            if strange and unknown == "error":
                raise ValueError(
                    f"history {number} has {strange[0]!r}, which is not an item of this export: "
                    "remove it, or pass unknown='skip'"
                )
            rows = [self._rows[item_id] for item_id in ids if item_id in self._rows]
            if not rows:
                raise ValueError(f"history {number} is empty: it needs at least one known item")
            found.append(np.array(rows, dtype=np.int64))
        return found

    def _inputs(
        self, rows: list[npt.NDArray[np.int64]]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The latest items as the graph reads them: rows (B, L) and lengths (B,)."""
        longest = self.settings["max_seq_length"]
        latest = [row[-longest:] for row in rows]
        lengths = np.array([len(row) for row in latest], dtype=np.int64)
        return _padded(latest, 0 if self.settings["any_length"] else longest), lengths

    def _best(
        self,
        queries: npt.NDArray[np.float32],
        histories: list[npt.NDArray[np.int64]],
        closed: list[npt.NDArray[np.int64]],
        k: int,
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Scores and rows (B, k) of the best items; ties are ordered by row, lowest first."""
        scores = queries @ self.item_vectors.T  # (B, N)
        if self._neighbours is not None:
            self._add_item_to_item(scores, histories)
        for user, rows in enumerate(closed):
            scores[user, rows - 1] = -np.inf
        places = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        least = np.take_along_axis(scores, places, 1).min(1)
        best = np.empty((len(scores), k), dtype=np.int64)
        for user, cut in enumerate(least):  # all that are as good as the last one
            able = np.flatnonzero(scores[user] >= cut)
            best[user] = able[np.argsort(-scores[user, able], kind="stable")][:k]
        return np.take_along_axis(scores, best, 1), best + 1

    def _add_item_to_item(
        self, scores: npt.NDArray[np.float32], histories: list[npt.NDArray[np.int64]]
    ) -> None:
        """Add the weights of the neighbours of the latest items to the scores (B, N)."""
        assert self._neighbours is not None
        near, weights = self._neighbours  # (N + 1, K)
        for user, history in enumerate(histories):
            latest = history[-self.settings["item_to_item_latest"] :][::-1]
            shares = self.settings["item_to_item_decay"] ** np.arange(len(latest))
            added = np.zeros(len(self) + 1, np.float32)  # with padding
            np.add.at(added, near[latest], weights[latest] * shares[:, None].astype(np.float32))
            scores[user] += added[1:]

    def _named(
        self, scores: npt.NDArray[np.float32], rows: npt.NDArray[np.int64]
    ) -> tuple[list[list[Hashable]], list[list[float]]]:
        kept = [np.flatnonzero(user > -np.inf) for user in scores]
        return (
            [
                [self.item_ids[row - 1] for row in user[k]]
                for user, k in zip(rows, kept, strict=True)
            ],
            [user[k].tolist() for user, k in zip(scores, kept, strict=True)],
        )


def _padded(rows: list[npt.NDArray[np.int64]], length: int = 0) -> npt.NDArray[np.int64]:
    """Combine rows of different lengths to (B, L), padded with 0 at the end."""
    longest = max(length, 1, *(len(row) for row in rows))
    padded = np.zeros((len(rows), longest), dtype=np.int64)
    for user, row in enumerate(rows):
        padded[user, : len(row)] = row
    return padded


def _check_vocabulary(folder: Path, item_ids: list[Any], expected: list[Any]) -> None:
    if item_ids == expected:
        return
    unlike = (
        (row, found, asked)
        for row, (found, asked) in enumerate(zip(item_ids, expected, strict=False), start=1)
        if found != asked or type(found) is not type(asked)
    )
    shown = [f"row {r} is {found!r}, not {asked!r}" for r, found, asked in islice(unlike, 1)]
    raise ValueError(
        f"the export in {folder} was made with another vocabulary: "
        + "; ".join([f"it has {len(item_ids)} items, expected {len(expected)}", *shown])
        + ". Export the model with the expected items"
    )


def _onnx(graph: Path, threads: int | None) -> Run:
    try:
        import onnxruntime
    except ImportError as error:
        raise missing_library(
            "this export needs ONNX Runtime (onnxruntime)", error, "onnx"
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def run(*inputs: Any) -> tuple[npt.NDArray[Any], ...]:
        return tuple(session.run(None, dict(zip(names, map(np.asarray, inputs), strict=True))))

    return run


def _torch(graph: Path) -> Run:
    import torch

    module = torch.export.load(str(graph)).module()

    def run(*inputs: Any) -> tuple[npt.NDArray[Any], ...]:
        with torch.no_grad():
            result = module(*map(torch.as_tensor, inputs))
        return tuple(part.numpy() for part in (result if isinstance(result, tuple) else (result,)))

    return run


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {error}. Export it again") from None
