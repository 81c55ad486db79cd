"""The probes of `check_backbone`: one function per question about a backbone.

Each answer is one sentence, with advice if something is wrong.

Letters: B users, L positions, D hidden size.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from odmt_sdk.backbones.adapt import unwrap_backbone
from odmt_sdk.backbones.bridge import BackboneBridge
from odmt_sdk.backbones.check.probe_subject import ITEMS, Subject
from odmt_sdk.backbones.signature.trial import SAME_SHAPE, differs, other_shape, plain, summary
from odmt_sdk.backbones.undisturbed import undisturbed
from odmt_sdk.backbones.unsaved_tensors import unsaved_tensors

Level = Literal["ok", "warning", "error"]
LONGEST_TRIED = 512
SEEDS_TRIED = 8  # a weight without a gradient for all of them counts as unused


@dataclass(frozen=True)
class Answer:
    """The result of one probe.

    Args:
        level: "ok", "warning" or "error".
        message: one sentence.
        cause: the exception that the backbone raised, if any.
    """

    level: Level
    message: str
    cause: Exception | None = None


Probe = Callable[[Subject], Answer]


def shape(subject: Subject) -> Answer:
    """Is the output one tensor of real numbers, of the right shape?"""
    rows = subject.rows(3)
    try:
        hidden: Any = subject.run(rows)
    except Exception:  # a user's module may raise anything
        if _failure_at(subject, 1) is None:
            return _longest(subject, works=1)
        raise
    wanted = (3, subject.table.shape[1]) if subject.last_only else subject.inputs(rows)[0].shape
    if not isinstance(hidden, torch.Tensor):
        return Answer(
            "error",
            f"it returned a {type(hidden).__name__} instead of a tensor {tuple(wanted)}: return "
            "the hidden states alone, or pass bridge='signature', which finds them in the output",
        )
    if hidden.is_complex() or not hidden.is_floating_point():
        return Answer(
            "error",
            f"it returned {hidden.dtype} numbers, but item scores are real: return hidden.real, or "
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
    """Are the outputs the same after another batch was read?"""
    rows = subject.rows(3)
    before = subject.run(rows)
    subject.run(rows.flip(0, 1))
    if not differs(before, subject.run(rows, seed=1), SAME_SHAPE):
        return Answer("ok", "keeps no state between calls")
    if differs(before, subject.run(rows, again=True), SAME_SHAPE):  # not due to the other seed
        return Answer(
            "error",
            "it keeps state between calls, since the same batch gives different outputs the second "
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
    """Did the backbone leave its input unchanged in all previous runs?"""
    if subject.changes_its_input:
        return Answer(
            "warning",
            "it changes its input in place, which can break gradients: replace operations such as "
            "x += y by x = x + y",
        )
    return Answer("ok", "leaves its input unchanged")


def causal(subject: Subject) -> Answer:
    """Does every output depend only on its own and earlier items?"""
    if subject.last_only:
        return Answer("ok", "returns the last position, which has no future")
    steps = subject.length - 1
    if not steps:
        return Answer("ok", "sequences of one item have no future")
    before = subject.rows(1).expand(steps, -1)
    after = before.clone()
    late = torch.arange(steps, device=after.device)
    after[late, late + 1] = ITEMS  # row t has another item at position t + 1
    first, second = subject.run(torch.cat([before, after])).chunk(2)
    for position in range(steps):
        early = slice(position + 1)
        if differs(first[position, early], second[position, early], SAME_SHAPE):
            if subject.allow_future:
                return Answer("ok", "reads later items, as allowed")
            return Answer(
                "error",
                f"it reads the future: a change of item {position + 2} changes an earlier output, "
                f"so training would see its own targets. To prevent this, "
                f"{subject.way_out_of_the_future}; or pass allow_future=True if this is intended",
            )
    return Answer("ok", "no output depends on a later item")


def left_padding(subject: Subject) -> Answer:
    """Are the outputs independent of padding on the left?"""
    alone, among = _without_and_with_padding(subject, left=True)
    if not bool(among.isfinite().all()):
        return Answer(
            "error",
            "padding on the left turns its outputs into nan, which happens if a position cannot "
            "attend to any other: let every position attend to itself, or pass "
            "bridge='signature', which pads on the right",
        )
    if not differs(alone, among, other_shape(subject.table)):
        return Answer("ok", "changes nothing")
    return Answer(
        "warning",
        "padding on the left changes its outputs, so a user's recommendations depend on the other "
        "users in the batch: use attention_mask in forward or, if the model is causal, pass "
        "bridge='signature', which pads on the right",
    )


def right_padding(subject: Subject) -> Answer:
    """Are the outputs independent of padding on the right, where the collator adds none?"""
    alone, among = _without_and_with_padding(subject, left=False)
    if differs(alone, among, other_shape(subject.table)):
        return Answer("ok", "changes its outputs: keep padding on the left")
    return Answer("ok", "changes nothing")


def _without_and_with_padding(subject: Subject, *, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs at the same items, without padding and with padding."""
    number = max(1, subject.length - 2)
    alone = subject.rows(3)[:, :number]
    padding = alone.new_zeros(3, subject.length - number)
    rows = torch.cat([padding, alone] if left else [alone, padding], dim=1)
    among = subject.run(rows)
    if not subject.last_only:
        among = among[rows != 0].unflatten(0, alone.shape)  # (B, L, D) -> (B, number, D)
    return subject.run(alone), among


