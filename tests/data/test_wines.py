"""The real data set of the package."""

import numpy as np
import pytest

from odmt_sdk import leave_one_out, load_wines
from odmt_sdk.data import wines


def test_wines_are_whole():
    interactions, items = load_wines()
    assert len(items["item_id"]) == len(set(items["item_id"])) == 1007
    assert all(items["text"])
    assert len(set(items["title"])) == 1007
    assert items["image"] == [None] * 1007
    assert set(interactions.item_ids) <= set(items["item_id"])
    assert interactions.num_users == 3000
    assert np.diff(interactions.offsets).min() >= 5
    times = interactions.times.astype("datetime64[s]")
    assert (times.min().item().year, times.max().item().year) == (2012, 2021)
    for start, end in zip(interactions.offsets[:-1], interactions.offsets[1:], strict=True):
        assert (np.diff(interactions.times[start:end]) > 0).all()  # no two at once
    assert len(leave_one_out(interactions).test) == 3000
    assert wines.FILE.stat().st_size < 400_000


def test_wines_of_high_ratings():
    liked = load_wines(min_rating=4).interactions
    assert 0 < len(liked) < len(load_wines().interactions)
    with pytest.raises(ValueError, match=r"min_rating=6 is above every rating, at most 5.0"):
        load_wines(min_rating=6)
