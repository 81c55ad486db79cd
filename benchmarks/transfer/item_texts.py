"""Shortened texts of films and wines, for catalogues whose texts contain less information.

The text of a film is "Title (Year). Genres: A, B. Director: C. Cast: D, E. Plot"; everything after
the first two parts may be missing. The text of a wine is "Name, Type from Winery, Region, Country.
Blend; grapes: A, B. Body, acidity, alcohol. Goes with D, E."
"""

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import torch
from transformers import TrainerCallback

from odmt_sdk import ItemFeatures, ItemVocabulary
from odmt_sdk.features import FeatureSet, ModalityTokens

HEAD = re.compile(r"^.*?\(\d{4}\)\. Genres: [^.]+", re.DOTALL)
# A list of names ends at the first full stop that is not part of "J. Smith" or "Ed Begley Jr.".
_NAMES = r"(?:[^.]|(?<=\b[A-Z])\.|(?<=Jr)\.|(?<=Sr)\.|(?<=St)\.)+\."
PEOPLE = re.compile(rf" (?:Director|Cast): {_NAMES}")


def title_and_genres(text: str) -> str:
    """The text up to the genres; the whole text if it has no year or genres."""
    found = HEAD.match(text)
    return found.group() if found else text


def without_people(text: str) -> str:
    """The text without director and cast."""
    return PEOPLE.sub("", text)


def name_and_origin(text: str) -> str:
    """The text of a wine up to its country."""
    return text.partition(". ")[0]


FILM_VERSIONS = (title_and_genres, without_people)
WINE_VERSIONS = (name_and_origin,)


class VariedTexts:
    """Features in which the text of an item varies between training steps.

    Args:
        features: text and images without variation.
        others: other versions of the text, with one token each.

    Raises:
        ValueError: if a version has other items, or more than one token.
    """

    def __init__(self, features: ItemFeatures, others: Sequence[ItemFeatures]) -> None:
        for other in others:
            if other.vocabulary != features.vocabulary or other["text"].tokens.shape[1] != 1:
                raise ValueError("each version needs one text token of each of the same items")
        self.features = features
        self.others = torch.stack([other["text"].tokens for other in others])  # (V, N + 1, 1, d)
        self.varies = False

    @property
    def vocabulary(self) -> ItemVocabulary:
        """The item ids in row order."""
        return self.features.vocabulary

    @property
    def widths(self) -> dict[str, int]:
        """Modality -> feature width."""
        return self.features.widths

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Origin of the features."""
        return self.features.provenance

    def select(self, item_ids: Iterable[Hashable]) -> FeatureSet:
        """Features whose rows follow `item_ids`, without variation."""
        return self.features.select(item_ids)

    def gather(self, rows: torch.Tensor) -> dict[str, ModalityTokens]:
        """Rows (U,) to modality -> tokens; a random version of each text if variation is on."""
        found = self.features.gather(rows)
        if self.varies:
            tokens, lengths = found["text"]
            drawn = torch.randint(len(self.others) + 1, rows.shape, device=rows.device)  # (U,)
            other = self.others[(drawn - 1).clamp(min=0).cpu(), rows.cpu()].to(tokens)  # (U, 1, d)
            tokens = torch.where((drawn > 0)[:, None, None], other, tokens)
            found = {**found, "text": ModalityTokens(tokens, lengths)}
        return found


class VaryWhileTraining(TrainerCallback):
    """Varies texts during training epochs and uses the complete texts for validation."""

    def __init__(self, features: VariedTexts) -> None:
        self.features = features

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.features.varies = True

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.features.varies = False
