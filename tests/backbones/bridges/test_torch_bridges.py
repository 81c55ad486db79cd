"""Bridges for torch's own layers, compared with running them on each sequence separately.

Letters: B users, L positions, D hidden size.
"""

import pytest
import torch
from torch import nn

from odmt_sdk.backbones.adapt import adapt_backbone, unwrap_backbone
from odmt_sdk.backbones.bridges.torch_rnn import TorchRNNBackbone
from odmt_sdk.backbones.bridges.torch_transformer import TorchTransformerBackbone
from odmt_sdk.backbones.check.report import check_backbone
from odmt_sdk.backbones.signature.backbone import SignatureBackbone

D = 8
EMBEDS = torch.randn(3, 6, D, generator=torch.Generator().manual_seed(0))
MASK = torch.tensor([[0, 0, 0, 1, 1, 1], [1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 1]])


def each_alone(run):
    """Run each sequence separately as (1, L, D) and return the states of its items."""
    alone = [run(row[real].unsqueeze(0))[0] for row, real in zip(EMBEDS, MASK.bool(), strict=True)]
    return torch.cat(alone)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize(
    "build",
    [
        lambda **options: nn.GRU(D, D, num_layers=2, **options),
        lambda **options: nn.LSTM(D, 12, proj_size=D, **options),
        lambda **options: nn.RNN(D, D, nonlinearity="relu", bias=False, **options),
        lambda **options: nn.GRU(D, D // 2, bidirectional=True, **options),
    ],
    ids=["GRU", "LSTM", "RNN", "bidirectional"],
)
def test_recurrent_layers_start_at_the_first_item(build, batch_first):
    layer = build(batch_first=batch_first)
    backbone = adapt_backbone(layer)

    def run(x):
        return layer(x)[0] if batch_first else layer(x.transpose(0, 1))[0].transpose(0, 1)

    assert isinstance(backbone, TorchRNNBackbone)
    assert unwrap_backbone(backbone) is layer
    torch.testing.assert_close(backbone(EMBEDS, MASK)[MASK.bool()], each_alone(run))


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("layers", [0, 2])
def test_transformer_encoders_get_a_causal_mask(batch_first, train, layers):
    encoder = nn.TransformerEncoderLayer(D, 2, 16, dropout=0.0, batch_first=batch_first)
    if layers:
        encoder = nn.TransformerEncoder(encoder, layers, enable_nested_tensor=False)
    backbone = adapt_backbone(encoder).train(train)

    def run(x):
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        x = x if batch_first else x.transpose(0, 1)
        return encoder(x, mask) if batch_first else encoder(x, mask).transpose(0, 1)

    assert isinstance(backbone, TorchTransformerBackbone)
    torch.testing.assert_close(backbone(EMBEDS, MASK)[MASK.bool()], each_alone(run))


def test_a_row_of_padding_is_finite_in_both_modes():
    layer = nn.TransformerEncoderLayer(D, 2, 16, batch_first=True)
    backbone = adapt_backbone(nn.TransformerEncoder(layer, 2))
    with torch.no_grad():
        for mode in (True, False):
            assert backbone.train(mode)(EMBEDS, torch.zeros_like(MASK)).isfinite().all()


def test_a_sub_class_with_a_forward_of_its_own_is_read_by_its_signature():
    class Mine(nn.GRU):
        def forward(self, x, lengths):
            return super().forward(x)[0]

    class MineToo(nn.TransformerEncoderLayer):
        def forward(self, x):
            return super().forward(x)

    gru = adapt_backbone(Mine(D, D, batch_first=True))
    assert isinstance(gru, SignatureBackbone)
    assert gru.arguments.lengths == "lengths"
    assert isinstance(adapt_backbone(MineToo(D, 2, 16, batch_first=True)), SignatureBackbone)


def test_reading_backwards_is_refused_with_the_way_out():
    report = check_backbone(nn.LSTM(D, D // 2, bidirectional=True))
    assert [finding.name for finding in report.errors] == ["causal"]
    with pytest.raises(ValueError, match="it reads the future: .* build it with bidirectional=Fal"):
        report.raise_for_errors()
    assert not check_backbone(nn.LSTM(D, D // 2, bidirectional=True), allow_future=True).errors
