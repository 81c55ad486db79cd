"""Film datasets with texts and posters: cached features, sequences, and a popularity baseline.

A folder contains `items.parquet` (item_id, text), `interactions.parquet` (user_id, item_id,
timestamp) and `images/<item_id>.jpg`; some items may have no image.
"""

from collections.abc import Callable, Container
from pathlib import Path
from typing import Any

import torch

from odmt_sdk import Interactions, ItemFeatures
from odmt_sdk.data import RankingDataset, Split, read_columns
from odmt_sdk.evaluation import target_ranks

# The published encoders. The provenance names them, whatever folder they were loaded from.
ENCODERS = {
    "text": "sentence-transformers/all-MiniLM-L6-v2",
    "image": "facebook/deit-tiny-patch16-224",
}
# One token per modality: the mean of the text tokens, and the first image token.
TEXTS: dict[str, Any] = {"text_pooling": "mean", "text_pooled_only": True, "max_text_tokens": 128}
PICTURES: dict[str, Any] = {"max_image_tokens": 1}


def film_table(folder: Path, *columns: str) -> dict[str, Any]:
    """Read the films of a folder.

    Args:
        folder: folder of the dataset.
        *columns: columns to read in addition to "item_id" and "text".

    Returns:
        Column -> values; "image" -> path of the picture, None if there is none.
    """
    table = read_columns(folder / "items.parquet", ["item_id", "text", *columns])
    pictures = [folder / "images" / f"{item_id}.jpg" for item_id in table["item_id"]]
    return {**table, "image": [picture if picture.exists() else None for picture in pictures]}


def film_features(
    folder: Path,
    encoders: dict[str, str],
    cache: Path,
    *,
    shorten: Callable[[str], str] | None = None,
) -> ItemFeatures:
    """Load the features of a folder's films; they are extracted on first use.

    Args:
        folder: folder of the dataset.
        encoders: "text", and "image" to have pictures too -> folder or Hub name of the encoder.
        cache: folder for the cached features.
        shorten: function that shortens each text; the features then have no images.

    Returns:
        The features, whose provenance names the published encoders.
    """
    path = cache / (folder.name + (f"-{shorten.__name__}" if shorten else ""))
    if path.is_dir():
        features = ItemFeatures.open(path)
    else:
        films = film_table(folder)
        settings: dict[str, Any] = {**TEXTS, "text_encoder": encoders["text"]}
        if shorten is None and "image" in encoders:
            settings |= {**PICTURES, "image_encoder": encoders["image"]}
        else:
            del films["image"]
        if shorten is not None:
            films["text"] = [text and shorten(text) for text in films["text"]]
        features = ItemFeatures.from_items(films, path=path, **settings)
    kept = {name: features[name] for name in features.modalities}
    in_memory = ItemFeatures(features.vocabulary, kept)
    in_memory.provenance = {
        name: {**about, "encoder": ENCODERS[name]} for name, about in features.provenance.items()
    }
    return in_memory


def film_interactions(folder: Path, *, without: Container[Any] = ()) -> Interactions:
    """Load the interactions of users and films that have at least 5, in chronological order.

    Args:
        folder: folder of the dataset.
        without: films to remove first.

    Returns:
        The interactions.
    """
    interactions = Interactions.from_table(folder / "interactions.parquet")
    kept = [item_id for item_id in interactions.item_ids if item_id not in without]
    return interactions.keep_items(kept).k_core(5)


def popularity_ranks(split: Split, dataset: RankingDataset) -> torch.Tensor:
    """Rank each target by training popularity among the items that the user has not seen.

    Args:
        split: the split whose training part is counted.
        dataset: its validation or test queries.

    Returns:
        (Q,) ranks; films with equal counts are ordered by row.
    """
    order = split.item_counts.argsort(descending=True, stable=True)  # (N + 1,)
    scores = torch.empty(len(order)).index_copy_(0, order, -torch.arange(float(len(order))))
    return target_ranks(
        torch.ones(len(dataset), 1),
        scores[:, None],
        dataset.targets,
        excluded=[query["seen_ids"] for query in dataset],
    )
