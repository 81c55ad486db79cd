"""The data of the comparison: split, features cached on disk, and groups of targets.

A folder holds `items.parquet` (item_id, text), `interactions.parquet` (user_id, item_id, timestamp)
and `images/<item_id>.jpg`.

Letters: N items, T tokens of one item, d feature width, Q users.
"""

import functools
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from film_data import film_table
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn import functional as F

from odmt_sdk import Interactions, ItemFeatures, ItemVocabulary, leave_one_out
from odmt_sdk.data.splits import Split
from odmt_sdk.items.modality import ModalityTokens

COLD = 5  # fewer training interactions than this
POPULAR_SHARE = 0.1  # of the catalogue, by training interactions


@dataclass(frozen=True)
class DataSettings:
    """How interactions are cut and features made."""

    text_encoder: str
    image_encoder: str
    text_pooling: str
    text_tokens: int
    image_tokens: int
    standardize: bool
    positions: int
    last: int


@dataclass(frozen=True, eq=False)
class Data:
    """A split, and features in the order of its vocabulary."""

    split: Split
    features: ItemFeatures


@functools.cache
def load_data(folder: Path, settings: DataSettings, cache: Path) -> Data:
    """Read a folder; features are extracted the first time and cached.

    Args:
        folder: the data set.
        settings: how to read it.
        cache: where to keep features.

    Returns:
        The data.
    """
    interactions = Interactions.from_table(folder / "interactions.parquet")
    if settings.last:
        interactions = interactions.last(settings.last)
    interactions = interactions.k_core(5)
    features = _features(folder, settings, cache).select(interactions.item_ids)
    if settings.standardize:
        features = features.standardize()
    split = leave_one_out(
        interactions, vocabulary=features.vocabulary, max_seq_length=settings.positions
    )
    return Data(split, features)


def target_groups(targets: torch.Tensor, item_counts: torch.Tensor) -> dict[str, torch.Tensor]:
    """Which targets (Q,) are cold, popular, or warm, which is neither: masks (Q,)."""
    counts = item_counts[1:].sort(descending=True).values
    popular_from = max(int(counts[int(len(counts) * POPULAR_SHARE)]), COLD)
    of_targets = item_counts[targets]
    cold, popular = of_targets < COLD, of_targets >= popular_from
    return {"cold": cold, "warm": ~cold & ~popular, "popular": popular}


def average_neighbours(content: ModalityTokens, budget: int) -> ModalityTokens:
    """Keep the first token, and average the others in runs so that `budget` are left.

    Args:
        content: tokens (N, T, d) and lengths (N,).
        budget: tokens per item, at least 1; no more than T change nothing.

    Returns:
        Tokens (N, budget or fewer, d) and lengths.
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
        extracted = ItemFeatures.from_items(
            film_table(folder),
            text_encoder=settings.text_encoder,
            text_pooling=settings.text_pooling,
            image_encoder=settings.image_encoder,
        )
        _write(extracted, whole)
    features = _read(whole)
    budgets = {"text": settings.text_tokens, "image": settings.image_tokens}
    features = ItemFeatures(
        features.vocabulary,
        {name: average_neighbours(features[name], budgets[name]) for name in budgets},
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
            },
        )
