"""Bridge for modules compiled with `torch.compile`, chosen by the type of the original module."""

import warnings

from torch import nn

from odmt_sdk.backbones.adapt import find_bridge, register_bridge
from odmt_sdk.backbones.bridge import BackboneBridge
from odmt_sdk.backbones.signature.trial import copy_module, plain


def _is_compiled(backbone: object) -> bool:
    return isinstance(backbone, nn.Module) and plain(backbone) is not backbone


@register_bridge("compiled", matches=_is_compiled, priority=-5)
def _build(backbone: nn.Module, hidden_size: int | None) -> nn.Module:
    """Build the bridge of the original module, with the compiled module inside."""
    inside = plain(backbone)
    adapted = find_bridge(inside)(inside, hidden_size)
    if adapted is inside:
        return backbone
    if not isinstance(adapted, BackboneBridge) or adapted.reads_item_ids:
        warnings.warn(
            f"{type(inside).__name__} runs without being compiled, since its bridge replaces "
            "parts of it: compile the wrapper instead, torch.compile(model)",
            stacklevel=2,
        )
        return adapted
    body = adapted.module
    adapted.module = backbone if body is inside else copy_module(backbone, {id(inside): body})
    return adapted