def independent_users(subject: Subject) -> Answer:
    """Does a user's output depend only on that user?"""
    before = subject.rows(3)
    after = before.clone()
    after[[0, 2]] = before[[2, 0]].flip(1) % ITEMS + 1
    if differs(subject.run(before)[1], subject.run(after)[1], SAME_SHAPE):
        return Answer(
            "error",
            "the outputs of one user depend on the other users in the batch: if it expects "
            "(L, B, D), use batch_first=True or transpose in forward_fn=; otherwise look for norms "
            "or attention over the batch",
        )
    return Answer("ok", "other users in the batch change nothing")


def empty_rows(subject: Subject) -> Answer:
    """Do outputs and gradients of other rows stay finite if one row has no items?"""
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
        return Answer("ok", "rows that hold only padding do no harm")
    return Answer(
        "error",
        "a row that holds only padding turns outputs or gradients into nan, which happens if a "
        "position cannot attend to any other: let every position attend to itself, or mask with a "
        "large negative number instead of -inf",
    )


def gradient(subject: Subject) -> Answer:
    """Do gradients reach the inputs and all weights?"""
    reached, unused = _gradients(subject)
    if not reached:
        return Answer("error", _NO_GRADIENT)
    always = unused
    for seed in range(1, SEEDS_TRIED) if unused else ():
        always = [name for name in always if name in _gradients(subject, seed)[1]]
    if always:
        return Answer(
            "warning",
            f"{_some(always)} got no gradient, because forward does not use them: "
            "remove or freeze them, or train with find_unused_parameters=True on several devices",
        )
    if unused:
        return Answer(
            "warning",
            f"{_some(unused)} got a gradient in some steps only, because forward skips parts at "
            "random in training (as LayerDrop does): train with find_unused_parameters=True on "
            "several devices, or set that probability to 0",
        )
    return Answer("ok", "reach the inputs and every weight")


def saved(subject: Subject) -> Answer:
    """Are all its weights in its state dict?"""
    module = plain(unwrap_backbone(subject.backbone))
    known = {id(value) for value in module.state_dict(keep_vars=True).values()}
    outside = [
        ".".join(filter(None, (path, name)))
        for path, part in module.named_modules()
        for name, tensor in unsaved_tensors(part, known)
        if isinstance(tensor, nn.Parameter) and tensor.requires_grad
    ]
    if outside:
        return Answer(
            "warning",
            f"{_some(outside)} are weights outside its state dict, such as modules in a plain list "
            "or dictionary: no optimizer trains them and no adapter holds them: keep them in "
            "nn.ModuleList, nn.ModuleDict or nn.ParameterList",
        )
    return Answer("ok", "all weights are in its state dict")


