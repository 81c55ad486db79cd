"""Reading headers of safetensors files."""

import pytest
import torch
from safetensors.torch import save_file

from odmt_sdk.files.tensor_file import MAX_HOLES, read_header


@pytest.mark.parametrize("values", [10, MAX_HOLES])
@pytest.mark.parametrize("number", [1, 20, 400])
def test_headers_of_any_length_in_files_of_any_size(values, number, tmp_path):
    """The header is longer than the buffer of a file for the larger numbers of tensors."""
    tensors = {f"layers.{place}.weight": torch.full((3,), place) for place in range(number)}
    tensors["large"] = torch.ones(values, dtype=torch.uint8)
    save_file(tensors, tmp_path / "a.safetensors")
    with (tmp_path / "a.safetensors").open("rb") as file:
        found, _ = read_header(file, "a.safetensors")
        assert set(found) == set(tensors)
        for name, value in tensors.items():
            assert torch.equal(found[name].read(), value)
