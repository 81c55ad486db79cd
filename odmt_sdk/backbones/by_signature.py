"""Adapters for modules of any other kind: by the names of their arguments, and by trying them."""

from collections.abc import Callable
from typing import Any

from torch import nn

from odmt_sdk.backbones.mask_trials import settle_masks, settle_side
from odmt_sdk.backbones.registry import register_adapter
from odmt_sdk.backbones.signature_backbone import Call, MaskForm, SignatureBackbone
from odmt_sdk.backbones.signature_trials import SignatureTrials
from odmt_sdk.backbones.signatures import read_arguments


def build_by_signature(
    module: nn.Module, hidden_size: int | None, *, function: Callable[..., Any] | None = None
) -> nn.Module:
    """Adapt a module by the names of its arguments and by trying it.

    Args:
        module: the user's module; a copy of it is run.
        hidden_size: D; None = find it out.
        function: tells the arguments and its name in place of the module's `forward` and class.

    Returns:
        The adapter, or the module itself where it turns out to follow `SequenceBackbone`.

    Raises:
        ValueError: if it cannot be told how to call it.

    Examples:
        >>> import torch
        >>> class Mine(nn.Module):
        ...     def forward(self, emb, padding_mask):
        ...         return (emb.masked_fill(padding_mask.unsqueeze(-1), 0).cumsum(1),)
        >>> build_by_signature(Mine(), None)(torch.ones(1, 2, 1), torch.tensor([[0, 1]])).tolist()
        [[[0.0], [1.0]]]
    """
    name = type(module).__name__
    if function is not None:
        name = getattr(function, "__name__", type(function).__name__)
    arguments = read_arguments(function or _forward_of(module), name)
    trials = SignatureTrials(module, name, arguments)
    backbone = trials.first_that_runs(hidden_size) if hidden_size else None
    if backbone is None:
        backbone = trials.first_that_runs(trials.find_width(hidden_size))
    if backbone is None:
        raise ValueError(f"{name} ran once and then no more: let it keep no state between calls")
    backbone = settle_side(trials, settle_masks(trials, backbone))
    if _follows_protocol(backbone):
        return module
    backbone.module = module
    if not any(True for _ in module.parameters()) and hidden_size is None:
        backbone.hidden_size = backbone.output_size = None  # any
    return backbone


def _forward_of(module: nn.Module) -> Callable[..., Any]:
    """The function whose signature tells the arguments, also of a compiled module."""
    return getattr(module, "_orig_mod", module).forward


def _follows_protocol(backbone: SignatureBackbone) -> bool:
    return (
        backbone.arguments.follows_protocol
        and backbone.call == Call(mask=MaskForm("real", "int"), right_padded=False)
        and not backbone.last_only
        and backbone.output_size == backbone.hidden_size
    )


def _has_protocol_names(backbone: object) -> bool:
    if not isinstance(backbone, nn.Module):
        return False
    try:
        arguments = read_arguments(_forward_of(backbone), "")
    except ValueError:
        return False
    names = arguments.embeds, arguments.mask
    return names == ("inputs_embeds", "attention_mask") and arguments.follows_protocol


@register_adapter("native", matches=_has_protocol_names, priority=-90)
def adapt_native(backbone: nn.Module, hidden_size: int | None) -> nn.Module:
    """Believe a module that says by its names that it follows the protocol, if it can be.

    Args:
        backbone: has arguments of these names.
        hidden_size: D; None = find it out.

    Returns:
        The module itself, or its adapter where it turns out to be different.
    """
    name = type(backbone).__name__
    trials = SignatureTrials(backbone, name, read_arguments(_forward_of(backbone), name))
    found = trials.first_that_runs(hidden_size) if hidden_size else None
    if found is None:
        try:
            found = trials.first_that_runs(trials.find_width(hidden_size))
        except ValueError:  # it is told where the width is asked for
            return backbone
    if found is None or found.call != Call(mask=MaskForm("real", "int")) or found.last_only:
        return build_by_signature(backbone, hidden_size)
    if found.output_size == found.hidden_size and hidden_size in (None, found.hidden_size):
        return backbone
    found = found.called(Call(mask=MaskForm("real", "int"), right_padded=False))
    found.module = backbone
    return found


@register_adapter("signature", matches=nn.Module, priority=-100)
def _signature(backbone: nn.Module, hidden_size: int | None) -> nn.Module:
    return build_by_signature(backbone, hidden_size)
