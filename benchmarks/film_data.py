"""Films with texts and posters: features kept on disk, sequences, and what is new elsewhere.

A folder holds `items.parquet` (item_id, text), `interactions.parquet` (user_id, item_id, timestamp)
and `images/<item_id>.jpg`, which some items may lack.
"""

import dataclasses
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any

import numpy as np
import torch

from odmt_sdk import Interactions, ItemFeatures, leave_one_out
from odmt_sdk.data.sequences import RankingDataset, SequenceDataset
from odmt_sdk.data.splits import Split
from odmt_sdk.evaluation.ranks import target_ranks
from odmt_sdk.tables import read_columns

# The published models, whatever folder they are read from: features of both come from these.
ENCODERS = {
    "text": "sentence-transformers/all-MiniLM-L6-v2",
    "image": "facebook/deit-tiny-patch16-224",
}
# One token a modality: the mean of the text's, and the picture's first.
TEXTS: dict[str, Any] = {"text_pooling": "mean", "text_pooled_only": True, "max_text_tokens": 128}
PICTURES: dict[str, Any] = {"max_image_tokens": 1}


def film_table(folder: Path, *columns: str) -> dict[str, Any]:
    """The films of a folder.

    Args:
        folder: the data set.
        *columns: to read beside "item_id" and "text".

    Returns:
        Column -> values, and "image" -> the picture's path, None where there is none.
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
    """Features of a folder's films, extracted the first time.

    Args:
        folder: the data set.
        encoders: "text" and "image" -> folder or Hub name.
        cache: where features are kept.
        shorten: what to take of each text; then there are no pictures.

    Returns:
        The features, whose provenance names the published encoders.
    """
    path = cache / (folder.name + (f"-{shorten.__name__}" if shorten else ""))
    if path.is_dir():
        features = ItemFeatures.open(path)
    else:
        films = film_table(folder)
        settings: dict[str, Any] = {**TEXTS, "text_encoder": encoders["text"]}
        if shorten is None:
            settings |= {**PICTURES, "image_encoder": encoders["image"]}
        else:
            del films["image"]
            films["text"] = [text and shorten(text) for text in films["text"]]
        features = ItemFeatures.from_items(films, path=path, **settings)
    kept = {name: features[name] for name in features.modalities}
    in_memory = ItemFeatures(features.vocabulary, kept)
    in_memory.provenance = {
        name: {**about, "encoder": ENCODERS[name]} for name, about in features.provenance.items()
    }
    return in_memory


def film_interactions(folder: Path, *, without: Container[Any] = ()) -> Interactions:
    """Interactions of users and films with at least 5, in order.

    Args:
        folder: the data set.
        without: films to leave out first.

    Returns:
        The interactions.
    """
    interactions = Interactions.from_table(folder / "interactions.parquet")
    kept = [item_id for item_id in interactions.item_ids if item_id not in without]
    return interactions.keep_items(kept).k_core(5)


def split_in_windows(
    interactions: Interactions, features: ItemFeatures, positions: int
) -> tuple[Split, ItemFeatures]:
    """Leave-one-out, trained on whole histories, cut into windows.

    Args:
        interactions: of all users.
        features: of at least their items.
        positions: the most a model reads; a window has one item more.

    Returns:
        The split, and features in the order of its vocabulary.
    """
    features = features.select(interactions.item_ids)
    split = leave_one_out(interactions, vocabulary=features.vocabulary, max_seq_length=positions)
    whole = leave_one_out(
        interactions, vocabulary=features.vocabulary, max_seq_length=len(interactions)
    )
    return dataclasses.replace(split, train=windows(whole.train, positions)), features


def windows(sequences: SequenceDataset, positions: int) -> SequenceDataset:
    """Cut sequences into pieces of `positions + 1` items that overlap by one, from the end.

    The item two pieces share is predicted in the first and read in the second, so every item of a
    sequence but its first is predicted once.

    Args:
        sequences: whole ones.
        positions: inputs of a piece at most.

    Returns:
        The pieces; only the first of a sequence may be shorter.
    """
    pieces: list[np.ndarray] = []
    for index in range(len(sequences)):
        rows = sequences[index]["item_ids"].numpy()
        for end in range(len(rows), 1, -positions):
            pieces.append(rows[max(0, end - positions - 1) : end])
    offsets = np.cumsum([0, *map(len, pieces)])
    return SequenceDataset(np.concatenate(pieces), offsets, max_seq_length=positions)


def popularity_ranks(split: Split, dataset: RankingDataset) -> torch.Tensor:
    """Rank each target by training interactions, among what its user has not seen.

    Args:
        split: whose training part is counted.
        dataset: its validation or test queries.

    Returns:
        (Q,) ranks; films of equal counts stand in the order of their rows.
    """
    order = split.item_counts.argsort(descending=True, stable=True)  # (N + 1,)
    scores = torch.empty(len(order)).index_copy_(0, order, -torch.arange(float(len(order))))
    return target_ranks(
        torch.ones(len(dataset), 1),
        scores[:, None],
        dataset.targets,
        excluded=[query["seen_ids"] for query in dataset],
    )
