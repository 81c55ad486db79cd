"""Exports the user encoder of a model as one graph, from rows of items to a query vector.

Letters: B histories, L positions, N items, S sources, D hidden size, W = S * D, M excluded items.
"""

import copy
import hashlib
import json
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import nn

from odmt_sdk.backbones.per_source import SourceBackbones
from odmt_sdk.config import whole_number
from odmt_sdk.export.exported import (
    FORMAT,
    GRAPHS,
    ITEMS,
    NEIGHBOURS,
    SETTINGS,
    VECTORS,
    ExportedUserEncoder,
)
from odmt_sdk.files.atomic_files import write_text, write_whole
from odmt_sdk.item_neighbours import LATEST_ITEMS, ItemNeighbours, added_scores
from odmt_sdk.modes import evaluating
from odmt_sdk.scoring import fused_vectors, weighted_query_vectors, weights_of
from odmt_sdk.wrapper import ODMTWrapper

Format = Literal["torch_export", "onnx"]
ONNX_LIMIT = 2**31 - 2**20  # bytes of a file of protocol buffers
PROBES = ((1, 1), (1, 3), (3, 2), (5, 7))  # sizes (B, L) that a graph is tried with
# Between two orders of the same sums in float32; what a wrong graph returns is far from it.
TOLERANCE = 1e-3


