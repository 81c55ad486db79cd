"""A store and its encoders, the same for several tests."""

import pytest
import torch
from stored_catalogue import make_items, store
from tiny_encoders import bert, vit


@pytest.fixture(scope="module")
def encoders():
    torch.manual_seed(0)
    return {"text_encoder": bert(), "image_encoder": vit()}


@pytest.fixture(scope="module")
def reference(encoders, tmp_path_factory):
    """A store written without interruption."""
    folder = tmp_path_factory.mktemp("reference") / "store"
    with pytest.warns(UserWarning, match="1 of 17 pictures could not be read"):
        store(make_items(), folder, **encoders)
    return folder
