"""What must be true of items that are added to a trained model."""

from collections.abc import Mapping

from odmt_sdk.items.feature_set import FeatureSet
from odmt_sdk.items.fusion import GrowingItemEmbedder, ItemEmbedder
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
        vocabulary: the items it has.
        widths: modality -> feature width, as it reads them.
        encoder: its item encoder.

    Returns:
        The item encoder, as one that can grow.

    Raises:
        ValueError: if it knows items by their IDs alone or cannot grow, an id is known already, or
            modalities or widths differ.
    """
    if not encoder.modalities:
        raise ValueError(
            "this model knows items by their IDs alone and can say nothing of new ones: train one "
            "with item_features="
        )
    if not isinstance(encoder, GrowingItemEmbedder):
        raise ValueError(
            f"{type(encoder).__name__} cannot represent items that training never saw: give it the "
            "methods set_unseen and add_items of GrowingItemEmbedder"
        )
    if new.widths != dict(widths):
        raise ValueError(
            f"the model reads features {dict(widths)} (values per token), the new items have "
            f"{new.widths}: extract them with the encoders of the old ones. Where items lack a "
            "modality, give it length 0"
        )
    known = [item_id for item_id in new.vocabulary if item_id in vocabulary]
    if known:
        raise ValueError(
            f"{len(known)} of the {len(new.vocabulary)} items are in the catalogue already: "
            f"{', '.join(map(repr, known[:SHOWN]))}{', ...' if len(known) > SHOWN else ''}; leave "
            "them out with item_features.select(...)"
        )
    return encoder