class UserEncoder(nn.Module):
    """The module that is exported: it encodes rows of items as query vectors.

    Args:
        backbones: the backbones of the model.
        source_weights: source -> weight in the score, in the order of the sources.
        item_vectors: (N + 1, W), the concatenated item embeddings of all sources.
        top_k: number of items to find; None = return the query vectors.
        neighbours: item-to-item counts to add to the scores; only with `top_k`.
    """

    item_vectors: torch.Tensor
    query_scale: torch.Tensor
    neighbours: torch.Tensor
    neighbour_weights: torch.Tensor

    def __init__(
        self,
        backbones: SourceBackbones,
        source_weights: Mapping[str, float],
        item_vectors: torch.Tensor,
        *,
        top_k: int | None = None,
        neighbours: ItemNeighbours | None = None,
    ) -> None:
        super().__init__()
        self.backbones, self.sources, self.top_k = backbones, tuple(source_weights), top_k
        self.register_buffer("item_vectors", item_vectors)
        weights = torch.tensor(list(source_weights.values()), dtype=torch.float64)
        each = (
            (weights / weights.sum())
            .float()
            .repeat_interleave(item_vectors.shape[1] // len(weights))
        )
        self.register_buffer("query_scale", each)  # (W,)
        self.decay, self.adds = 1.0, neighbours is not None
        if neighbours is not None:
            self.decay = neighbours.decay
            self.register_buffer("neighbours", neighbours.rows.long())
            self.register_buffer("neighbour_weights", neighbours.weights * neighbours.weight)

    def forward(
        self,
        item_rows: torch.Tensor,
        lengths: torch.Tensor,
        excluded_rows: torch.Tensor | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Encode histories.

        Args:
            item_rows: (B, L) int64; each history starts at position 0, oldest item first.
            lengths: (B,) int64, number of items of each history, 1..L.
            excluded_rows: (B, M) int64, rows to exclude, 0 = none; only with `top_k`.

        Returns:
            (B, W) float32 query vectors. With `top_k`: scores and rows, each (B, top_k), best
            first; the score is -inf if fewer items are left.
        """
        batch, slots = item_rows.shape
        # to the right end, so that every sequence ends with its last item
        places = torch.arange(slots, device=item_rows.device) - (slots - lengths)[:, None]
        mask = places >= 0  # (B, L)
        rows = item_rows.gather(1, places.clamp(min=0)) * mask
        embedded = self.item_vectors[rows].unflatten(-1, (len(self.sources), -1))  # (B, L, S, D)
        ends = torch.arange(1, batch + 1, device=item_rows.device) * slots - 1
        states = [
            self.backbones(
                embedded[:, :, number] * mask[..., None],  # (B, L, D)
                mask.long(),
                source,
                item_ids=rows,
                positions=ends,
                one_each=True,
            )
            for number, source in enumerate(self.sources)
        ]
        queries = torch.cat(states, dim=1).float() * self.query_scale  # (B, W)
        if self.top_k is None:
            return queries
        scores = queries @ self.item_vectors.float().T  # (B, N + 1)
        if self.adds:
            near = self.neighbours[rows]  # (B, L, K)
            ago = (slots - 1 - torch.arange(slots, device=rows.device)).float()
            shares = self.decay**ago * (ago < LATEST_ITEMS)  # (L,)
            values = self.neighbour_weights[rows] * shares[:, None]
            scores = scores.scatter_add(1, near.flatten(1), values.flatten(1))
        closed = torch.zeros_like(scores[:, :1])
        scores = torch.cat([closed - torch.inf, scores[:, 1:]], dim=1)  # padding is no item
        if excluded_rows is not None:
            scores = scores.scatter(1, excluded_rows, -torch.inf)
        best = scores.topk(self.top_k, dim=1)
        return best.values, best.indices


def export_user_encoder(
    model: ODMTWrapper,
    path: str | Path,
    *,
    format: Format = "torch_export",
    top_k: int | None = None,
) -> ExportedUserEncoder:
    """Write the user encoder of a model as a graph for PyTorch or ONNX Runtime.

    The folder contains the graph, the item vectors ("item_vectors.npy", float32, (N, W)), the item
    ids ("items.json"), and settings and fingerprints ("export.json"). Item-to-item counts of the
    model are in the graph if `top_k` is given, else in "item_to_item.npz" for `recommend`. The
    graph reads rows: row i is the i-th item id, counted from 1. It accepts batches of any size and
    histories of any length up to `max_seq_length`. If the backbone cannot be traced for any length,
    histories must have exactly `max_seq_length` positions.

    Args:
        model: a model with items; it is not changed.
        path: the folder to create, or a folder with an export, which is replaced.
        format: "torch_export" for `torch.export.load`, "onnx" for ONNX Runtime (extra `onnx`).
        top_k: include the item vectors in the graph, which then returns the scores and rows of the
            best k items. None = the graph returns query vectors, for an index or for
            `ExportedUserEncoder.recommend`.

    Returns:
        The export; `ExportedUserEncoder.open(path)` opens it again.

    Raises:
        ImportError: if `onnx`, `onnxscript` or `onnxruntime` is not installed.
        TypeError: if an item id is neither a string nor an integer.
        ValueError: if the format is unknown, the backbone cannot be exported, the graph returns
            other vectors than the model, or the folder contains something other than an export.

    Examples:
        >>> encoder = export_user_encoder(model, "exported", format="onnx")     # doctest: +SKIP
        >>> encoder.recommend([["1", "3114", "588"]], k=5)                      # doctest: +SKIP
    """
    if format not in get_args(Format):
        raise ValueError(f"format={format!r} must be one of {get_args(Format)}")
    if format == "onnx":
        _check_onnx()
    if not isinstance(model, ODMTWrapper):
        raise TypeError(f"model is a {type(model).__name__}, not an ODMTWrapper")
    if top_k is not None:
        top_k = min(whole_number("top_k", top_k), model.num_items)
    vocabulary = model.vocabulary
    if vocabulary is None or model.backbones is None:
        raise ValueError("the model has no items to encode: call set_items first")
    item_ids = list(vocabulary)
    strange = next((i for i in item_ids if type(i) not in (str, int)), None)
    if strange is not None:
        raise TypeError(f"item id {strange!r} is neither a string nor an integer: rename the items")
    folder = _claimed(Path(path).expanduser())
    encoder = UserEncoder(
        copy.deepcopy(model.backbones).cpu(),
        weights_of(model),
        fused_vectors(model.encode_catalogue(), model.sources).detach().cpu(),
        top_k=top_k,
        neighbours=model.item_to_item if top_k is not None and model.item_to_item_weight else None,
    ).eval()
    program, dynamic = _traced(encoder, model)
    settings: dict[str, Any] = {
        "format": FORMAT,
        "kind": format,
        "max_seq_length": model.max_seq_length,
        "any_length": dynamic,
        "top_k": top_k,
        "items": len(item_ids),
        "width": encoder.item_vectors.shape[1],
        "fingerprint": model.catalogue_fingerprint(),
    }
    (folder / SETTINGS).unlink(missing_ok=True)  # written last: without it the export is invalid
    for name in GRAPHS.values():
        for left in folder.glob(f"{name}*"):
            left.unlink()
    graph = folder / GRAPHS[format]
    if format == "onnx":
        _write_onnx(program, encoder, graph)
    else:
        write_whole(graph, lambda partial: _save_program(program, partial))
    (folder / NEIGHBOURS).unlink(missing_ok=True)
    near = model.item_to_item
    if near is not None and near.weight and top_k is None:
        settings |= {"item_to_item_decay": near.decay, "item_to_item_latest": LATEST_ITEMS}
        rows, weights = near.rows.numpy(), (near.weights * near.weight).numpy()

        def write_neighbours(partial: Path) -> None:
            with partial.open("wb") as file:
                np.savez(file, rows=rows, weights=weights)

        write_whole(folder / NEIGHBOURS, write_neighbours)
    vectors = model.item_vectors()[1:].numpy()

    def write_vectors(partial: Path) -> None:
        with partial.open("wb") as file:
            np.save(file, vectors, allow_pickle=False)

    write_whole(folder / VECTORS, write_vectors)
    write_text(folder / ITEMS, json.dumps(item_ids, ensure_ascii=False))
    with graph.open("rb") as file:
        settings["graph"] = hashlib.file_digest(file, "sha256").hexdigest()
    write_text(folder / SETTINGS, json.dumps(settings))
    exported = ExportedUserEncoder.open(folder)
    try:
        _check_same(exported.run, encoder, model, dynamic)
    except Exception:
        (folder / SETTINGS).unlink()  # the export is wrong and must not be opened
        raise
    return exported


def _check_onnx() -> None:
    from importlib.util import find_spec

    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise ImportError(
            f'format="onnx" needs {", ".join(missing)}: pip install odmt-sdk[onnx]; or use '
            'format="torch_export"'
        )


def _claimed(folder: Path) -> Path:
    """Create the folder if needed; raise if it contains something other than an export."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: name a folder for the export")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / SETTINGS).is_file():
        raise ValueError(f"{folder} contains something other than an export: name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _traced(encoder: UserEncoder, model: ODMTWrapper) -> tuple[Any, bool]:
    """The graph, and whether it takes any length; ValueError if the backbone cannot be traced."""
    failure: Exception | None = None
    for dynamic in (True, False):
        if dynamic and model.max_seq_length < 3:
            continue  # there is no length to tell from another
        inputs = _probe(model, 2, model.max_seq_length - dynamic, encoder.top_k)
        batch = torch.export.Dim("batch", min=1, max=2**20)
        length = torch.export.Dim("length", min=1, max=model.max_seq_length)
        shapes: list[dict[int, Any]] = [
            {0: batch, 1: length} if dynamic else {0: batch},
            {0: batch},
        ]
        if encoder.top_k is not None:
            shapes.append({0: batch, 1: torch.export.Dim("excluded", min=1, max=2**20)})
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of tracing: what comes out is checked
                program = torch.export.export(
                    encoder, inputs, dynamic_shapes=tuple(shapes), strict=False
                )
            _check_same(program.module(), encoder, model, dynamic)
        except Exception as error:  # tracing raises any type of exception
            failure = error
            continue
        return program, dynamic
    kinds = {type(backbone).__name__ for backbone in encoder.backbones.by_source.values()}
    raise ValueError(
        f"the backbone {', '.join(sorted(kinds))} cannot be exported: {_reason(failure)}. Serve it "
        "with model.recommend or the service instead, or make its forward traceable by torch.export"
    ) from failure


def _reason(error: BaseException | None) -> str:
    """The root cause of an error, in one line."""
    while error is not None and error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:300]}"


