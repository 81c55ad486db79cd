"""The toy shop: reproducible, well-formed, and informative content."""

import hashlib
import subprocess
import sys
from collections import Counter, defaultdict
from itertools import pairwise
from random import Random

import numpy as np
import pytest

from odmt_sdk.data.interactions import Interactions
from odmt_sdk.toy_shop.shop import _FINISHES, _MATERIALS, _NOUNS, _STYLES, make_shop
from odmt_sdk.toy_shop.shop_drawing import COLOURS, PATTERNS, SHAPES, draw_item


@pytest.fixture(scope="module")
def shop():
    return make_shop()


@pytest.fixture(scope="module")
def small():
    return make_shop(num_items=60, num_users=30)


def histories(shop):
    """Return the item positions of each user's history, oldest first."""
    position = {item_id: i for i, item_id in enumerate(shop.items["item_id"])}
    found = defaultdict(list)
    for user_id, item_id in zip(
        shop.interactions["user_id"], shop.interactions["item_id"], strict=True
    ):
        found[user_id].append(position[item_id])
    return list(found.values())


def words_and_events(shop):
    columns = [shop.items["item_id"], shop.items["title"], *shop.interactions.values()]
    return hashlib.sha256(repr(columns).encode()).hexdigest()


def pixels(shop):
    return [picture.tobytes() for picture in shop.items["image"]]


def test_a_seed_gives_the_same_shop(small):
    again = make_shop(num_items=60, num_users=30)
    assert again.interactions == small.interactions
    assert again.items["title"] == small.items["title"]
    assert pixels(again) == pixels(small)


def test_the_default_shop_is_the_same_everywhere(shop):
    assert words_and_events(shop) == (
        "da15dd1fce6cf1e5a460e52f643749d8b1b3305e20e516992f3d19ddd4e48897"
    )


def test_another_seed_gives_another_shop(small):
    other = make_shop(num_items=60, num_users=30, seed=1)
    assert other.items["title"] != small.items["title"]
    assert other.interactions["timestamp"] != small.interactions["timestamp"]
    assert pixels(other) != pixels(small)


def test_items_depend_neither_on_the_users_nor_on_the_size_of_the_pictures(small):
    other = make_shop(num_items=60, num_users=1, image_size=128)
    assert other.items["item_id"] == small.items["item_id"]
    assert other.items["title"] == small.items["title"]
    for mine, larger in zip(small.items["image"], other.items["image"], strict=True):
        assert larger.size == (128, 128)
        difference = np.asarray(larger.resize((64, 64)), float) - np.asarray(mine, float)
        assert np.abs(difference).mean() < 6


def test_items_are_complete(shop):
    assert {len(column) for column in (*shop.items.values(), *shop.attributes.values())} == {400}
    assert len(set(shop.items["item_id"])) == 400
    for number, (item_id, category) in enumerate(
        zip(shop.items["item_id"], shop.attributes["category"], strict=True), start=1
    ):
        assert item_id == f"{category}-{number:03d}"
    assert {(picture.mode, picture.size) for picture in shop.items["image"]} == {("RGB", (64, 64))}
    assert all(title[0] == title[0].upper() for title in shop.items["title"])


def test_every_user_has_some_history_without_repeats(shop):
    assert len(histories(shop)) == 2000
    for history in histories(shop):
        assert 8 <= len(history) <= 14
        assert len(set(history)) == len(history)


def test_events_come_in_the_order_of_time(shop):
    assert shop.interactions["timestamp"] == sorted(shop.interactions["timestamp"])
    events = list(zip(shop.interactions["user_id"], shop.interactions["timestamp"], strict=True))
    assert len(set(events)) == len(events)
    assert all(type(time) is int for time in shop.interactions["timestamp"])


def test_popularity_is_long_tailed_and_the_core_keeps_most(shop):
    sold = sorted(Counter(shop.interactions["item_id"]).values(), reverse=True)
    assert sum(sold[:80]) > 0.5 * sum(sold)
    assert sum(count < 20 for count in sold) > 100
    core = Interactions.from_table(shop.interactions).k_core(5)
    assert core.num_users == 2000
    assert core.num_items > 360
    assert len(core) > 0.98 * len(shop.interactions["item_id"])


def test_titles_keep_quiet_about_what_the_picture_shows(shop):
    shown = {*COLOURS, *shop.attributes["pattern"]}
    for title in shop.items["title"]:
        assert not shown & set(title.lower().replace(",", " ").split())


