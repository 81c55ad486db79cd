"""The result of a reader: interactions and items."""

import warnings
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from odmt_sdk.data.interactions import Interactions


class RawData(NamedTuple):
    """A data set before features are extracted; unpacks as `interactions, items`.

    Args:
        interactions: the interactions of users with items.
        items: a table for `ItemFeatures.from_items` with one row per item. Its columns are
            "item_id", "title", "text" and "image", the path of an image. Missing values are None.

    Examples:
        >>> interactions, items = read_movielens("ml-latest-small")              # doctest: +SKIP
        >>> features = ItemFeatures.from_items(                                  # doctest: +SKIP
        ...     items, text_encoder="sentence-transformers/all-MiniLM-L6-v2", text_pooling="mean")
    """

    interactions: Interactions
    items: dict[str, list[Any]]

    def __repr__(self) -> str:
        counts = {
            name: sum(value is not None for value in self.items[name]) for name in ("text", "image")
        }
        return (
            f"RawData({self.interactions!r}, {len(self.items['item_id']):,} items: "
            f"{counts['text']:,} with text, {counts['image']:,} with a picture)"
        )


def make_items(
    item_ids: Sequence[Hashable],
    titles: Sequence[str | None],
    texts: Sequence[str | None],
    images: Sequence[Path | None],
) -> dict[str, list[Any]]:
    """Build the table of items; blank titles and texts become None."""
    return {
        "item_id": list(item_ids),
        "title": [(title or "").strip() or None for title in titles],
        "text": [(text or "").strip() or None for text in texts],
        "image": list(images),
    }


def all_items(known: Sequence[Hashable], interactions: Interactions) -> list[Hashable]:
    """Return the ids with a description, followed by ids that occur only in interactions."""
    return list(dict.fromkeys([*known, *interactions.item_ids]))


def described_items(known: Sequence[Hashable], interactions: Interactions) -> list[Hashable]:
    """Return all ids as `all_items` does, and warn if no description is of an item that occurs.

    Args:
        known: the ids with a description.
        interactions: the interactions.

    Returns:
        All ids.
    """
    item_ids = all_items(known, interactions)
    if known and len(item_ids) == len(set(known)) + interactions.num_items:
        warnings.warn(
            f"none of the {len(known):,} items with a description occurs in the interactions: the "
            f"descriptions have ids such as {known[0]!r}, the interactions such as "
            f"{interactions.item_ids[0]!r}. Are the two files of the same data set?",
            UserWarning,
            stacklevel=3,
        )
    return item_ids
