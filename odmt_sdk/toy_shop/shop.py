"""A small synthetic shop: drawn images, generated titles, and customers influenced by both.

All randomness comes from `random.Random.random` and elementary arithmetic, so a seed gives the same
items and interactions on every platform. Images may differ slightly between Pillow releases.

Letters: N items, C categories.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from odmt_sdk.toy_shop.shop_drawing import COLOURS, PATTERNS, SHAPES, draw_item

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

T = TypeVar("T")

_NOUNS = {
    "mug": ("mug", "cup", "coffee mug"),
    "teapot": ("teapot", "tea pot", "teapot for two"),
    "bowl": ("bowl", "serving bowl", "dish"),
    "vase": ("vase", "flower vase", "bud vase"),
    "lamp": ("table lamp", "lamp", "desk light"),
    "cushion": ("cushion", "throw pillow", "pillow"),
    "clock": ("wall clock", "clock", "kitchen clock"),
    "shirt": ("t-shirt", "tee", "shirt"),
    "bag": ("tote bag", "shopper", "bag"),
    "hat": ("sun hat", "hat", "brimmed hat"),
}
_STYLES = {
    "nordic": ("Nordic", "Scandinavian", "hygge"),
    "vintage": ("vintage", "retro", "heirloom"),
    "minimal": ("minimalist", "pared-back", "understated"),
    "boho": ("bohemian", "boho", "free-spirited"),
    "industrial": ("industrial", "loft", "workshop"),
    "coastal": ("coastal", "seaside", "nautical"),
}
# Finish of an item (rustic, fine or sturdy), expressed as a material that fits its category.
_FINISHES = ("rustic", "fine", "sturdy")
_MATERIALS = {
    "mug": ("stoneware", "porcelain", "enamel"),
    "teapot": ("stoneware", "porcelain", "cast iron"),
    "bowl": ("olive wood", "porcelain", "enamel"),
    "vase": ("terracotta", "crystal", "brass"),
    "lamp": ("rattan", "crystal", "steel"),
    "cushion": ("linen", "velvet", "canvas"),
    "clock": ("oak", "marble", "steel"),
    "shirt": ("linen", "silk", "denim"),
    "bag": ("jute", "suede", "canvas"),
    "hat": ("straw", "cashmere", "felt"),
}
_BRANDS = (
    "Aldermoor",
    "Bexley & Finch",
    "Corvane",
    "Dunmarrow",
    "Ellwick",
    "Fenhollow",
    "Hartwen",
    "Isgrove",
)
_EXTRAS = ("", "", "", "gift-boxed", "new season", "small batch")
_TITLES = (
    "{style} {noun} in {material} by {brand}",
    "{brand} {noun}, {material}, {style}",
    "{brand} {style} {material} {noun}",
    "{material} {noun} from {brand} in {style} style",
    "the {style} {noun} ({material}) {brand}",
)
# Categories bought after an item of a category: usually the first, sometimes the second.
_GOES_WITH = {
    "mug": ("teapot", "bowl"),
    "teapot": ("bowl", "mug"),
    "bowl": ("vase", "mug"),
    "vase": ("lamp", "clock"),
    "lamp": ("cushion", "clock"),
    "cushion": ("clock", "vase"),
    "clock": ("lamp", "mug"),
    "shirt": ("hat", "bag"),
    "hat": ("bag", "shirt"),
    "bag": ("shirt", "cushion"),
}

_OPTIONS: dict[str, tuple[str, ...]] = {
    "category": tuple(SHAPES),
    "colour": tuple(COLOURS),
    "pattern": PATTERNS,
    "style": tuple(_STYLES),
    "finish": _FINISHES,
    "brand": _BRANDS,
}
_TASTES = ("colour", "pattern", "style", "finish", "brand")

_POPULARITY_HEAD = 20.0
_TAIL_LOSS = 0.9
_LONGEST_SESSION = 6
_SHORTEST_HISTORY, _LONGEST_HISTORY = 8, 14
_NOISE = 0.08
_NEW_TASTE = 0.2
_LED, _NOT_LED, _BRAND = 30.0, 4.0, 2.0
_FIRST_NEXT, _SECOND_NEXT, _SAME_CATEGORY = 10.0, 4.0, 0.3
_OPENING = 1_700_000_000
_DAY = 86_400


@dataclass(frozen=True, repr=False)
class Shop:
    """Items and interactions of a synthetic shop, as returned by `make_shop`.

    Args:
        items: columns `item_id` (str such as "mug-017"), `title` (str), `image` (RGB `PIL.Image`).
        interactions: columns `user_id` (str), `item_id` (str) and `timestamp` (int, seconds), in
            chronological order. Every user has 8 to 14 interactions, all with different items.
        attributes: true attributes of each item in `items`, for checks and not for training:
            `category` (in image and title), `colour` and `pattern` (only in the image), `style`,
            `finish` and `brand` (only in the title).

    Examples:
        >>> shop = make_shop(num_items=50, num_users=20)
        >>> shop
        Shop(50 items, 20 users, 229 interactions)
        >>> sorted(shop.interactions)
        ['item_id', 'timestamp', 'user_id']
    """

    items: dict[str, list[Any]]
    interactions: dict[str, list[Any]]
    attributes: dict[str, list[str]]

    def __repr__(self) -> str:
        users = len(set(self.interactions["user_id"]))
        return (
            f"Shop({len(self.items['item_id'])} items, {users} users, "
            f"{len(self.interactions['item_id'])} interactions)"
        )


def make_shop(
    *, num_items: int = 400, num_users: int = 2000, seed: int = 0, image_size: int = 64
) -> Shop:
    """Make a small shop in which images, titles and the order of events are all informative.

    Items. An image shows a category (10 values), a colour (8) and a pattern (5). A title gives the
    category, a style (6), a finish (3: rustic, fine, sturdy) and a brand (8). There are five title
    templates and three synonyms for every category and style. The finish appears only as a material
    that fits the category: a rustic mug is made of stoneware, a rustic hat of straw. The six
    attributes are independent and uniformly distributed. Images also vary in size, position,
    mirroring and background, and titles in additions such as "gift-boxed". These variations carry
    no information.

    Popularity. The item of rank r = 0, 1, ... sells in proportion to (1 - 0.9 r / N) / (20 + r).
    With the default arguments, a fifth of the items makes more than half of the sales, and a third
    of the items sells fewer than 20 times each.

    Customers. Each customer has 8 to 14 purchases and two favourite colours, patterns, styles,
    finishes and brands. Half of the customers are led by images, the other half by titles. They
    shop in sessions of 1 to 6 items, more than a day apart. Each session has a mood: one favourite
    of each kind. Before a session, with probability 0.2, one favourite of each kind is replaced
    (drift). The next item is drawn with a weight that is the product of

    - its popularity;
    - 30 if it has the mood's colour and 30 if it has the mood's pattern, or 4 for customers led by
      titles; the same for style and finish with 30 and 4 swapped; 2 if it has the mood's brand;
    - 10 or 4 if its category is the first or second choice after the latest item's category (after
      a mug, a teapot or a bowl), 0.3 if its category is the same;
    - 0 if the customer already has it.

    With probability 0.08, the item is drawn by popularity alone (noise).

    Args:
        num_items: number of items N, at least 50.
        num_users: number of customers, at least 1.
        seed: random seed; the items do not depend on `num_users`.
        image_size: side length of the square images in pixels, at least 16.

    Returns:
        The shop.

    Raises:
        ValueError: if an argument is too small.

    Examples:
        >>> shop = make_shop(num_items=50, num_users=20)
        >>> shop.items["item_id"][0], shop.items["title"][0]
        ('clock-001', 'The industrial kitchen clock (steel) Bexley & Finch')
    """
    for name, value, least in (
        ("num_items", num_items, 50),
        ("num_users", num_users, 1),
        ("image_size", image_size, 16),
    ):
        if value < least:
            raise ValueError(f"{name}={value} is too small for the shop; use at least {least}")
    looks = _draw_looks(num_items, seed)
    items = _present(looks, image_size, seed)
    interactions = _Customers(looks, seed).shop(num_users)
    interactions["item_id"] = [items["item_id"][i] for i in interactions["item_id"]]
    attributes = {
        name: [options[code] for code in looks[name]] for name, options in _OPTIONS.items()
    }
    return Shop(items=items, interactions=interactions, attributes=attributes)


def _draw_looks(num_items: int, seed: int) -> dict[str, NDArray[np.int64]]:
    """Draw the attributes of all items, as indices (N,) into `_OPTIONS`."""
    rng = Random(f"{seed} looks")
    rows = [[_below(rng, len(options)) for options in _OPTIONS.values()] for _ in range(num_items)]
    return dict(zip(_OPTIONS, np.array(rows).T, strict=True))


def _present(
    looks: dict[str, NDArray[np.int64]], image_size: int, seed: int
) -> dict[str, list[Any]]:
    """Generate id, title and image of every item."""
    items: dict[str, list[Any]] = {"item_id": [], "title": [], "image": []}
    words, brush = Random(f"{seed} titles"), Random(f"{seed} pictures")
    for number, codes in enumerate(zip(*looks.values(), strict=True), start=1):
        look = {name: _OPTIONS[name][code] for name, code in zip(looks, codes, strict=True)}
        title = _pick(words, _TITLES).format(
            noun=_pick(words, _NOUNS[look["category"]]),
            style=_pick(words, _STYLES[look["style"]]),
            material=_MATERIALS[look["category"]][_FINISHES.index(look["finish"])],
            brand=look["brand"],
        )
        extra = _pick(words, _EXTRAS)
        items["item_id"].append(f"{look['category']}-{number:03d}")
        items["title"].append(title[0].upper() + title[1:] + (f", {extra}" if extra else ""))
        items["image"].append(
            draw_item(
                look["category"], look["colour"], look["pattern"], image_size=image_size, rng=brush
            )
        )
    return items


class _Customers:
    """Simulates the purchases of customers by the rules of `make_shop`."""

    def __init__(self, looks: dict[str, NDArray[np.int64]], seed: int) -> None:
        self._looks = looks
        self._rng = Random(f"{seed} customers")
        num_items = len(looks["category"])
        order = [self._rng.random() for _ in range(num_items)]
        rank = np.array(sorted(range(num_items), key=order.__getitem__))
        self._popularity = (1.0 - _TAIL_LOSS * rank / num_items) / (_POPULARITY_HEAD + rank)
        # (C, N): weight of each item after an item of the category
        names = _OPTIONS["category"]
        follows = np.ones((len(names), len(names)))
        for row, name in enumerate(names):
            first, second = _GOES_WITH[name]
            follows[row, row] = _SAME_CATEGORY
            follows[row, names.index(first)] = _FIRST_NEXT
            follows[row, names.index(second)] = _SECOND_NEXT
        self._follows = follows[:, looks["category"]]

    def shop(self, num_users: int) -> dict[str, list[Any]]:
        """Simulate all customers; return interactions in chronological order, items from 0."""
        events = [event for user in range(1, num_users + 1) for event in self._history(user)]
        events.sort()  # by time, then user; no user has two events in the same second
        times, users, items = zip(*events, strict=True)
        return {"user_id": list(users), "item_id": list(items), "timestamp": list(times)}

    def _history(self, user: int) -> list[tuple[int, str, int]]:
        """Simulate one customer; return (timestamp, user id, item) of each purchase."""
        rng = self._rng
        length = _SHORTEST_HISTORY + _below(rng, _LONGEST_HISTORY - _SHORTEST_HISTORY + 1)
        favourites = {
            name: [_below(rng, len(_OPTIONS[name])) for _ in range(2)] for name in _TASTES
        }
        by_picture = rng.random() < 0.5
        time = _OPENING + _below(rng, 120 * _DAY)
        free = np.ones(len(self._popularity))
        events: list[tuple[int, str, int]] = []
        while len(events) < length:
            if rng.random() < _NEW_TASTE:
                for name, pair in favourites.items():
                    pair[_below(rng, 2)] = _below(rng, len(_OPTIONS[name]))
            mood = {name: _pick(rng, pair) for name, pair in favourites.items()}
            appeal = self._popularity * self._appeal(mood, by_picture)
            for _ in range(min(1 + _below(rng, _LONGEST_SESSION), length - len(events))):
                if rng.random() < _NOISE:
                    weights = free * self._popularity
                elif events:
                    weights = free * appeal * self._follows[self._looks["category"][events[-1][2]]]
                else:
                    weights = free * appeal
                total = np.cumsum(weights)
                item = int(np.searchsorted(total, rng.random() * total[-1], side="right"))
                free[item] = 0.0
                events.append((time, f"user-{user:04d}", item))
                time += 60 + _below(rng, 1800)
            time += _DAY + _below(rng, 20 * _DAY)
        return events

    def _appeal(self, mood: dict[str, int], by_picture: bool) -> NDArray[np.float64]:
        """Return how well each item (N,) matches a mood."""
        strength = {
            "colour": _LED if by_picture else _NOT_LED,
            "pattern": _LED if by_picture else _NOT_LED,
            "style": _NOT_LED if by_picture else _LED,
            "finish": _NOT_LED if by_picture else _LED,
            "brand": _BRAND,
        }
        appeal = np.ones(len(self._popularity))
        for name, value in mood.items():
            appeal = appeal * np.where(self._looks[name] == value, strength[name], 1.0)
        return appeal


def _below(rng: Random, limit: int) -> int:
    # not `randrange`: only `random` gives the same sequence in every Python release
    return int(rng.random() * limit)


def _pick(rng: Random, options: Sequence[T]) -> T:
    return options[_below(rng, len(options))]
