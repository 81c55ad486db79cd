import pytest
import torch

from odmt_sdk.scoring import fused_vectors


def test_one_inner_product_adds_up_the_sources():
    widths = {"id": 4, "text": 4, "sound": 7}
    users = {source: torch.randn(5, width).double() for source, width in widths.items()}
    items = {source: torch.randn(9, width).double() for source, width in widths.items()}
    sources = ("sound", "id", "text")
    fused = fused_vectors(users, sources) @ fused_vectors(items, sources).T
    torch.testing.assert_close(fused, sum(users[s] @ items[s].T for s in sources))


def test_sources_come_in_the_order_asked_for():
    embeddings = {"id": torch.zeros(2, 3, 1), "text": torch.ones(2, 3, 2)}
    assert fused_vectors(embeddings, ("text", "id"))[1, 2].tolist() == [1.0, 1.0, 0.0]
    assert fused_vectors(embeddings, ("id",)).shape == (2, 3, 1)


@pytest.mark.parametrize("sources", [(), ("id", "image")])
def test_sources_without_embeddings(sources):
    with pytest.raises(ValueError, match="only such as have embeddings"):
        fused_vectors({"id": torch.ones(1, 2)}, sources)