def _probe(
    model: ODMTWrapper, batch: int, length: int, top_k: int | None
) -> tuple[torch.Tensor, ...]:
    """Histories of different lengths, the same in every call."""
    generator = torch.Generator().manual_seed(0)
    length = min(length, model.max_seq_length)
    rows = torch.randint(1, model.num_items + 1, (batch, length), generator=generator)
    lengths = torch.randint(1, length + 1, (batch,), generator=generator)
    lengths[-1] = length
    return (rows, lengths) if top_k is None else (rows, lengths, rows[:, :1].repeat(1, 2))


def _check_same(run: Any, encoder: UserEncoder, model: ODMTWrapper, dynamic: bool) -> None:
    """Raise ValueError unless a graph returns the same values as the model."""
    for batch, length in PROBES:
        inputs = _probe(model, batch, length if dynamic else model.max_seq_length, encoder.top_k)
        rows, lengths = inputs[:2]
        with evaluating(model), torch.no_grad():
            mask = torch.arange(rows.shape[1]) < lengths[:, None]
            states = model.encode_sequences(
                (rows * mask).to(model.device), item_embeddings=model.encode_catalogue()
            )
            weighted = weighted_query_vectors(states, model.sources, weights_of(model))
            expected = weighted.float().cpu()
            found = torch.as_tensor(_first(run(*inputs)))
        if encoder.top_k is not None:
            scores = expected @ model.item_vectors().T
            added = added_scores(model, rows * mask)
            if added is not None:
                added.add_to_(scores, slice(None))
            scores[:, 0] = -torch.inf
            expected = scores.scatter(1, inputs[2], -torch.inf).topk(encoder.top_k).values
        same = found.shape == expected.shape and torch.allclose(
            found, expected, rtol=TOLERANCE, atol=TOLERANCE * _size(expected)
        )
        if not same:
            raise ValueError(
                "the graph returns other numbers than the model: the traced backbone is not "
                "correct for every batch"
            )


