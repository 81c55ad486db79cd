"""Encodes a table of items into tokens, in memory or in a store on disk."""

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from odmt_sdk.config import whole_number
from odmt_sdk.data.readers.files import pictures_by_id
from odmt_sdk.features.catalogue_tokens import CatalogueTokens, TokensInMemory
from odmt_sdk.features.extraction.array_tokens import ArrayExtractor, present_arrays
from odmt_sdk.features.extractor import ExtractedTokens, check_dtype, collect, warn_of_problems
from odmt_sdk.features.modalities import MODALITIES
from odmt_sdk.features.modality import check_name
from odmt_sdk.features.report import ExtractionReport
from odmt_sdk.features.store.engine import ExtractionEngine
from odmt_sdk.features.store.opening import OpenedStore, open_store, read_report
from odmt_sdk.features.store.resumable_extraction import RawModality, extract_to_store
from odmt_sdk.paths import user_path
from odmt_sdk.tables import Table, is_delimited_text, read_columns, warn_of_changed_ids
from odmt_sdk.vocabulary import ItemVocabulary


class Extracted(NamedTuple):
    """Tokens of a catalogue and their origin.

    Args:
        vocabulary: the item ids.
        modalities: modality -> tokens.
        provenance: modality -> encoder, revision, tokens, width, pooling, ...
        report: the items that could not be read.
        folder: folder of the store the tokens are read from; None = in memory.
        part: whether the store has more items, or has them in another order.
    """

    vocabulary: ItemVocabulary
    modalities: dict[str, CatalogueTokens]
    provenance: dict[str, dict[str, Any]]
    report: ExtractionReport
    folder: Path | None = None
    part: bool = False


class EncodedColumn(NamedTuple):
    """A column of raw values and its encoder.

    Args:
        column: name of the column.
        encoder: the encoder, as passed by the user.
        options: additional arguments of the modality's extractor.
    """

    column: str
    encoder: Any
    options: Mapping[str, Any]


def encoded_columns(
    built_in: Mapping[str, Any],
    encoders: Mapping[str, Any],
    *,
    columns: Mapping[str, str],
    settings: Mapping[str, Mapping[str, Any]],
    options: Mapping[str, Mapping[str, Any]],
) -> dict[str, EncodedColumn]:
    """Collect the column, encoder and options of each modality.

    Args:
        built_in: modality -> encoder passed as its own argument; None = not given.
        encoders: modality -> encoder.
        columns: modality -> column; default: the modality's name.
        settings: modality -> options passed as their own arguments.
        options: modality -> further options; they override `settings`.

    Returns:
        Modality -> column, encoder and options.

    Raises:
        ValueError: if an encoder is given twice, or columns or options have no encoder.
    """
    given = {name: encoder for name, encoder in built_in.items() if encoder is not None}
    for name, encoder in encoders.items():
        if name in given:
            raise ValueError(f"{name}_encoder= and encoders= both give an encoder of {name!r}")
        if encoder is None:
            raise ValueError(f"encoders[{name!r}] is None: leave it out, or pass an encoder")
        given[name] = encoder
    for what, by_name in (("columns", columns), ("encoder_options", options)):
        strangers = sorted(set(by_name) - set(given) - set(built_in))
        if strangers:
            raise ValueError(f"{what}= has {strangers}, but the encoders are for {sorted(given)}")
    return {
        name: EncodedColumn(
            columns.get(name, name), encoder, {**settings.get(name, {}), **options.get(name, {})}
        )
        for name, encoder in given.items()
    }


def read_items(
    items: Table,
    *,
    item_id: str,
    encoded: Mapping[str, EncodedColumn],
    arrays: Mapping[str, Any],
    image_folder: str | os.PathLike[str] | None = None,
    encoding: str = "utf-8",
    csv_options: Mapping[str, Any] | None = None,
) -> tuple[ItemVocabulary, dict[str, RawModality]]:
    """Read the raw values out of a table and load the encoders.

    Args:
        items: any table that `read_columns` takes.
        item_id: name of the column of item ids.
        encoded: registered modality -> column and encoder.
        arrays: modality -> name of a column of arrays, or the arrays themselves.
        image_folder: folder of pictures named by item id, instead of a column of "image".
        encoding: encoding of the text file `items`.
        csv_options: format of the .csv or .tsv file `items`.

    Returns:
        The item ids, and modality -> raw values by position with their extractor.

    Raises:
        ValueError: if nothing is to be encoded, a modality is not registered, a name is taken or
            not allowed, or see `read_columns`, `pictures_by_id` and the functions that read cells.
        FileNotFoundError: if the folder of pictures or the file of the table does not exist.
        TypeError: if the extractor of a modality does not take an option.
    """
    if not encoded and not arrays:
        raise ValueError(
            "no encoder given: pass text_encoder=, image_encoder=, encoders= or arrays="
        )
    readers = {name: MODALITIES.get(name) for name in encoded}
    for name in arrays:
        check_name(name)
        if name in encoded:
            raise ValueError(f"{name!r} is both encoded and among arrays=; choose another name")
    if image_folder is not None and "image" not in encoded:
        raise ValueError(f"image_folder={str(image_folder)!r} has no effect without image_encoder=")
    in_table = {n: part for n, part in encoded.items() if n != "image" or image_folder is None}
    names = [item_id, *(part.column for part in in_table.values())]
    names += [given for given in arrays.values() if isinstance(given, str)]
    if is_delimited_text(items):
        texts = [part.column for name, part in in_table.items() if name in ("text", "image")]
        csv_options = {**(csv_options or {})}
        csv_options["strings"] = list(dict.fromkeys([*csv_options.get("strings", ()), *texts]))
    try:
        table = read_columns(items, names, encoding=encoding, csv_options=csv_options)
    except ValueError as error:
        absent = "image" in in_table and f"column {in_table['image'].column!r} is not in"
        if not absent or not str(error).startswith(absent):
            raise
        raise ValueError(
            f"{error}. If the pictures lie in a folder and are named by item id, pass image_folder="
        ) from error
    warn_of_changed_ids(
        items,
        {item_id: table[item_id]},
        encoding=encoding,
        csv_options=csv_options,
        stacklevel=3,
    )
    vocabulary = ItemVocabulary(table[item_id])
    modalities: dict[str, RawModality] = {}
    for name, part in encoded.items():
        if name == "image" and image_folder is not None:
            cells: list[Any] = list(pictures_by_id(image_folder, vocabulary.item_ids))
        else:
            cells = table[part.column].tolist()
        values = readers[name].present(cells, vocabulary.item_ids)
        build = partial(readers[name].build, part.encoder, **part.options)
        modalities[name] = RawModality(values, build(), build)
    for name, given in arrays.items():
        given = table[given] if isinstance(given, str) else given
        values = present_arrays(name, given, len(vocabulary))
        modalities[name] = RawModality(values, ArrayExtractor(name), partial(ArrayExtractor, name))
    return vocabulary, modalities


