"""Bridges for all other modules, based on argument names and trial runs.

Names indicate which argument is a mask, and sometimes whether 1 means real or ignored. The result
is verified on padded rows: with the correct form of the mask, the outputs at real positions depend
on the real items and not on the content of the padding.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from odmt_sdk.backbones.adapt import register_bridge
from odmt_sdk.backbones.signature.backbone import Call, MaskForm
from odmt_sdk.backbones.signature.roles import WAY_OUT, read_arguments
from odmt_sdk.backbones.signature.trial import SAME_SHAPE, differs, plain
from odmt_sdk.backbones.signature.trials import SignatureTrials
from odmt_sdk.backbones.undisturbed import tried

WORDS = {"real": "1 = real", "ignored": "1 = ignored", "additive": "added to attention scores"}
PROTOCOL = Call(mask=MaskForm("real", "int"), right_padded=False)


def build_by_signature(
    module: nn.Module, hidden_size: int | None, *, function: Callable[..., Any] | None = None
) -> nn.Module:
    """Build a bridge for a module from the names of its arguments and trial runs.

    Args:
        module: the user's module; it is run and then restored.
        hidden_size: D; None = determine it.
        function: a callable whose signature and name are used instead of those of the module.

    Returns:
        The bridge, or the module itself if it already follows `SequenceBackbone`.

    Raises:
        ValueError: if it is unclear how to call the module.

    Examples:
        >>> import torch
        >>> class Mine(nn.Module):
        ...     def forward(self, emb, padding_mask):
        ...         return (emb.masked_fill(padding_mask.unsqueeze(-1), 0).cumsum(1),)
        >>> build_by_signature(Mine(), None)(torch.ones(1, 2, 1), torch.tensor([[0, 1]])).tolist()
        [[[0.0], [1.0]]]
    """
    trials = SignatureTrials(module, function)
    with tried(module):
        trials.find(hidden_size)
        return _settle(trials, module, hidden_size)


def _settle(trials: SignatureTrials, module: nn.Module, hidden_size: int | None) -> nn.Module:
    """Determine the form of the masks and the side of the padding by measurement."""
    backbone, call = trials.backbone, trials.backbone.call
    if call.mask or call.causal:
        call = _settle_masks(trials, call)
    backbone.call = _settle_side(trials, call)
    if (
        backbone.arguments.follows_protocol
        and backbone.call == PROTOCOL
        and not backbone.last_only
        and backbone.output_size == backbone.hidden_size
    ):
        return module
    backbone.module = module
    if not any(True for _ in module.parameters()) and hidden_size is None:
        backbone.hidden_size = backbone.output_size = None  # any width
    return backbone


def _settle_masks(trials: SignatureTrials, found: Call) -> Call:
    """Choose the form of the masks that hides the padding and nothing else.

    Left padding is tested first, because a wrong mask then exposes padding even to a causal model.
    Some modules, such as recurrent layers, do not hide left padding even with the correct mask.
    They are tested with right padding, which only affects outputs at padding.

    Raises:
        ValueError: if no form works, if two forms of opposite sense work, or if the module does not
            repeat its results.
    """
    arguments = trials.arguments
    name = arguments.mask or arguments.causal
    if not trials.repeats(found):
        raise ValueError(
            f"{trials.name} does not give the same result twice, so the meaning of its argument "
            f"{name!r} cannot be measured: let it keep no state between calls, or {WAY_OUT}"
        )
    for right_padded in (True,) if arguments.lengths else (False, True):
        good: dict[Call, torch.Tensor] = {}
        for call in trials.calls():
            same_masks = (not call.mask, not call.causal) == (not found.mask, not found.causal)
            if not same_masks or _senses(call) in map(_senses, good):
                continue
            call = dataclasses.replace(call, right_padded=right_padded, key=found.key)
            seen = trials.see(call)
            if seen and seen.hides_padding:
                good[call] = seen.hidden
                if call.mask and call.mask.sense == arguments.mask_sense:
                    break  # the name indicates this sense, and the measurement confirms it
        if not good:
            continue
        chosen = next(iter(good))
        for call, hidden in good.items():
            if differs(good[chosen], hidden, SAME_SHAPE):
                raise ValueError(
                    f"{trials.name}: its argument {name!r} can be read as {_say(chosen)} or as "
                    f"{_say(call)}. Both hide the padding but give different results: {WAY_OUT}"
                )
        if len(good) > 1 and arguments.mask_by_place:
            raise ValueError(
                f"{trials.name} requires {name}, which is an unknown name. A mask in its place "
                f"makes no difference, so it may be something else: {WAY_OUT}"
            )
        return chosen
    raise ValueError(
        f"{trials.name}: no form of its argument {name!r} makes the outputs depend on every item "
        f"and on no padding: {WAY_OUT}"
    )


def _settle_side(trials: SignatureTrials, call: Call) -> Call:
    """Choose the side on which padding has no effect, or the least.

    The wrapper pads on the left, so left padding needs no reordering. With right padding, a causal
    model never sees the padding. A module that returns the last position without receiving lengths
    or a mask reads the last slot, which contains an item only with left padding.
    """
    left, right = (dataclasses.replace(call, right_padded=side) for side in (False, True))
    last_only = trials.backbone.last_only
    if trials.arguments.lengths or not (call.mask or last_only):
        return right
    if trials.ignores_padding(left) and trials.stays_finite(left):
        return left
    return left if last_only and not trials.ignores_padding(right) else right


def _senses(call: Call) -> tuple[str, ...]:
    return tuple(form.sense for form in (call.mask, call.causal) if form)


def _say(call: Call) -> str:
    return " and ".join(WORDS[sense] for sense in _senses(call))


def _has_protocol_names(backbone: object) -> bool:
    if not isinstance(backbone, nn.Module):
        return False
    try:
        arguments = read_arguments(plain(backbone).forward, "")
    except ValueError:
        return False
    names = arguments.embeds, arguments.mask
    return names == ("inputs_embeds", "attention_mask") and arguments.follows_protocol


@register_bridge("native", matches=_has_protocol_names, priority=-90)
def adapt_native(backbone: nn.Module, hidden_size: int | None) -> nn.Module:
    """Use a module as it is if it follows the protocol; a bridge if a trial run shows otherwise."""
    trials = SignatureTrials(backbone)
    with tried(backbone):
        try:
            found = trials.find(hidden_size)
        except ValueError:  # reported when the width is determined, or by `check_backbone`
            return backbone
        believed = dataclasses.replace(PROTOCOL, right_padded=True)
        if found.call != believed or found.last_only:
            return _settle(trials, backbone, hidden_size)
    if found.output_size == found.hidden_size and hidden_size in (None, found.hidden_size):
        return backbone
    found.call, found.module = PROTOCOL, backbone
    return found


@register_bridge("signature", matches=nn.Module, priority=-100)
def _signature(backbone: nn.Module, hidden_size: int | None) -> nn.Module:
    return build_by_signature(backbone, hidden_size)
