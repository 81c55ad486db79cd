"""What is measured on a backbone, one question a function.

Each answer is a sentence, with the way out where something is wrong.

Letters: B users, L positions, D hidden size.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from odmt_sdk.backbones.adapter import BackboneAdapter
from odmt_sdk.backbones.probe_subject import ITEMS, Subject
from odmt_sdk.backbones.trial import SAME_SHAPE, differs, other_shape, seeded, summary

Level = Literal["ok", "warning", "error"]
LONGEST_TRIED = 512


@dataclass(frozen=True)
class Answer:
    """What came out.

    Args:
        level: how grave it is.
        message: one sentence.
        cause: what the backbone raised, if it did.
    """

    level: Level
    message: str
    cause: Exception | None = None


Probe = Callable[[Subject], Answer]


def shape(subject: Subject) -> Answer:
    """Is the output one tensor of real numbers, of the right shape?"""
    rows = subject.rows(3)
    hidden: Any = subject.run(rows)
    wanted = (3, subject.table.shape[1]) if subject.last_only else subject.inputs(rows)[0].shape
    if not isinstance(hidden, torch.Tensor):
        return Answer(
            "error",
            f"it returned a {type(hidden).__name__} in place of a tensor {tuple(wanted)}: return "
            "the hidden states alone, or pass adapter='signature' to have them picked out",
        )
    if hidden.is_complex() or not hidden.is_floating_point():
        return Answer(
            "error",
            f"it returned {hidden.dtype} numbers, and item scores are real: return hidden.real, or "
            "torch.view_as_real(hidden).flatten(-2)",
        )
    if hidden.shape != wanted:
        return Answer(
            "error",
            f"it returned the shape {tuple(hidden.shape)} for embeddings of shape "
            f"{tuple(subject.inputs(rows)[0].shape)}: return one state of the same width for each "
            "position, or pass project=True for another width",
        )
    return Answer("ok", f"returns {'the last position' if subject.last_only else 'every position'}")


def finite(subject: Subject) -> Answer:
    """Are all outputs finite?"""
    if not bool(subject.run(subject.rows(3)).isfinite().all()):
        return Answer(
            "error", "it returned nan or inf for small normal inputs: check divisions and masks"
        )
    return Answer("ok", "all outputs are finite")


def stateless(subject: Subject) -> Answer:
    """Does it answer the same after having read something else?"""
    rows = subject.rows(3)
    before = subject.run(rows)
    subject.run(rows.flip(0, 1))
    if differs(before, subject.run(rows), SAME_SHAPE):
        return Answer(
            "error",
            "it keeps state between calls, since the same batch gives other outputs the second "
            "time: start every forward from a fresh state, or reset it in forward_fn=",
        )
    return Answer("ok", "keeps no state between calls")


def deterministic(subject: Subject) -> Answer:
    """Is it free of randomness in eval mode?"""
    rows = subject.rows(3)
    if differs(subject.run(rows), subject.run(rows, seed=1), SAME_SHAPE):
        return Answer(
            "error",
            "it draws random numbers in eval mode, so recommendations would change from call to "
            "call: pass training=self.training to functional dropout",
        )
    return Answer("ok", "the same in every call")


def untouched_input(subject: Subject) -> Answer:
    """Does it leave its input alone?"""
    rows = subject.rows(2)
    embeds, mask = subject.inputs(rows)
    given = embeds.clone(), mask.clone()
    with torch.no_grad(), seeded(subject.backbone):
        subject.backbone(*given, **subject.ids(rows))
    if not (torch.equal(given[0], embeds) and torch.equal(given[1], mask)):
        return Answer(
            "warning",
            "it changes its input in place, which can break gradients: replace operations such as "
            "x += y by x = x + y",
        )
    return Answer("ok", "leaves its input unchanged")


def causal(subject: Subject) -> Answer:
    """Does every output depend on earlier items only?"""
    if subject.last_only:
        return Answer("ok", "returns the last position, which has no future")
    steps = subject.length - 1
    if not steps:
        return Answer("ok", "sequences of one item have no future")
    before = subject.rows(1).expand(steps, -1)
    after = before.clone()
    late = torch.arange(steps, device=after.device)
    after[late, late + 1] = ITEMS  # row t: another item at position t + 1
    first, second = subject.run(before), subject.run(after)
    for position in range(steps):
        early = slice(position + 1)
        if differs(first[position, early], second[position, early], SAME_SHAPE):
            if subject.allow_future:
                return Answer("ok", "reads later items, as allowed")
            return Answer(
                "error",
                f"it reads the future, since a change of item {position + 2} moved an output "
                f"before it and training would be shown its own answers: "
                f"{subject.way_out_of_the_future}; or pass allow_future=True if that is meant",
            )
    return Answer("ok", "no output depends on a later item")


def left_padding(subject: Subject) -> Answer:
    """Does padding on the left change nothing?"""
    alone, among = _without_and_with_padding(subject, left=True)
    if not bool(among.isfinite().all()):
        return Answer(
            "error",
            "padding on the left turns its outputs into nan, as attention to nothing does: let "
            "every position see itself, or pass adapter='signature' to have it read rows padded on "
            "the right",
        )
    if not differs(alone, among, other_shape(subject.table)):
        return Answer("ok", "changes nothing")
    return Answer(
        "warning",
        "padding on the left changes its outputs, so that a user's recommendations depend on the "
        "others in the batch: let it use attention_mask, or pass adapter='signature' to have it "
        "read rows padded on the right if it is causal",
    )


def right_padding(subject: Subject) -> Answer:
    """Does padding on the right, where the collator puts none, change nothing?"""
    alone, among = _without_and_with_padding(subject, left=False)
    if differs(alone, among, other_shape(subject.table)):
        return Answer("ok", "changes its outputs: keep padding on the left")
    return Answer("ok", "changes nothing")


def _without_and_with_padding(subject: Subject, *, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs at the same items, without padding and among it."""
    number = max(1, subject.length - 2)
    alone = subject.rows(3)[:, :number]
    padding = alone.new_zeros(3, subject.length - number)
    rows = torch.cat([padding, alone] if left else [alone, padding], dim=1)
    among = subject.run(rows)
    if not subject.last_only:
        among = among[rows != 0].unflatten(0, alone.shape)  # (B, L, D) -> (B, number, D)
    return subject.run(alone), among


