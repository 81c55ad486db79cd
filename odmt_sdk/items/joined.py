"""Several feature sets as one, so that a catalogue can grow.

Letters: N items, T tokens of one item, d feature width, U items asked for.
"""

from collections.abc import Hashable, Iterable
from itertools import chain
from typing import Any, Self

import torch

from odmt_sdk.items.feature_set import FeatureSet
from odmt_sdk.items.modality import ModalityTokens
from odmt_sdk.vocabulary import ItemVocabulary


class JoinedFeatures:
    """Reads from several feature sets as if they were one; nothing is copied.

    Use it where `ItemFeatures` go. `model.add_items` makes one by itself.

    Args:
        *parts: features of different items, in the same modalities and widths.

    Attributes:
        provenance: how the tokens of the first part were made, see `ItemFeatures`.

    Raises:
        ValueError: if nothing is given, modalities or widths differ, or an item is in two parts.

    Examples:
        >>> from odmt_sdk import ItemFeatures
        >>> old = ItemFeatures.from_tensors(item_ids=["a", "b"], text=torch.randn(3, 7, 16))
        >>> new = ItemFeatures.from_tensors(item_ids=["c"], text=torch.randn(2, 4, 16))
        >>> features = JoinedFeatures(old, new)
        >>> features
        JoinedFeatures(3 items of 2 parts; {'text': 16})
        >>> features.gather(torch.tensor([3]))["text"].tokens.shape
        torch.Size([1, 4, 16])
    """

    def __init__(self, *parts: FeatureSet) -> None:
        if not parts:
            raise ValueError("nothing to join: give at least one feature set")
        self.vocabulary = ItemVocabulary(chain.from_iterable(part.vocabulary for part in parts))
        self._widths = dict(parts[0].widths)
        self.provenance: dict[str, dict[str, Any]] = dict(getattr(parts[0], "provenance", {}))
        self._parts: list[FeatureSet] = []
        self._owner = torch.zeros(1, dtype=torch.long)  # (N + 1,) the part that has an item
        self._local = torch.zeros(1, dtype=torch.long)  # (N + 1,) the item's row in it
        for part in parts:
            if part.widths != self._widths:
                raise ValueError(
                    f"features {self._widths} and {part.widths} (values per token) cannot be "
                    "joined: extract both with the same encoders. Where items lack a modality, "
                    "give it length 0"
                )
            # joined features are taken apart again, so that catalogues may grow many times
            if isinstance(part, JoinedFeatures):
                inner, owner, local = part._parts, part._owner[1:], part._local[1:]
            else:
                local = torch.arange(1, len(part.vocabulary) + 1)
                inner, owner = [part], torch.zeros_like(local)
            self._owner = torch.cat([self._owner, owner + len(self._parts)])
            self._local = torch.cat([self._local, local])
            self._parts += inner

    @property
    def num_items(self) -> int:
        """N."""
        return len(self.vocabulary)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities, in order."""
        return tuple(self._widths)

    @property
    def widths(self) -> dict[str, int]:
        """Modality -> feature width d."""
        return dict(self._widths)

    def __repr__(self) -> str:
        return f"JoinedFeatures({self.num_items} items of {len(self._parts)} parts; {self._widths})"

    def select(self, item_ids: Iterable[Hashable]) -> Self:
        """Join to another list of items by id.

        Args:
            item_ids: the ids wanted, each among the features' own.

        Returns:
            Features whose rows follow `item_ids`.

        Raises:
            ValueError: if an id has no features, or stands twice.
        """
        vocabulary = ItemVocabulary(item_ids)
        rows = torch.tensor([0, *self.vocabulary.rows(vocabulary)])
        selected = type(self).__new__(type(self))
        selected.vocabulary, selected._widths = vocabulary, self._widths
        selected.provenance = self.provenance
        selected._parts = self._parts
        selected._owner, selected._local = self._owner[rows], self._local[rows]
        return selected

    def gather(self, rows: torch.Tensor) -> dict[str, ModalityTokens]:
        """Read some rows, cut to the longest of them.

        Args:
            rows: (U,) rows in 0..N, on any device.

        Returns:
            Modality -> tokens (U, T', d) and lengths (U,) on the device of `rows`.
        """
        here = rows.cpu()
        owner, local = self._owner[here], self._local[here].to(rows.device)
        found = []  # places (U',) of a part's items among `rows`, and their tokens
        for index, part in enumerate(self._parts):
            places = (owner == index).nonzero().squeeze(1).to(rows.device)
            if len(places) == len(rows):
                return part.gather(local)
            if len(places):
                found.append((places, part.gather(local[places])))
        return {
            name: _scatter(len(rows), [(places, tokens[name]) for places, tokens in found])
            for name in self._widths
        }


def _scatter(size: int, pieces: list[tuple[torch.Tensor, ModalityTokens]]) -> ModalityTokens:
    """Tokens (U', T', d) of several parts to the places of their items, (size, T, d)."""
    first = pieces[0][1]
    dtype = first.tokens.dtype
    for _, piece in pieces:
        dtype = torch.promote_types(dtype, piece.tokens.dtype)
    longest = max(piece.tokens.shape[1] for _, piece in pieces)
    tokens = first.tokens.new_zeros(size, longest, first.tokens.shape[2], dtype=dtype)
    lengths = first.lengths.new_zeros(size)
    for places, piece in pieces:
        tokens[places, : piece.tokens.shape[1]] = piece.tokens.to(dtype)
        lengths[places] = piece.lengths.to(lengths.dtype)
    return ModalityTokens(tokens, lengths)
