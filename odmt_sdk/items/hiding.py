"""Hiding what items show while training, so that the rest learns to stand for them.

Letters: U items, M modalities.
"""

from collections.abc import Mapping

import torch

from odmt_sdk.items.modality import ModalityTokens


def choose_hidden(
    present: torch.Tensor, *, modality_dropout: float, id_dropout: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw which modalities and which IDs of some items are hidden.

    The ID of an item without any content is never hidden; where an item would lose its ID and all
    of its content, the content stays.

    Args:
        present: (U, M) bool, which modalities each item has.
        modality_dropout: probability of each modality of an item.
        id_dropout: probability of an item's ID.

    Returns:
        Hidden modalities (U, M) and hidden IDs (U,), bool. Nothing is drawn for a probability of 0.
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
        modality_dropout: probability of each modality of an item.
        id_dropout: probability of an item's ID.

    Returns:
        The features, where a hidden modality has length 0, and whose IDs are hidden (U,), bool.
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