def independent_users(subject: Subject) -> Answer:
    """Does a user's output depend on that user alone?"""
    before = subject.rows(3)
    after = before.clone()
    after[[0, 2]] = before[[2, 0]].flip(1) % ITEMS + 1
    if differs(subject.run(before)[1], subject.run(after)[1], SAME_SHAPE):
        return Answer(
            "error",
            "the outputs of one user change with the others in the batch: if it expects (L, B, D), "
            "use batch_first=True or transpose in forward_fn=; else look for norms or attention "
            "over the batch",
        )
    return Answer("ok", "other users in the batch change nothing")


def empty_rows(subject: Subject) -> Answer:
    """Does a row without any item leave outputs and gradients of the others finite?"""
    rows = subject.rows(3)
    rows[1] = 0
    embeds, mask = subject.inputs(rows)
    embeds.requires_grad_()
    with subject.training():
        hidden = subject.backbone(embeds * 1, mask, **subject.ids(rows))
        others = hidden[[0, 2]]
        gradients = torch.autograd.grad(
            others.float().sum(),
            [embeds, *_trained(subject.backbone).values()],
            allow_unused=True,
        )
    if all(bool(x.isfinite().all()) for x in (others, *gradients) if x is not None):
        return Answer("ok", "rows of padding alone do no harm")
    return Answer(
        "error",
        "a row of padding alone turns outputs or gradients into nan, as attention to nothing does: "
        "let every position see itself, or hide with a large negative number in place of -inf",
    )


