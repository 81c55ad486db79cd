"""Items that are added to a trained model: their checks, and their rows in a table of IDs."""

from collections.abc import Mapping

import torch
from torch import nn

from odmt_sdk.features.feature_set import FeatureSet
from odmt_sdk.items.embedder import GrowingItemEmbedder, ItemEmbedder
from odmt_sdk.vocabulary import ItemVocabulary

SHOWN = 3


def check_new_items(
    new: FeatureSet,
    vocabulary: ItemVocabulary,
    widths: Mapping[str, int],
    encoder: ItemEmbedder,
) -> GrowingItemEmbedder:
    """Raise unless a model can represent new items by their features.

    Args:
        new: features of the new items.
        vocabulary: the items of the model.
        widths: modality -> feature width, as the model reads them.
        encoder: its item encoder.

    Returns:
        The item encoder, typed as one that can grow.

    Raises:
        ValueError: if the encoder reads IDs alone or cannot grow, an id is in the vocabulary, or
            modalities or widths differ.
    """
    if not encoder.modalities:
        raise ValueError(
            "this model represents items only by their IDs, so new items cannot be added: train a "
            "model with item_features="
        )
    if not isinstance(encoder, GrowingItemEmbedder):
        raise ValueError(
            f"{type(encoder).__name__} cannot represent items without training interactions: "
            "define the methods set_unseen and add_items of GrowingItemEmbedder"
        )
    if new.widths != dict(widths):
        raise ValueError(
            f"the model reads features {dict(widths)} (values per token), but the new items have "
            f"{new.widths}: extract them with the encoders of the old items. If items lack a "
            "modality, give it length 0"
        )
    known = [item_id for item_id in new.vocabulary if item_id in vocabulary]
    if known:
        raise ValueError(
            f"{len(known)} of the {len(new.vocabulary)} items are already in the catalogue: "
            f"{', '.join(map(repr, known[:SHOWN]))}{', ...' if len(known) > SHOWN else ''}; leave "
            "them out with item_features.select(...)"
        )
    return encoder


def append_rows(table: nn.Embedding, row: torch.Tensor, count: int) -> None:
    """Append equal rows to a table of embeddings.

    The weight becomes a new parameter: optimizers made before do not update it.

    Args:
        table: embeddings of width D.
        row: (D,).
        count: how many times to append it.
    """
    weight = table.weight
    new = row.detach().to(weight).expand(count, -1)
    grown = torch.cat([weight.detach(), new])
    table.weight = nn.Parameter(grown, requires_grad=weight.requires_grad)
    table.num_embeddings += count
