"""Compares a backbone with its twin, which computes one sequence without padding.

Letters: L positions, D hidden size.
"""

import torch
from torch.nn.utils.rnn import pad_sequence


def assert_close_to_twin(backbone, twin, lengths, *, dtype=torch.double, **tolerance):
    """Compare them on random sequences of these lengths and one more item, with random weights.

    `twin` takes the backbone and one sequence (L, D), and returns (L, D).
    """
    backbone = backbone.to(dtype).eval()
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.normal_()
        rows = [torch.randn(length, backbone.hidden_size, dtype=dtype) for length in [*lengths, 1]]
        embeds = pad_sequence(rows, batch_first=True, padding_side="left")
        mask = pad_sequence(
            [torch.ones(len(row)) for row in rows], batch_first=True, padding_side="left"
        )
        hidden = backbone(embeds, mask)
        for states, row in zip(hidden, rows, strict=True):
            if len(row):
                torch.testing.assert_close(states[-len(row) :], twin(backbone, row), **tolerance)
