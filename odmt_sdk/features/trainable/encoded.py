"""Encodes a catalogue with trained encoders and returns plain features."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from odmt_sdk.features.catalogue_tokens import TokensInMemory
from odmt_sdk.features.features import ItemFeatures
from odmt_sdk.features.modality import ModalityTokens
from odmt_sdk.vocabulary import ItemVocabulary

_ITEMS_PER_BATCH = 512


@torch.no_grad()
def encoded_features(
    vocabulary: ItemVocabulary,
    content_tokens: Callable[[torch.Tensor], Mapping[str, ModalityTokens]],
    provenance: Mapping[str, Mapping[str, Any]],
    moments: Mapping[str, torch.Tensor],
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> ItemFeatures:
    """Encode a catalogue once, and keep the tokens in memory.

    Args:
        vocabulary: the N item ids.
        content_tokens: rows (U,) -> modality -> tokens (U, T, d) and lengths (U,).
        provenance: modality -> how its tokens are made.
        moments: modality -> moments (2, d) with which its tokens are already standardized.
        device: device of the rows.
        dtype: dtype of the returned tokens.

    Returns:
        Features of the N items, in the order of `vocabulary`.
    """
    batches = [
        content_tokens(rows)
        for rows in torch.arange(1, len(vocabulary) + 1, device=device).split(_ITEMS_PER_BATCH)
    ]
    features = ItemFeatures(vocabulary, {})
    features.provenance = {name: dict(about) for name, about in provenance.items()}
    for name in batches[0]:
        lengths = torch.cat([batch[name].lengths.cpu() for batch in batches])
        longest = max(batch[name].tokens.shape[1] for batch in batches)
        width = batches[0][name].tokens.shape[2]
        tokens = torch.zeros(len(vocabulary) + 1, longest, width, dtype=dtype)
        start = 1
        for batch in batches:
            found = batch[name].tokens
            tokens[start : start + len(found), : found.shape[1]] = found.to("cpu", dtype)
            start += len(found)
        lengths = torch.cat([lengths.new_zeros(1), lengths])
        features._modalities[name] = TokensInMemory(tokens, lengths, moments.get(name))
    return features