def _gradients(subject: Subject, seed: int = 0) -> tuple[bool, list[str]]:
    """Whether gradients reach the inputs, and the names of the weights without a gradient."""
    rows = subject.rows(3)
    embeds, mask = subject.inputs(rows)
    embeds.requires_grad_()
    trained = _trained(subject.backbone)
    with subject.training(seed):
        hidden = subject.backbone(embeds * 1, mask, **subject.ids(rows))
        if not hidden.requires_grad:
            return False, []
        weights = torch.linspace(-1, 1, hidden.numel()).reshape(hidden.shape).to(hidden)
        reached, *gradients = torch.autograd.grad(
            (hidden * weights).sum(), [embeds, *trained.values()], allow_unused=True
        )
    unused = [name for name, g in zip(trained, gradients, strict=True) if g is None]
    return reached is not None and bool(reached.any()), unused


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return f"{', '.join(names[:4])}{more}"


def training(subject: Subject) -> Answer:
    """Is training mode free of leaks from other users, later items or the previous batch?"""
    rows = subject.rows(3)
    norms = [n for n, part in subject.backbone.named_modules() if isinstance(part, BATCH_NORM)]
    with _without_recurrent_dropout(subject.backbone):
        first, second = (_run_training(subject, rows) for _ in range(2))
        if differs(first, second, SAME_SHAPE):
            return _explain_state(subject, rows)
        others = rows.clone()
        others[[0, 2]] = rows[[2, 0]].flip(1) % ITEMS + 1
        if differs(first[1], _run_training(subject, others)[1], SAME_SHAPE):
            if norms and _batch_norm_is_why(subject, rows, others):
                return Answer("warning", _BATCH_NORM.format(_some(norms)))
            return Answer(
                "warning",
                "in training mode, but not in eval mode, the outputs of one user depend on the "
                "other users in the batch: look for norms, attention or negatives over the batch, "
                "and keep them within a sequence",
            )
        later = rows.clone()
        later[:, -1] = ITEMS - later[:, -1] + 1
        late = _run_training(subject, later)
    known = subject.last_only or subject.allow_future
    if (
        not known
        and differs(first[:, :-1], late[:, :-1], SAME_SHAPE)
        and not differs(subject.run(rows)[:, :-1], subject.run(later)[:, :-1], SAME_SHAPE)
    ):
        return Answer(
            "error",
            "it reads the future in training mode: a change of the last item changes an earlier "
            "output, so training would see its own targets. Hide later positions in training as in "
            "eval mode; or pass allow_future=True if this is intended",
        )
    return Answer("ok", "mixes no users, and keeps nothing from the previous batch")


def _run_training(subject: Subject, rows: torch.Tensor) -> torch.Tensor:
    with torch.no_grad(), subject.training():
        hidden: torch.Tensor = subject.read(rows)
    return hidden


def _batch_norm_is_why(subject: Subject, rows: torch.Tensor, others: torch.Tensor) -> bool:
    """Whether users are independent in training mode if all batch norms are in eval mode."""
    seen = []
    for batch in (rows, others):
        with torch.no_grad(), subject.training():
            for part in subject.backbone.modules():
                if isinstance(part, BATCH_NORM):
                    part.eval()
            seen.append(subject.read(batch)[1])
    return not differs(seen[0], seen[1], SAME_SHAPE)


