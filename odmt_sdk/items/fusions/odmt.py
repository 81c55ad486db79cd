"""The paper's fusion, `fusion="odmt"`: see `odmt_sdk.items.item_encoder`."""

from collections.abc import Mapping

from odmt_sdk.config import ODMTConfig
from odmt_sdk.items.embedder import register_fusion
from odmt_sdk.items.item_encoder import ItemEncoder


@register_fusion("odmt")
def build(
    config: ODMTConfig, num_items: int, hidden_size: int, modality_widths: Mapping[str, int]
) -> ItemEncoder:
    """Build the item encoder from the settings."""
    return ItemEncoder(
        num_items=num_items,
        hidden_size=hidden_size,
        modality_widths=modality_widths,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        id_visibility=config.id_visibility,
        dropout=config.dropout,
        layer_norm_eps=config.layer_norm_eps,
        modality_dropout=config.modality_dropout,
        id_dropout=config.id_dropout,
        token_norm=config.token_norm,
        shortcut=config.shortcut,
        initial_length=config.initial_length,
    )
