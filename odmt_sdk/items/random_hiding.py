"""Hides modalities and IDs of items during training, so that the model learns to do without them.

Letters: U items, M modalities.
"""

from collections.abc import Mapping

import torch

from odmt_sdk.features.modality import ModalityTokens


def choose_hidden(
    present: torch.Tensor, *, modality_dropout: float, id_dropout: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose at random which modalities and IDs of some items are hidden.

    The ID of an item without content is never hidden. If an item would lose its ID and all of its
    content, the content is kept.

    Args:
        present: (U, M) bool, True = the item has the modality.
        modality_dropout: probability of hiding a modality of an item.
        id_dropout: probability of hiding an item's ID.

    Returns:
        Hidden modalities (U, M) and hidden IDs (U,), bool. No random numbers are drawn for a
        probability of 0.
    """
    hidden, hidden_ids = torch.zeros_like(present), present.new_zeros(len(present))
    if id_dropout > 0:
        drawn = torch.rand(len(present), device=present.device) < id_dropout
        hidden_ids = drawn & present.any(1)
    if modality_dropout > 0:
        hidden = present & (torch.rand(present.shape, device=present.device) < modality_dropout)
        nothing_left = hidden_ids & (hidden == present).all(1)
        hidden = hidden & ~nothing_left[:, None]
    return hidden, hidden_ids


def hide(
    features: Mapping[str, ModalityTokens], *, modality_dropout: float, id_dropout: float
) -> tuple[Mapping[str, ModalityTokens], torch.Tensor]:
    """Hide modalities and IDs of some items, drawn by `choose_hidden`.

    Args:
        features: modality -> tokens of U items; at least one modality.
        modality_dropout: probability of hiding a modality of an item.
        id_dropout: probability of hiding an item's ID.

    Returns:
        The features, in which hidden modalities have length 0, and a mask (U,) of the hidden IDs.
    """
    present = torch.stack([tokens.lengths > 0 for tokens in features.values()], dim=1)
    hidden, hidden_ids = choose_hidden(
        present, modality_dropout=modality_dropout, id_dropout=id_dropout
    )
    left = {
        name: ModalityTokens(tokens, lengths.masked_fill(gone, 0))
        for (name, (tokens, lengths)), gone in zip(features.items(), hidden.unbind(1), strict=True)
    }
    return left, hidden_ids
