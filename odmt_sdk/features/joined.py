"""Several feature sets combined into one, so that a catalogue can grow.

Letters: N items, T tokens of one item, d feature width, U items asked for.
"""

from collections.abc import Hashable, Iterable, Sequence
from functools import partial
from itertools import chain
from typing import Any, Self

import torch

from odmt_sdk.features.feature_set import FeatureSet
from odmt_sdk.features.modality import ModalityTokens
from odmt_sdk.features.preparation import Preparation, prepare_like
from odmt_sdk.vocabulary import ItemVocabulary


class JoinedFeatures:
    """Combines several feature sets into one without copying tokens.

    Use it wherever `ItemFeatures` are accepted. `model.add_items` creates one automatically.

    Args:
        *parts: features of disjoint sets of items, with the same modalities and widths.

    Attributes:
        provenance: how the tokens of the first part were made, see `ItemFeatures`.
        moments: the moments used to standardize them, see `ItemFeatures`.

    Raises:
        ValueError: if no part is given, modalities or widths differ, an item is in two parts, or
            the parts were prepared differently.

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
        self._join(parts, compare=True)

    @classmethod
    def of_prepared(cls, *parts: FeatureSet) -> Self:
        """Join features without comparing how they were prepared; see the class."""
        joined = cls.__new__(cls)
        joined._join(parts, compare=False)
        return joined

    def _join(self, parts: Sequence[FeatureSet], *, compare: bool) -> None:
        self.vocabulary = ItemVocabulary(chain.from_iterable(part.vocabulary for part in parts))
        self._widths = dict(parts[0].widths)
        prepared = Preparation.of(parts[0])
        self.provenance: dict[str, Any] = dict(prepared.provenance)
        self.moments: dict[str, torch.Tensor] = dict(prepared.moments)
        self._parts: list[FeatureSet] = []
        self._owner = torch.zeros(1, dtype=torch.long)  # (N + 1,) index of the item's part
        self._local = torch.zeros(1, dtype=torch.long)  # (N + 1,) row of the item in that part
        for part in parts:
            if part.widths != self._widths:
                raise ValueError(
                    f"features {self._widths} and {part.widths} (values per token) cannot be "
                    "joined: extract both with the same encoders. Where items lack a modality, "
                    "give it length 0"
                )
            like = partial(prepare_like, expected=prepared, reader="the first part", stacklevel=4)
            if compare and like(part) is not part:
                raise ValueError(
                    "some parts were standardized and others not: join features as they come from "
                    "the encoder, or standardize the others with features.standardize(like=...)"
                )
            # flatten nested joins, so that a catalogue can grow many times
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
        """Number of items N, without padding."""
        return len(self.vocabulary)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities, in order."""
        return tuple(self._widths)

    @property
    def versions(self) -> tuple[int, ...]:
        """Counters that increase when tokens in memory are changed in place."""
        return tuple(chain.from_iterable(getattr(part, "versions", ()) for part in self._parts))

    @property
    def widths(self) -> dict[str, int]:
        """Modality -> feature width d."""
        return dict(self._widths)

    def __repr__(self) -> str:
        return f"JoinedFeatures({self.num_items} items of {len(self._parts)} parts; {self._widths})"

    def select(self, item_ids: Iterable[Hashable]) -> Self:
        """Select items by id.

        Args:
            item_ids: ids of the items to keep; all of them must have features.

        Returns:
            Features whose rows are in the order of `item_ids`.

        Raises:
            ValueError: if an id has no features, or is repeated.
        """
        vocabulary = ItemVocabulary(item_ids)
        rows = torch.tensor([0, *self.vocabulary.rows(vocabulary)])
        selected = type(self).__new__(type(self))
        selected.vocabulary, selected._widths = vocabulary, self._widths
        selected.provenance, selected.moments = self.provenance, self.moments
        selected._parts = self._parts
        selected._owner, selected._local = self._owner[rows], self._local[rows]
        return selected

    def standardize(self, *, like: object) -> Self:
        """Standardize every feature with the moments of a model or of other features.

        Args:
            like: a model or features, see `ItemFeatures.standardize`.

        Returns:
            New joined features.

        Raises:
            ValueError: if a part has no `standardize` method, or see `ItemFeatures.standardize`.
        """
        standard = type(self).__new__(type(self))
        standard.__dict__.update(self.__dict__)
        standard._parts = []
        for part in self._parts:
            if not hasattr(part, "standardize"):
                raise ValueError(f"a part of type {type(part).__name__} cannot be standardized")
            standard._parts.append(part.standardize(like=like))
        prepared = Preparation.of(standard._parts[0])
        standard.provenance, standard.moments = dict(prepared.provenance), dict(prepared.moments)
        return standard

    def gather(self, rows: torch.Tensor) -> dict[str, ModalityTokens]:
        """Read the tokens of some rows, padded to the longest of them.

        Args:
            rows: (U,) rows in 0..N, on any device.

        Returns:
            Modality -> tokens (U, T', d) and lengths (U,), on the device of `rows`.
        """
        here = rows.cpu()
        owner, local = self._owner[here], self._local[here].to(rows.device)
        found = []  # for each part: positions (U',) in `rows`, and the tokens that belong there
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
    """Scatter the tokens (U', T', d) of several parts into one tensor (size, T, d)."""
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
