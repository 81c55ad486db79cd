"""Data of the comparison: split, features cached on disk, and groups of targets.

A folder contains `items.parquet` (item_id, text), `interactions.parquet` (user_id, item_id,
timestamp) and optionally `images/<item_id>.jpg` or `image_codes.parquet` (item_id, and four columns
of codes in 0..255).

Letters: N items, T tokens of one item, d feature width, Q users.
"""

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from film_data import film_table
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn import functional as F

from odmt_sdk import Interactions, ItemFeatures, ItemVocabulary, leave_one_out
from odmt_sdk.data import Split, read_columns
from odmt_sdk.features import ModalityTokens

CODES = "image_codes.parquet"
CODE_COLUMNS = ("c0", "c1", "c2", "c3")
CODE_SIZE = 256
COLD = 5  # items with fewer training interactions are cold
POPULAR_SHARE = 0.1  # share of the catalogue that counts as popular, by training interactions


@dataclass(frozen=True)
class DataSettings:
    """Settings for splitting interactions and creating features."""

    text_encoder: str
    image_encoder: str
    text_pooling: str
    text_tokens: int
    image_tokens: int
    standardize: bool
    positions: int
    last: int
    core: int = 5
    min_user: int | None = None
    windows: str = "all"
    overlap: int = 1


@dataclass(frozen=True, eq=False)
class Data:
    """A split, and the features in the order of its vocabulary."""

    split: Split
    features: ItemFeatures


@functools.cache
def load_data(folder: Path, settings: DataSettings, cache: Path) -> Data:
    """Load a dataset; features are extracted on first use and then cached.

    Args:
        folder: folder of the dataset.
        settings: how to read it.
        cache: folder for the cached features.

    Returns:
        The data.
    """
    interactions = Interactions.from_table(folder / "interactions.parquet")
    if settings.last:
        interactions = interactions.last(settings.last)
    if settings.core > 1:
        interactions = interactions.k_core(settings.core, min_user=settings.min_user)
    elif settings.min_user:
        interactions = interactions.min_length(settings.min_user)
    features = _features(folder, settings, cache).select(interactions.item_ids)
    if settings.standardize:
        features = features.standardize()
    if (folder / CODES).exists():
        features = with_codes(features, read_columns(folder / CODES, ["item_id", *CODE_COLUMNS]))
    split = leave_one_out(
        interactions,
        vocabulary=features.vocabulary,
        max_seq_length=settings.positions,
        windows=settings.windows,  # type: ignore[arg-type]
        overlap=settings.overlap,
    )
    return Data(split, features)


def with_codes(features: ItemFeatures, codes: Mapping[str, Any]) -> ItemFeatures:
    """Add image codes: one token per item, the concatenation of four one-hot vectors.

    A linear layer on such a token is the sum of four code embeddings.

    Args:
        features: features of the other modalities.
        codes: "item_id" and c0..c3, integers in 0..255.

    Returns:
        Features with "image" of width 1024; items without codes have no image.
    """
    known = {item: place for place, item in enumerate(codes["item_id"])}
    tokens = torch.zeros(len(features.vocabulary) + 1, 1, len(CODE_COLUMNS) * CODE_SIZE)
    lengths = torch.zeros(len(tokens), dtype=torch.long)
    for row, item in enumerate(features.vocabulary, 1):
        if item in known:
            places = [
                CODE_SIZE * column + int(codes[name][known[item]])
                for column, name in enumerate(CODE_COLUMNS)
            ]
            tokens[row, 0, places] = 1
            lengths[row] = 1
    kept = {name: features[name] for name in features.modalities}
    return ItemFeatures(features.vocabulary, {**kept, "image": ModalityTokens(tokens, lengths)})


def target_groups(targets: torch.Tensor, item_counts: torch.Tensor) -> dict[str, torch.Tensor]:
    """Masks (Q,) of the targets that are cold, popular, or warm (neither of the two)."""
    counts = item_counts[1:].sort(descending=True).values
    popular_from = max(int(counts[int(len(counts) * POPULAR_SHARE)]), COLD)
    of_targets = item_counts[targets]
    cold, popular = of_targets < COLD, of_targets >= popular_from
    return {"cold": cold, "warm": ~cold & ~popular, "popular": popular}


def average_neighbours(content: ModalityTokens, budget: int) -> ModalityTokens:
    """Keep the first token and average runs of the others, so that at most `budget` remain.

    Args:
        content: tokens (N, T, d) and lengths (N,).
        budget: tokens per item, at least 1; a budget of T or more changes nothing.

    Returns:
        Tokens (N, at most budget, d) and lengths.
    """
    tokens, lengths = content
    if budget >= tokens.shape[1]:
        return content
    if budget == 1:
        return ModalityTokens(tokens[:, :1].clone(), lengths.clamp(max=1))
    run = -(-(tokens.shape[1] - 1) // (budget - 1))
    valid = torch.arange(tokens.shape[1]) < lengths[:, None]  # (N, T)
    others = (tokens * valid[..., None])[:, 1:]
    padding = -others.shape[1] % run
    sums = F.pad(others.float(), (0, 0, 0, padding)).unflatten(1, (-1, run)).sum(2)
    counts = F.pad(valid[:, 1:].float(), (0, padding)).unflatten(1, (-1, run)).sum(2)
    averaged = (sums / counts.clamp(min=1)[..., None]).to(tokens.dtype)
    left = (lengths > 0).long() + -(-(lengths - 1).clamp(min=0) // run)
    return ModalityTokens(torch.cat([tokens[:, :1], averaged], dim=1), left)


def _features(folder: Path, settings: DataSettings, cache: Path) -> ItemFeatures:
    encoders = f"{Path(settings.text_encoder).name}-{settings.text_pooling}"
    whole = cache / f"{folder.name}-{encoders}-{Path(settings.image_encoder).name}.safetensors"
    small = whole.with_stem(f"{whole.stem}-{settings.text_tokens}-{settings.image_tokens}")
    if small.exists():
        return _read(small)
    if not whole.exists():
        items = film_table(folder)
        pictures: dict[str, Any] = {"image_encoder": settings.image_encoder}
        if not settings.image_encoder:
            del items["image"]
            pictures = {}
        extracted = ItemFeatures.from_items(
            items,
            text_encoder=settings.text_encoder,
            text_pooling=settings.text_pooling,
            **pictures,
        )
        _write(extracted, whole)
    features = _read(whole)
    budgets = {"text": settings.text_tokens, "image": settings.image_tokens}
    features = ItemFeatures(
        features.vocabulary,
        {name: average_neighbours(features[name], budgets[name]) for name in features.modalities},
    )
    _write(features, small)
    return features


def _write(features: ItemFeatures, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name in features.modalities:
        tensors[f"{name}.tokens"] = features[name].tokens.contiguous()
        tensors[f"{name}.lengths"] = features[name].lengths.contiguous()
    part = path.with_suffix(".part")
    save_file(tensors, part, metadata={"item_ids": json.dumps(list(features.vocabulary))})
    part.replace(path)


def _read(path: Path) -> ItemFeatures:
    with safe_open(path, framework="pt") as file:
        return ItemFeatures(
            ItemVocabulary(json.loads(file.metadata()["item_ids"])),
            {
                name: ModalityTokens(
                    file.get_tensor(f"{name}.tokens"), file.get_tensor(f"{name}.lengths")
                )
                for name in ("text", "image")
                if f"{name}.tokens" in file.keys()  # noqa: SIM118  # safetensors has no other way
            },
        )
