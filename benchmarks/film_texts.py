"""What others may know of a film: less of its text than there is.

A text is "Title (Year). Genres: A, B. Director: C. Cast: D, E. Plot"; all but the first two may be
missing.
"""

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import torch
from transformers import TrainerCallback

from odmt_sdk import ItemFeatures, ItemVocabulary
from odmt_sdk.items.feature_set import FeatureSet
from odmt_sdk.items.modality import ModalityTokens

HEAD = re.compile(r"^.*?\(\d{4}\)\. Genres: [^.]+", re.DOTALL)
# Names up to a full stop that ends none of them, as that of "J. Smith" and "Ed Begley Jr." does.
_NAMES = r"(?:[^.]|(?<=\b[A-Z])\.|(?<=Jr)\.|(?<=Sr)\.|(?<=St)\.)+\."
PEOPLE = re.compile(rf" (?:Director|Cast): {_NAMES}")


def title_and_genres(text: str) -> str:
    """The text up to the genres; all of it where it tells no year and genres."""
    found = HEAD.match(text)
    return found.group() if found else text


def without_people(text: str) -> str:
    """The text without director and cast."""
    return PEOPLE.sub("", text)


VERSIONS = (title_and_genres, without_people)


class VariedTexts:
    """Features of which each item shows another text each time it is trained on.

    Args:
        features: text and pictures, as they are when nothing varies.
        others: further versions of the text, one token each.

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
        """Where the features came from."""
        return self.features.provenance

    def select(self, item_ids: Iterable[Hashable]) -> FeatureSet:
        """Features whose rows follow `item_ids`; nothing varies in them."""
        return self.features.select(item_ids)

    def gather(self, rows: torch.Tensor) -> dict[str, ModalityTokens]:
        """Rows (U,) to modality -> tokens; of texts, any version if they vary."""
        found = self.features.gather(rows)
        if self.varies:
            tokens, lengths = found["text"]
            drawn = torch.randint(len(self.others) + 1, rows.shape, device=rows.device)  # (U,)
            other = self.others[(drawn - 1).clamp(min=0).cpu(), rows.cpu()].to(tokens)  # (U, 1, d)
            tokens = torch.where((drawn > 0)[:, None, None], other, tokens)
            found = {**found, "text": ModalityTokens(tokens, lengths)}
        return found


class VaryWhileTraining(TrainerCallback):
    """Lets texts vary within epochs, and shows them whole when validating."""

    def __init__(self, features: VariedTexts) -> None:
        self.features = features

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.features.varies = True

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.features.varies = False
