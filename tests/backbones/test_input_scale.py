"""The scale of backbone inputs: unit-length item embeddings, scaled as sequence models expect."""

import pytest
import torch
from torch import nn
from toys import toy_model

ROWS = torch.tensor([[0, 3, 1, 2], [4, 5, 6, 7]])


class Recorder(nn.Module):
    """A user's model that records its input."""

    def __init__(self, width=64):
        super().__init__()
        self.hidden_size = width
        self.mix = nn.Linear(width, width)

    def forward(self, inputs_embeds, attention_mask):
        self.read = inputs_embeds.detach()
        return self.mix(inputs_embeds)


class LooksUp(nn.Module):
    """A user's model of item ids."""

    def __init__(self):
        super().__init__()
        self.items = nn.Embedding(13, 8, padding_idx=0)
        self.gru = nn.GRU(8, 8, batch_first=True)

    def forward(self, item_seq):
        return self.gru(self.items(item_seq))[0]


def what_is_read(model):
    return {source: backbone.read for source, backbone in model.backbones.by_source.items()}


def test_backbones_read_values_of_unit_size_and_padding_stays_zero():
    model = toy_model(Recorder(), initial_length=1.0).eval()
    catalogue = model.encode_catalogue()
    model.encode_sequences(ROWS)
    for source, read in what_is_read(model).items():
        assert torch.equal(read[0, 0], torch.zeros(64))
        torch.testing.assert_close(read, catalogue[source][ROWS] * 8 * (ROWS != 0)[..., None])
        assert 0.3 < float(read[1].square().mean().sqrt()) < 3
    before = what_is_read(model)
    model.train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    model(ROWS)
    for source, read in what_is_read(model).items():
        size = before[source].abs().mean()
        assert float(read.abs().mean()) == pytest.approx(float(size), rel=0.5)  # as in training


def test_without_it_they_read_item_embeddings_as_they_are():
    model = toy_model(Recorder(), scale_inputs=False).eval()
    catalogue = model.encode_catalogue()
    model.encode_sequences(ROWS)
    for source, read in what_is_read(model).items():
        torch.testing.assert_close(read[1], catalogue[source][ROWS[1]])


def test_a_model_that_looks_ids_up_reads_them_as_they_are():
    scaled, plain = (toy_model(LooksUp(), scale_inputs=scale).eval() for scale in (True, False))
    plain.load_state_dict(scaled.state_dict())
    for source, states in scaled.encode_sequences(ROWS).items():
        torch.testing.assert_close(states, plain.encode_sequences(ROWS)[source])