def gradient(subject: Subject) -> Answer:
    """Do gradients reach the inputs and all weights?"""
    embeds, mask = subject.inputs(subject.rows(3))
    embeds.requires_grad_()
    trained = _trained(subject.backbone)
    with subject.training():
        hidden = subject.backbone(embeds * 1, mask, **subject.ids(subject.rows(3)))
        if not hidden.requires_grad:
            return Answer("error", _NO_GRADIENT)
        weights = torch.linspace(-1, 1, hidden.numel()).reshape(hidden.shape).to(hidden)
        reached, *gradients = torch.autograd.grad(
            (hidden * weights).sum(), [embeds, *trained.values()], allow_unused=True
        )
    if reached is None or not bool(reached.any()):
        return Answer("error", _NO_GRADIENT)
    unused = [name for name, g in zip(trained, gradients, strict=True) if g is None]
    if unused:
        more = f" and {len(unused) - 4} more" if len(unused) > 4 else ""
        return Answer(
            "warning",
            f"{', '.join(unused[:4])}{more} got no gradient, since forward does not use them: "
            "remove or freeze them, or train with find_unused_parameters=True on several devices",
        )
    return Answer("ok", "reach the inputs and every weight")


_NO_GRADIENT = (
    "no gradient reaches the item embeddings, so items would learn nothing: remove detach(), "
    "torch.no_grad() and conversions to NumPy from forward"
)


def bfloat16(subject: Subject) -> Answer:
    """Does it run in bfloat16, with and without autocast?"""
    rows = subject.rows(2)
    try:
        with torch.autocast(subject.table.device.type, torch.bfloat16):
            hidden = subject.run(rows)
        hidden_half = subject.moved(dtype=torch.bfloat16).run(rows)
    except Exception as error:  # whatever the user's module raises
        return Answer(
            "warning",
            f"it does not run in bfloat16 ({summary(error)}): train in float32, or create tensors "
            "with the dtype of the input in forward",
            error,
        )
    if not bool(hidden.isfinite().all() and hidden_half.isfinite().all()):
        return Answer("warning", "it returns nan or inf in bfloat16: train in float32")
    if hidden_half.dtype != torch.bfloat16:
        return Answer(
            "warning",
            f"it returns {hidden_half.dtype} for bfloat16 inputs: use autocast in place of "
            ".to(torch.bfloat16), or return hidden.to(inputs_embeds.dtype)",
        )
    return Answer("ok", "runs, with and without autocast")


def longest(subject: Subject) -> Answer:
    """Can it read sequences of the greatest length?"""
    if subject.table.device.type != "cpu":  # an index beyond a table would end the process there
        subject = subject.moved(device="cpu")
        if _failure_at(subject, subject.length):
            return Answer("ok", "not tried, since it does not run on the CPU")
    length = min(subject.max_seq_length, LONGEST_TRIED)
    failure = _failure_at(subject, length)
    if failure is None:
        return Answer("ok", f"reads {length} positions")
    works, fails = subject.length, length
    while fails - works > 1:
        middle = (works + fails) // 2
        works, fails = (works, middle) if _failure_at(subject, middle) else (middle, fails)
    return Answer(
        "error",
        f"it reads at most {works} positions, and max_seq_length is {subject.max_seq_length} "
        f"({summary(failure)}): set max_seq_length={works}, or build it with a longer position "
        "table",
        failure,
    )


def _failure_at(subject: Subject, length: int) -> Exception | None:
    rows = torch.arange(length, device=subject.table.device).unsqueeze(0) % ITEMS + 1
    try:
        subject.run(rows)
    except Exception as error:  # whatever the user's module raises
        return error
    return None


def _trained(backbone: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that are to be trained, by the names that the user knows."""
    if isinstance(backbone, BackboneAdapter):
        return {**_trained(backbone.module), **_own(backbone)}
    return {name: p for name, p in backbone.named_parameters() if p.requires_grad}


def _own(adapter: BackboneAdapter) -> dict[str, nn.Parameter]:
    """Those that the adapter adds to the module inside."""
    return {
        name: parameter
        for name, parameter in adapter.named_parameters()
        if parameter.requires_grad and not name.startswith("module.")
    }