def extract_in_memory(
    vocabulary: ItemVocabulary,
    modalities: Mapping[str, RawModality],
    *,
    dtype: torch.dtype,
    progress: bool,
) -> Extracted:
    """Encode a catalogue into tensors in memory.

    Args:
        vocabulary: the item ids.
        modalities: raw values by position, counted from 0, and their extractors.
        dtype: storage dtype of the tokens.
        progress: whether to show progress bars.

    Returns:
        The tokens of all items.

    Raises:
        ValueError: if a modality has no item, or tokens are not finite in that dtype.
    """
    check_dtype(dtype)
    tokens: dict[str, CatalogueTokens] = {}
    provenance, present, problems = {}, {}, {}
    for name, (values, extractor, _) in modalities.items():
        extracted = collect(
            extractor,
            values,
            num_items=len(vocabulary),
            dtype=dtype,
            progress=progress,
            names=vocabulary.item_ids,
        )
        tokens[name] = _with_padding_row(extracted)
        present[name] = int((extracted.lengths > 0).sum())
        problems[name] = {vocabulary.ids([p + 1])[0]: r for p, r in extracted.problems.items()}
        provenance[name] = _described(extractor.provenance, tokens[name], dtype)
        warn_of_problems(problems[name], len(values), extractor.unit)
    report = ExtractionReport(len(vocabulary), present, problems)
    return Extracted(vocabulary, tokens, provenance, report)


def extract_on_disk(
    path: str | os.PathLike[str],
    vocabulary: ItemVocabulary,
    modalities: Mapping[str, RawModality],
    *,
    dtype: torch.dtype,
    shard_items: int | None,
    progress: bool,
    engine: ExtractionEngine | None = None,
) -> Extracted:
    """Encode a catalogue into a store on disk, see `extract_to_store`.

    Args:
        path: folder of the store.
        vocabulary: the item ids.
        modalities: raw values by position, counted from 0, and their extractors.
        dtype: storage dtype of the tokens.
        shard_items: items per file; None = chosen from the number of items.
        progress: whether to show progress bars.
        engine: writes the files; None = the processes that call this function.

    Returns:
        The tokens of these items, in the order of `vocabulary`, read from the store on demand.

    Raises:
        ValueError: see `extract_to_store`.
        OSError: if writing fails.
    """
    check_dtype(dtype)
    if shard_items is not None:
        shard_items = whole_number("shard_items", shard_items, instead=", or None")
    folder = user_path(path).absolute()
    extract_to_store(
        folder,
        vocabulary,
        modalities,
        dtype=dtype,
        shard_items=shard_items,
        progress=progress,
        engine=engine,
    )
    opened = read_store(folder)
    for name, (values, extractor, _) in modalities.items():
        bad = {i: r for i, r in opened.report.problems[name].items() if i in vocabulary}
        warn_of_problems(bad, len(values), extractor.unit)
    if opened.vocabulary == vocabulary:
        return opened
    rows = torch.tensor([0, *opened.vocabulary.rows(vocabulary)])
    chosen = {name: tokens.select(rows) for name, tokens in opened.modalities.items()}
    return opened._replace(vocabulary=vocabulary, modalities=chosen, part=True)


def read_store(folder: Path) -> Extracted:
    """Open a store.

    Args:
        folder: folder of the store.

    Returns:
        The tokens of all items in it.

    Raises:
        FileNotFoundError: if the folder has no store.
        ValueError: if the store is incomplete or damaged.
    """
    opened: OpenedStore = open_store(folder)
    dtype = getattr(torch, opened.manifest.dtype)
    provenance = {
        name: _described(opened.manifest.provenance[name], tokens, dtype)
        for name, tokens in opened.modalities.items()
    }
    report = read_report(folder)
    return Extracted(opened.vocabulary, dict(opened.modalities), provenance, report, folder)


def _described(
    provenance: Mapping[str, Any], tokens: CatalogueTokens, dtype: torch.dtype
) -> dict[str, Any]:
    return {
        **provenance,
        "tokens": tokens.max_tokens,
        "width": tokens.width,
        "dtype": str(dtype).removeprefix("torch."),
    }


def _with_padding_row(extracted: ExtractedTokens) -> TokensInMemory:
    tokens, lengths = extracted.tokens, extracted.lengths
    return TokensInMemory(
        torch.cat([torch.zeros_like(tokens[:1]), tokens]),  # (N, T, d) -> (N + 1, T, d)
        torch.cat([torch.zeros_like(lengths[:1]), lengths]),
    )