def _size(values: torch.Tensor) -> float:
    finite = values[values.isfinite()]
    return float(finite.abs().max()) if len(finite) else 1.0


def _first(result: Any) -> Any:
    return result[0] if isinstance(result, tuple | list) else result


def _save_program(program: Any, partial: Path) -> None:
    with partial.open("wb") as file:
        torch.export.save(program, file)


def _write_onnx(program: Any, encoder: UserEncoder, graph: Path) -> None:
    names = ["item_rows", "lengths", "excluded_rows"][: 2 if encoder.top_k is None else 3]
    outputs = ["query_vectors"] if encoder.top_k is None else ["scores", "rows"]
    weights = (*encoder.parameters(), *encoder.buffers())
    size = sum(tensor.numel() * tensor.element_size() for tensor in weights)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing: what comes out is checked
        try:
            onnx_program = torch.onnx.export(
                program, input_names=names, output_names=outputs, dynamo=True, verbose=False
            )
        except Exception as error:  # the exporter raises any type of exception
            raise ValueError(
                f"the backbone cannot be exported to ONNX: {_reason(error)}. Use "
                'format="torch_export"'
            ) from error
    assert onnx_program is not None  # it was not asked to write a file
    new = graph.parent / f".{graph.name}.new"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    onnx_program.save(str(new / graph.name), external_data=size > ONNX_LIMIT)
    for file in sorted(new.iterdir(), reverse=True):  # the graph is last
        file.replace(graph.parent / file.name)
    new.rmdir()
