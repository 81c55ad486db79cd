"""Reducing the number of tokens of an image."""

import pytest
import torch

from odmt_sdk.features.extraction.token_reduction import check_reduction, reduce_tokens


def test_cutting_keeps_the_first():
    tokens = torch.randn(2, 10, 4)
    assert torch.equal(reduce_tokens(tokens, 3, "cut"), tokens[:, :3])
    for how in ("cut", "average"):
        assert reduce_tokens(tokens, None, how) is tokens
        assert reduce_tokens(tokens, 10, how) is tokens
        assert torch.equal(reduce_tokens(tokens, 1, how), tokens[:, :1])


def test_averaging_takes_the_mean_of_each_square_of_places():
    places = torch.arange(16.0).view(1, 4, 4)
    tokens = torch.cat([torch.tensor([[99.0]]), places.flatten(1)], 1)[..., None]  # (1, 17, 1)
    reduced = reduce_tokens(tokens, 5, "average")
    assert reduced.flatten().tolist() == [99, 2.5, 4.5, 10.5, 12.5]


def test_places_that_form_no_square_are_averaged_along_their_sequence():
    tokens = torch.arange(9.0).view(1, 9, 1)
    assert reduce_tokens(tokens, 5, "average").flatten().tolist() == [0, 1.5, 3.5, 5.5, 7.5]


def test_never_more_than_asked_for_and_always_of_the_whole_picture():
    tokens = torch.zeros(1, 50, 2, dtype=torch.bfloat16)
    tokens[0, -1] = 1  # the last position
    for most in range(2, 50):
        reduced = reduce_tokens(tokens, most, "average")
        assert most / 2 < reduced.shape[1] <= most
        assert reduced.dtype == torch.bfloat16
        assert (reduced[0, -1] > 0).all()


def test_settings_that_cannot_be():
    with pytest.raises(ValueError, match="max_image_tokens=0 must be at least 1, or None"):
        check_reduction(0, "cut")
    with pytest.raises(ValueError, match="image_reduction is 'max', but it must be 'cut' or"):
        check_reduction(3, "max")
