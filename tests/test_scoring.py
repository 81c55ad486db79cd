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
    with pytest.raises(ValueError, match="only sources that have embeddings"):
        fused_vectors({"id": torch.ones(1, 2)}, sources)


def test_the_columns_of_one_matrix_are_fused_without_a_copy():
    matrix = torch.randn(4, 6)
    parts = {"id": matrix[:, :2], "text": matrix[:, 2:5], "image": matrix[:, 5:]}
    fused = fused_vectors(parts, ("id", "text", "image"))
    assert torch.equal(fused, matrix)
    assert fused.data_ptr() == matrix.data_ptr()
    for order in (("text", "id", "image"), ("id", "text"), ("text", "image")):
        expected = torch.cat([parts[source] for source in order], dim=1)
        found = fused_vectors(parts, order)
        assert torch.equal(found, expected)
        assert found.untyped_storage().data_ptr() != matrix.untyped_storage().data_ptr()


def test_a_single_matrix_and_one_column_wide_sources():
    matrix = torch.randn(3, 2)
    assert torch.equal(fused_vectors({"id": matrix}, ("id",)), matrix)
    narrow = {"id": matrix[:, :1], "text": matrix[:, 1:]}
    assert torch.equal(fused_vectors(narrow, ("id", "text")), matrix)
    assert torch.equal(fused_vectors({"id": matrix[:1]}, ("id",)), matrix[:1])
