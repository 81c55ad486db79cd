"""Measuring what a module's mask means, and on which side it wants its padding.

Names say which argument is a mask, but not whether 1 means real or ignored. So each form is tried
on padded rows: with the right one, outputs at real positions answer to the real items and to
nothing that stands in the padding.

Letters: B users, L positions, D hidden size, P real positions.
"""

import dataclasses

import torch

from odmt_sdk.backbones.signature_backbone import Call, SignatureBackbone
from odmt_sdk.backbones.signature_trials import (
    BATCH,
    LENGTH,
    SHORTEST,
    WIDTH_WITHOUT_WEIGHTS,
    SignatureTrials,
)
from odmt_sdk.backbones.signatures import WAY_OUT
from odmt_sdk.backbones.trial import SAME_SHAPE, differs, other_shape, random_embeds

WORDS = {"real": "1 = real", "ignored": "1 = ignored", "additive": "added to attention scores"}


def settle_masks(trials: SignatureTrials, backbone: SignatureBackbone) -> SignatureBackbone:
    """Choose the form of masks that hides the padding and nothing else.

    Padding on the left tells most: there a wrong mask shows the padding to a causal model, too.
    What does not hide it even with the right mask, such as a recurrent layer, is tried with padding
    on the right, where only outputs at padding may be affected.

    Args:
        trials: runs the module.
        backbone: a way of calling it that runs.

    Returns:
        The way of calling that works.

    Raises:
        ValueError: if no form does, or two of contrary sense do; or if the module gives other
            results every time.
    """
    if not (backbone.call.mask or backbone.call.causal):
        return backbone
    _check_repeatable(trials, backbone)
    for right_padded in (True,) if backbone.arguments.lengths else (False, True):
        good: dict[Call, torch.Tensor] = {}
        for arguments, call in trials.calls():
            if arguments != backbone.arguments or _senses(call) in {(), *map(_senses, good)}:
                continue
            call = dataclasses.replace(call, right_padded=right_padded, key=backbone.call.key)
            hidden = _hidden_if_good(trials, backbone.called(call))
            if hidden is not None:
                good[call] = hidden
        for call, hidden in good.items():
            chosen = next(iter(good))
            if differs(good[chosen], hidden, SAME_SHAPE):
                raise ValueError(
                    f"{trials.name}: its argument {_mask_name(backbone)!r} can be read as "
                    f"{_say(chosen)} or as {_say(call)}, both hide the padding but give different "
                    f"results: {WAY_OUT}"
                )
        if len(good) > 1 and backbone.arguments.mask_by_place:
            raise ValueError(
                f"{trials.name} needs {_mask_name(backbone)}, which is no known name, and a mask "
                f"in its place makes no difference, so it may be something else: {WAY_OUT}"
            )
        if good:
            return backbone.called(next(iter(good)))
    raise ValueError(
        f"{trials.name}: with no form of its argument {_mask_name(backbone)!r} do outputs answer "
        f"to every item and to no padding: {WAY_OUT}"
    )


def settle_side(trials: SignatureTrials, backbone: SignatureBackbone) -> SignatureBackbone:
    """Choose the side on which padding changes nothing, or little.

    Left is the wrapper's own side and needs no re-ordering. On the right nothing of it reaches a
    causal model. A module that returns the last position without being told where it is reads the
    last slot, which holds an item only if padding is on the left.

    Args:
        trials: runs the module.
        backbone: a way of calling it that works.

    Returns:
        The same on the better side.
    """
    left, right = (
        backbone.called(dataclasses.replace(backbone.call, right_padded=side))
        for side in (False, True)
    )
    if backbone.arguments.lengths or not (backbone.call.mask or backbone.last_only):
        return right
    if _padding_changes_nothing(trials, left) and trials.stays_finite(left):
        return left
    if backbone.last_only and not _padding_changes_nothing(trials, right):
        return left
    return right


def _hidden_if_good(trials: SignatureTrials, backbone: SignatureBackbone) -> torch.Tensor | None:
    """Its outputs (P, output size), if all answer to the real items and none to the padding."""
    width = backbone.hidden_size or WIDTH_WITHOUT_WEIGHTS
    (embeds, mask), (other, _) = (trials.padded_rows(width, seed=seed) for seed in (0, 1))
    padding = (mask == 0).unsqueeze(-1)  # (B, L, 1)
    hidden = trials.run(backbone, embeds, mask)
    if hidden is None or not bool(hidden.isfinite().all()):
        return None
    other_padding = trials.run(backbone, torch.where(padding, other, embeds), mask)
    if other_padding is None or differs(hidden, other_padding, SAME_SHAPE):
        return None
    other_items = trials.run(backbone, torch.where(padding, embeds, other), mask)
    if other_items is None:
        return None
    moves = (hidden - other_items).abs().amax(-1)  # (P,)
    if not bool((moves > SAME_SHAPE * hidden.abs().max()).all()):
        return None
    if backbone.call.causal and not backbone.last_only:
        changed = torch.cat([embeds[:, :-1], other[:, -1:]], dim=1)
        other_last = trials.run(backbone, changed, mask)
        positions = torch.arange(LENGTH, device=mask.device).expand_as(mask)[mask.bool()]
        early = positions < LENGTH - 1  # (P,)
        if other_last is None or differs(hidden[early], other_last[early], SAME_SHAPE):
            return None
    return hidden


def _padding_changes_nothing(trials: SignatureTrials, backbone: SignatureBackbone) -> bool:
    """Whether padded rows, of zeros or anything, give what they give without padding."""
    if backbone.call.mask and _hidden_if_good(trials, backbone) is None:
        return False
    width = backbone.hidden_size or WIDTH_WITHOUT_WEIGHTS
    short = random_embeds(trials.module, BATCH, SHORTEST, width)
    padded = torch.cat([short.new_zeros(BATCH, LENGTH - SHORTEST, width), short], dim=1)
    mask = torch.ones(BATCH, LENGTH, dtype=torch.long, device=short.device)
    mask[:, :-SHORTEST] = 0
    alone = trials.run(backbone, short, mask[:, -SHORTEST:])
    among_padding = trials.run(backbone, padded, mask)
    if alone is None or among_padding is None:
        return False
    return not differs(alone, among_padding, other_shape(short))


def _check_repeatable(trials: SignatureTrials, backbone: SignatureBackbone) -> None:
    """Nothing can be measured on a module that answers differently each time."""
    embeds, mask = trials.padded_rows(backbone.hidden_size or WIDTH_WITHOUT_WEIGHTS)
    runs = [trials.run(backbone, embeds, mask) for _ in range(2)]
    first, second = (torch.zeros(0) if run is None else run.nan_to_num() for run in runs)
    if first.shape != second.shape or differs(first, second, SAME_SHAPE):
        raise ValueError(
            f"{trials.name} does not give the same result twice, so what its argument "
            f"{_mask_name(backbone)!r} means cannot be measured: let it keep no state between "
            f"calls, or {WAY_OUT}"
        )


def _mask_name(backbone: SignatureBackbone) -> str | None:
    return backbone.arguments.mask or backbone.arguments.causal


def _senses(call: Call) -> tuple[str, ...]:
    return tuple(form.sense for form in (call.mask, call.causal) if form)


def _say(call: Call) -> str:
    return " and ".join(WORDS[sense] for sense in _senses(call))
