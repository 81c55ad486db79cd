"""Deprecated names work for one release and warn with the new name."""

import pytest
from torch import nn
from toys import toy_features

import odmt_sdk
from odmt_sdk import ODMTWrapper, check_backbone
from odmt_sdk.backbones.adapt import BRIDGES, find_bridge


@pytest.fixture
def gru():
    return nn.GRU(8, 8, batch_first=True)


def test_adapter_is_bridge_now(gru, tmp_path):
    def build(backbone, hidden_size):
        return find_bridge(backbone)(backbone, hidden_size)

    says = pytest.warns(FutureWarning, match="adapter= was renamed to bridge=")
    with says:
        model = ODMTWrapper(gru, toy_features(), adapter=build)
    with says:
        assert not check_backbone(gru, adapter=build).errors
    model.save_pretrained(tmp_path / "adapter")
    with says:
        ODMTWrapper.from_pretrained(tmp_path / "adapter", backbone=gru, adapter=build)
    with pytest.raises(TypeError, match="adapter= is the old name of bridge="):
        ODMTWrapper(gru, toy_features(), adapter=build, bridge=build)


def test_register_adapter_is_register_bridge_now(monkeypatch):
    monkeypatch.setattr(BRIDGES, "_entries", dict(BRIDGES._entries))

    class Mine(nn.Module):
        pass

    with pytest.warns(FutureWarning, match="register_adapter was renamed to register_bridge"):
        odmt_sdk.register_adapter("mine", matches=Mine)(lambda backbone, size: backbone)
    assert "mine" in BRIDGES
