"""From a table of items to tokens, in memory or in a store."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from odmt_sdk.items.array_tokens import ArrayExtractor, present_arrays
from odmt_sdk.items.catalogue_tokens import CatalogueTokens, TokensInMemory
from odmt_sdk.items.extraction import ExtractedTokens, check_dtype, collect, warn_of_problems
from odmt_sdk.items.image_tokens import ImageExtractor
from odmt_sdk.items.modality import check_name
from odmt_sdk.items.pictures import present_pictures
from odmt_sdk.items.report import ExtractionReport
from odmt_sdk.items.store.extract import RawModality, extract_to_store
from odmt_sdk.items.store.opening import OpenedStore, open_store, read_report
from odmt_sdk.items.text_tokens import TextExtractor, present_texts
from odmt_sdk.tables import Table, read_columns
from odmt_sdk.vocabulary import ItemVocabulary


class Extracted(NamedTuple):
    """Tokens of a catalogue, and where they come from.

    Args:
        vocabulary: the item ids.
        modalities: modality -> tokens.
        provenance: modality -> encoder, revision, tokens, width, pooling, ...
        report: what could not be read.
    """

    vocabulary: ItemVocabulary
    modalities: dict[str, CatalogueTokens]
    provenance: dict[str, dict[str, Any]]
    report: ExtractionReport


def read_items(
    items: Table,
    *,
    item_id: str,
    text: tuple[str, Mapping[str, Any]] | None,
    image: tuple[str, Mapping[str, Any]] | None,
    arrays: Mapping[str, Any],
) -> tuple[ItemVocabulary, dict[str, RawModality]]:
    """Read what is to be encoded out of a table, and load the encoders.

    Args:
        items: any table that `read_columns` takes.
        item_id: name of the column of item ids.
        text: name of the column of texts and the arguments of `TextExtractor`; None = no texts.
        image: the same for pictures and `ImageExtractor`.
        arrays: modality -> name of a column of arrays, or the arrays themselves.

    Returns:
        The item ids, and modality -> raw values by position and their extractor.

    Raises:
        ValueError: if nothing is to be encoded, a name is taken or not allowed, or see
            `read_columns`, `present_texts`, `present_pictures`, `present_arrays`.
    """
    if text is None and image is None and not arrays:
        raise ValueError("no encoder given: pass text_encoder=, image_encoder= or arrays=")
    for name in arrays:
        check_name(name)
        if (name == "text" and text) or (name == "image" and image):
            raise ValueError(f"{name!r} is both encoded and among arrays=; choose another name")
    columns = [column for column, _ in filter(None, (text, image))]
    columns += [given for given in arrays.values() if isinstance(given, str)]
    table = read_columns(items, [item_id, *columns])
    vocabulary = ItemVocabulary(table[item_id].tolist())
    modalities: dict[str, RawModality] = {}
    if text is not None:
        texts = present_texts(table[text[0]].tolist())
        modalities["text"] = RawModality(texts, TextExtractor(**text[1]))
    if image is not None:
        pictures = present_pictures(table[image[0]].tolist())
        modalities["image"] = RawModality(pictures, ImageExtractor(**image[1]))
    for name, given in arrays.items():
        given = table[given] if isinstance(given, str) else given
        values = present_arrays(name, given, len(vocabulary))
        modalities[name] = RawModality(values, ArrayExtractor(name))
    return vocabulary, modalities


def extract_in_memory(
    vocabulary: ItemVocabulary,
    modalities: Mapping[str, RawModality],
    *,
    dtype: torch.dtype,
    progress: bool,
) -> Extracted:
    """Encode a catalogue into tensors.

    Args:
        vocabulary: the item ids.
        modalities: raw values by position, from 0, and their extractors.
        dtype: of the tokens.
        progress: whether to show progress bars.

    Returns:
        The tokens of all items.

    Raises:
        ValueError: if no item has one of the modalities, or tokens cannot be stored in that type.
    """
    check_dtype(dtype)
    tokens: dict[str, CatalogueTokens] = {}
    provenance, present, problems = {}, {}, {}
    for name, (values, extractor) in modalities.items():
        extracted = collect(
            extractor, values, num_items=len(vocabulary), dtype=dtype, progress=progress
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
) -> Extracted:
    """Encode a catalogue into a store, see `extract_to_store`.

    Args:
        path: folder of the store.
        vocabulary: the item ids.
        modalities: raw values by position, from 0, and their extractors.
        dtype: of the tokens.
        shard_items: items per file; None = chosen by their number.
        progress: whether to show progress bars.

    Returns:
        The tokens of these items, in their order, read from the store.

    Raises:
        ValueError: see `extract_to_store`.
        OSError: if writing fails.
    """
    check_dtype(dtype)
    if shard_items is not None and shard_items < 1:
        raise ValueError(f"shard_items={shard_items} must be at least 1, or None")
    folder = Path(path)
    extract_to_store(
        folder, vocabulary, modalities, dtype=dtype, shard_items=shard_items, progress=progress
    )
    opened = read_store(folder)
    for name, (values, extractor) in modalities.items():
        bad = {i: r for i, r in opened.report.problems[name].items() if i in vocabulary}
        warn_of_problems(bad, len(values), extractor.unit)
    if opened.vocabulary == vocabulary:
        return opened
    rows = torch.tensor([0, *opened.vocabulary.rows(vocabulary)])
    chosen = {name: tokens.select(rows) for name, tokens in opened.modalities.items()}
    return opened._replace(vocabulary=vocabulary, modalities=chosen)


def read_store(folder: Path) -> Extracted:
    """Open a store.

    Args:
        folder: of the store.

    Returns:
        The tokens of all items in it.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is not complete, or damaged.
    """
    opened: OpenedStore = open_store(folder)
    dtype = getattr(torch, opened.manifest.dtype)
    provenance = {
        name: _described(opened.manifest.provenance[name], tokens, dtype)
        for name, tokens in opened.modalities.items()
    }
    return Extracted(opened.vocabulary, dict(opened.modalities), provenance, read_report(folder))


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