def _explain_state(subject: Subject, rows: torch.Tensor) -> Answer:
    """Explain why the same batch gives two results: state from earlier batches, or randomness."""
    after: list[torch.Tensor] = []
    for before in (rows, rows.flip(0, 1)):
        with undisturbed(subject.backbone):
            _run_training(subject, before)
            after.append(_run_training(subject, rows))
    if differs(after[0], after[1], SAME_SHAPE):
        return Answer(
            "error",
            "in training mode it carries state from one batch to the next, which has other "
            "users: start every forward from a fresh state, or reset it in forward_fn=",
        )
    return Answer(
        "warning",
        "in training mode the same batch and seed give different outputs the second time, because "
        "it counts its calls or draws from its own random generator. Runs cannot be reproduced, "
        "and activation checkpointing would compute wrong gradients: draw from torch's global "
        "generator",
    )


@contextmanager
def _without_recurrent_dropout(backbone: nn.Module) -> Iterator[None]:
    """Disable the dropout of recurrent layers; cuDNN uses a separate generator for it."""
    recurrent = [part for part in backbone.modules() if isinstance(part, nn.RNNBase)]
    rates = [part.dropout for part in recurrent]
    for part in recurrent:
        part.dropout = 0.0
    try:
        yield
    finally:
        for part, rate in zip(recurrent, rates, strict=True):
            part.dropout = rate


BATCH_NORM = (nn.modules.batchnorm._BatchNorm,)
_BATCH_NORM = (
    "{} is a BatchNorm: in training it normalizes over all users, their later items and the "
    "padding, so the same user gets other outputs than in eval mode. Use "
    "nn.LayerNorm(hidden_size) instead, which normalizes each position separately"
)
_NO_GRADIENT = (
    "no gradient reaches the item embeddings, so they would not be trained: remove detach(), "
    "torch.no_grad() and conversions to NumPy from forward"
)


def bfloat16(subject: Subject) -> Answer:
    """Does it run in bfloat16, with and without autocast?"""
    rows = subject.rows(2)
    try:
        with torch.autocast(subject.table.device.type, torch.bfloat16):
            hidden = subject.run(rows, again=True)
        with subject.moved(dtype=torch.bfloat16) as half:
            hidden_half = half.run(rows, again=True)
    except Exception as error:  # a user's module may raise anything
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
            f"it returns {hidden_half.dtype} for bfloat16 inputs: use autocast instead of "
            ".to(torch.bfloat16), or return hidden.to(inputs_embeds.dtype)",
        )
    return Answer("ok", "runs, with and without autocast")


def longest(subject: Subject) -> Answer:
    """Can the backbone read sequences of length `max_seq_length`?"""
    if subject.table.device.type == "cpu":
        return _longest(subject)
    # on a GPU, an index outside a table would make the device unusable for the process
    with subject.moved(device="cpu") as moved:
        if _failure_at(moved, moved.length):
            return Answer("ok", "not tried, since it does not run on the CPU")
        return _longest(moved)


def _longest(subject: Subject, works: int | None = None) -> Answer:
    """Find the longest sequence it reads, if one of `works` positions is known to be short."""
    length = min(subject.max_seq_length, LONGEST_TRIED)
    failure = _failure_at(subject, length)
    if failure is None:
        return Answer("ok", f"reads {length} positions")
    works, fails = works or subject.length, length
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
    except Exception as error:  # a user's module may raise anything
        return error
    return None


def _trained(backbone: nn.Module) -> dict[str, nn.Parameter]:
    """The trainable parameters, by the names in the user's own module."""
    if isinstance(backbone, BackboneBridge):
        return {**_trained(backbone.module), **_own(backbone)}
    return {name: p for name, p in backbone.named_parameters() if p.requires_grad}


def _own(bridge: BackboneBridge) -> dict[str, nn.Parameter]:
    """The trainable parameters that a bridge adds to the module inside."""
    return {
        name: parameter
        for name, parameter in bridge.named_parameters()
        if parameter.requires_grad and not name.startswith("module.")
    }
