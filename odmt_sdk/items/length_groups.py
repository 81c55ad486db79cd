"""Encodes items of similar length together, to reduce padding.

Letters: U items, T tokens of one item, d feature width, D hidden size.
"""

from collections.abc import Mapping

import torch

from odmt_sdk.features.modality import ModalityTokens
from odmt_sdk.items.embedder import ItemEmbedder

MAX_GROUPS = 4  # more groups save little additional padding
MIN_ITEMS = 32  # per group; smaller groups are no faster even if their items are short
WORTHWHILE = 0.05  # share of all tokens that grouping must save


def encode_by_length(
    encoder: ItemEmbedder, item_ids: torch.Tensor, features: Mapping[str, ModalityTokens]
) -> dict[str, torch.Tensor]:
    """Encode items in groups of similar length; each group is cut to its longest item.

    The embeddings equal `encoder(item_ids, features)`. On devices other than the CPU, all items
    form one group: reading their lengths would force a synchronization, and small groups do not use
    a GPU fully.

    Args:
        encoder: encodes items.
        item_ids: (U,) rows.
        features: modality -> tokens (U, T, d) and lengths (U,).

    Returns:
        Source -> (U, D).
    """
    groups = _groups(features) if item_ids.device.type == "cpu" else []
    if len(groups) < 2:
        return encoder(item_ids, features)
    parts = [encoder(item_ids[group], _cut(features, group)) for group in groups]
    order = torch.cat(groups).argsort()
    return {source: torch.cat([part[source] for part in parts])[order] for source in parts[0]}


def _groups(features: Mapping[str, ModalityTokens]) -> list[torch.Tensor]:
    """Positions (U',) of the items of each group; empty if grouping would save little."""
    lengths = torch.stack([part.lengths for part in features.values()])  # (modalities, U)
    number = min(MAX_GROUPS, lengths.shape[1] // MIN_ITEMS)
    if number < 2:
        return []
    order = lengths.sum(0).argsort(stable=True)
    groups = list(order.tensor_split(number))
    together = lengths.amax(1).sum() * lengths.shape[1]
    apart = sum(lengths[:, group].amax(1).sum() * len(group) for group in groups)
    return groups if float(apart) < (1 - WORTHWHILE) * float(together) else []


def _cut(features: Mapping[str, ModalityTokens], group: torch.Tensor) -> dict[str, ModalityTokens]:
    """The features of a group, cut to its longest item."""
    cut = {}
    for name, (tokens, lengths) in features.items():
        taken = lengths[group]
        longest = max(1, int(taken.max()))
        cut[name] = ModalityTokens(tokens[:, :longest].index_select(0, group), taken)
    return cut