def test_the_title_tells_category_style_finish_and_brand(shop):
    for title, *look in zip(
        shop.items["title"],
        *(shop.attributes[name] for name in ("category", "style", "finish", "brand")),
        strict=True,
    ):
        category, style, finish, brand = look
        said = title.lower()
        assert any(noun in said for noun in _NOUNS[category])
        assert any(word.lower() in said for word in _STYLES[style])
        assert _MATERIALS[category][_FINISHES.index(finish)] in said
        assert brand.lower() in said


def test_the_picture_shows_the_colour(shop):
    """The item's colour is the main colour closest to most of its saturated pixels."""
    names = list(COLOURS)
    palette = np.array([COLOURS[name] for name in names], float)
    right = []
    for picture, colour in zip(shop.items["image"], shop.attributes["colour"], strict=True):
        rgb = np.asarray(picture, float).reshape(-1, 3)
        vivid = rgb[np.ptp(rgb, axis=1) > 60]
        nearest = ((vivid[:, None] - palette) ** 2).sum(-1).argmin(1)
        right.append(names[np.bincount(nearest).argmax()] == colour)
    assert np.mean(right) > 0.95


def test_every_category_and_pattern_is_drawn_differently():
    drawn = {
        (category, pattern): draw_item(
            category, "teal", pattern, image_size=64, rng=Random(0)
        ).tobytes()
        for category in SHAPES
        for pattern in PATTERNS
    }
    assert len(set(drawn.values())) == len(SHAPES) * len(PATTERNS)


def hit_rate(shop, score):
    """Fraction of users whose last item is in the top ten unseen items by `score(latest item)`."""
    hits = []
    for *history, target in histories(shop):
        scores = np.array(score(history[-1]), float)
        scores[history] = -np.inf
        hits.append(target in np.argsort(-scores, kind="stable")[:10])
    return np.mean(hits)


def test_the_latest_item_helps_and_its_looks_help_more(shop):
    """By counts over all but the last events: popularity < ID transitions < attribute ones."""
    pairs = [pair for h in histories(shop) for pair in pairwise(h[:-1])]
    before, after = np.array(pairs).T
    num_items = len(shop.items["item_id"])
    popularity = np.bincount([i for h in histories(shop) for i in h[:-1]], minlength=num_items)
    followed = np.zeros((num_items, num_items))
    np.add.at(followed, (before, after), 1)
    lift = np.ones((num_items, num_items))
    for values in shop.attributes.values():
        codes = np.unique(values, return_inverse=True)[1]
        counts = np.ones((codes.max() + 1, codes.max() + 1))
        np.add.at(counts, (codes[before], codes[after]), 1)
        expected = np.bincount(codes, weights=popularity)
        given = counts / counts.sum(1, keepdims=True) / (expected / expected.sum())
        lift *= given[codes][:, codes]

    by_popularity = hit_rate(shop, lambda latest: popularity)
    by_id = hit_rate(shop, lambda latest: followed[latest] + popularity / popularity.sum())
    by_looks = hit_rate(shop, lambda latest: lift[latest] * popularity)
    assert by_id > 1.25 * by_popularity
    assert by_looks > 1.25 * by_id


def test_some_customers_follow_pictures_and_some_follow_titles(shop):
    """How often users repeat a colour and how often they repeat a style correlate negatively."""
    looks = {name: np.array(values) for name, values in shop.attributes.items()}
    same = {
        name: [np.mean(looks[name][h[1:]] == looks[name][h[:-1]]) for h in histories(shop)]
        for name in ("colour", "pattern", "style", "finish")
    }
    seen = np.add(same["colour"], same["pattern"])
    read = np.add(same["style"], same["finish"])
    assert np.corrcoef(seen, read)[0, 1] < -0.15


def test_making_a_shop_is_all_that_needs_pillow():
    code = "import sys, odmt_sdk.toy_shop.shop; print('PIL' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_shop_prints_its_size(small):
    assert (
        repr(small)
        == f"Shop(60 items, 30 users, {len(small.interactions['item_id'])} interactions)"
    )


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"num_items": 49}, "num_items=49 is too small for the shop; use at least 50"),
        ({"num_users": 0}, "num_users=0 is too small for the shop; use at least 1"),
        ({"image_size": 8}, "image_size=8 is too small for the shop; use at least 16"),
    ],
)
def test_too_small_a_shop_is_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        make_shop(**sizes)
