"""`SignatureTrials`: trial runs of a module with every plausible way to call it.

Letters: B users, L positions, D hidden size, P real positions.
"""

import dataclasses
import itertools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from odmt_sdk.backbones.signature.backbone import Call, MaskForm, SignatureBackbone
from odmt_sdk.backbones.signature.hidden_size import find_width
from odmt_sdk.backbones.signature.returned import describe, find_hidden_states, take
from odmt_sdk.backbones.signature.roles import WAY_OUT, one_batch, read_arguments
from odmt_sdk.backbones.signature.trial import (
    SAME_SHAPE,
    differs,
    other_shape,
    plain,
    random_embeds,
    seeded,
    summary,
)

MASK_FORMS = (
    MaskForm("real", "int"),
    MaskForm("real", "bool"),
    MaskForm("ignored", "bool"),
    MaskForm("ignored", "int"),
    MaskForm("real", "float"),
    MaskForm("ignored", "float"),
    MaskForm("additive", "float"),
)
CAUSAL_FORMS = (
    MaskForm("ignored", "bool"),
    MaskForm("additive", "float"),
    MaskForm("real", "bool"),
)
WIDTH_WITHOUT_WEIGHTS = 8
BATCH = 2
LENGTHS = (6, 4, 2)  # tried in this order, because a position table may be short


@dataclass(frozen=True)
class Seen:
    """Result of one way to call the module on rows with padding.

    Args:
        hidden: (P, output size) at the real positions of the rows, or (B, output size).
        hides_padding: whether the output depends on all real items and on nothing else.
        among_zeros: states of rows padded with zeros, at real positions or at the last position.
    """

    hidden: torch.Tensor
    hides_padding: bool
    among_zeros: torch.Tensor


class SignatureTrials:
    """Runs a module in different ways; use it inside the context manager `tried`.

    `find` comes first: it finds the hidden states, which the other runs compare.

    Args:
        module: the user's module; its uncompiled module is run.
        function: a callable whose signature and name are used instead of those of the module.

    Attributes:
        backbone: the module with the way to call it that was tried last, from `find` on.
    """

    backbone: SignatureBackbone

    def __init__(self, module: nn.Module, function: Callable[..., Any] | None = None) -> None:
        self.module = plain(module)
        named = self.module if function is None else function
        self.name = getattr(named, "__name__", type(named).__name__)
        self.arguments = read_arguments(function or self.module.forward, self.name)
        self.failures: dict[int, Exception] = {}  # width -> the error of the run
        self.width = WIDTH_WITHOUT_WEIGHTS
        self.length = LENGTHS[0]
        self._first: dict[tuple[int, int], SignatureBackbone | None] = {}  # by width and length
        self._raised: set[tuple[int, int, Call]] = set()  # with width and length
        self._seen: dict[Call, Seen | None] = {}

    def find(self, hidden_size: int | None) -> SignatureBackbone:
        """Find the first way to call the module that returns hidden states.

        Args:
            hidden_size: D; if the module does not run at this width, others are tried.

        Returns:
            The module with that way to call it.

        Raises:
            ValueError: if the module runs at no width, or several widths are possible.
        """
        limit = getattr(self.module, "max_seq_length", None)
        limit = limit if isinstance(limit, int) and limit > 0 else LENGTHS[0]
        for self.length in [n for n in LENGTHS if n <= limit] or [limit]:
            width = hidden_size
            if not width or self._first_that_runs(width) is None:
                width = find_width(self.module, self._returns, self.name)
            if width is None and not any(True for _ in self.module.parameters()):
                width = WIDTH_WITHOUT_WEIGHTS
            found = self._first_that_runs(width) if width else None
            if found:
                self.width = found.hidden_size or WIDTH_WITHOUT_WEIGHTS
                self.backbone = found
                return found
        width, cause = next(iter(self.failures.items()), (0, None))
        why = f" (at width {width}, {summary(cause)})" if cause else ""
        advice = WAY_OUT if hidden_size else f"pass its width as hidden_size=, or {WAY_OUT}"
        advice = one_batch(self.module, self.arguments, self.failures) or advice
        raise ValueError(f"{self.name} could not be run on embeddings{why}: {advice}") from cause

    def calls(self) -> Iterator[Call]:
        """Yield all plausible ways to call the module, the most common first."""
        arguments = self.arguments
        # forms of the sense that the name suggests go first, the others follow as fallbacks
        forms = sorted(MASK_FORMS, key=lambda form: form.sense != (arguments.mask_sense or "real"))
        masks: tuple[MaskForm | None, ...] = tuple(forms) if arguments.mask else (None,)
        causals: tuple[MaskForm | None, ...] = CAUSAL_FORMS if arguments.causal else (None,)
        pairs = list(itertools.product(masks, causals))
        if arguments.mask and not arguments.causal:  # a single `mask` may be the causal mask
            pairs += [(None, causal) for causal in CAUSAL_FORMS]
        if {arguments.mask, arguments.causal} - {None} <= arguments.optional:
            pairs.append((None, None))
        for mask, causal in pairs:
            for longest_first in (False, True) if arguments.lengths else (False,):
                yield Call(mask=mask, causal=causal, longest_first=longest_first)

    def _returns(self, width: int) -> int | None:
        found = self._first_that_runs(width)
        return found.output_size if found else None

    def _first_that_runs(self, width: int) -> SignatureBackbone | None:
        if (width, self.length) not in self._first:
            self._first[width, self.length] = self._try_calls(width)
        return self._first[width, self.length]

    def _try_calls(self, width: int) -> SignatureBackbone | None:
        # the form of a mask does not depend on the width: what ran at one is tried at another
        known = next((one for one in self._first.values() if one), None)
        calls = self.calls() if known is None else [dataclasses.replace(known.call, key=None)]
        reasons: dict[str | None, str] = {}  # kind of mask -> error message
        for call in calls:
            try:
                with self._quietly():
                    return self._look(call, width)
            except Exception as error:  # a user's module may raise anything
                self._raised.add((width, self.length, call))
                self.failures.setdefault(width, error)
                reasons.setdefault(call.mask.kind if call.mask else None, str(error))
            if len(reasons) == 3 and len(set(reasons.values())) == 1:
                return None  # the mask is not the cause
        return None

    def _look(self, call: Call, width: int) -> SignatureBackbone:
        """Call the module once with right padding and find the hidden states."""
        embeds, mask = self.padded_rows(width)
        backbone = SignatureBackbone(self.module, self.arguments, call, hidden_size=width)
        counts = mask.sum(1).sort(descending=call.longest_first).values
        real = torch.arange(self.length, device=mask.device) < counts.unsqueeze(1)
        returned = backbone.returned(embeds, real, counts)
        key = find_hidden_states(returned, batch=BATCH, length=self.length, hidden_size=width)
        hidden = take(returned, key)
        if hidden.shape == (BATCH, self.length) and width != self.length:
            cut = self.length - 1
            fewer = backbone.returned(embeds[:, :cut], real[:, :cut], counts.clamp(max=cut))
            if take(fewer, key).shape == (BATCH, cut):
                raise TypeError(
                    f"it returned one number per position, {describe(returned)}, but hidden states "
                    "are (B, L, D)"
                )
        backbone.call = dataclasses.replace(call, key=key)
        backbone.output_size, backbone.last_only = hidden.shape[-1], hidden.ndim == 2
        return backbone

    def padded_rows(self, width: int, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings (B, L, D), random also at the padding on the left, and mask (B, L), 1 = real.

        Of 6 positions, 4 and 5 are real. There are more real positions than padding, so that
        lengths computed from a mask of the wrong sense are too short.
        """
        embeds = random_embeds(self.module, BATCH, self.length, width, seed=seed)
        mask = torch.ones(BATCH, self.length, dtype=torch.long, device=embeds.device)
        mask[0, : self.padding] = mask[1, : self.padding - 1] = 0
        return embeds, mask

    @property
    def padding(self) -> int:
        """Number of padding positions in the shortest sequence."""
        return min(2, self.length - 1)

    def see(self, call: Call) -> Seen | None:
        """Call the module once on variants of the same rows; None if it fails or is not finite."""
        if call not in self._seen:
            tried = dataclasses.replace(call, right_padded=True, key=None)
            raised = (self.width, self.length, tried) in self._raised
            self._seen[call] = None if raised else self._see(call)
        return self._seen[call]

    def _see(self, call: Call) -> Seen | None:
        (embeds, mask), (other, _) = (self.padded_rows(self.width, seed=seed) for seed in (0, 1))
        padding = (mask == 0).unsqueeze(-1)  # (B, L, 1)
        short_mask = torch.ones_like(mask)
        short_mask[:, : self.padding] = 0
        variants = [
            (embeds, mask),
            (torch.where(padding, other, embeds), mask),  # other padding
            (torch.where(padding, embeds, other), mask),  # other items
            (embeds * short_mask.unsqueeze(-1), short_mask),  # padding of zeros
        ]
        later = torch.cat([embeds[:, :-1], other[:, -1:]], dim=1)
        if call.causal and not self.backbone.last_only:
            variants.append((later, mask))
        hidden = self.run(call, *(torch.cat(part) for part in zip(*variants, strict=True)))
        if hidden is None:
            return None
        groups = hidden.split(BATCH)  # (B, L, output size) or (B, output size) for each variant
        at = [
            group if self.backbone.last_only else group[rows.bool()]
            for group, (_, rows) in zip(groups, variants, strict=True)
        ]
        if not bool(torch.cat(at[:3]).isfinite().all()):
            return None
        moves = (at[0] - at[2]).abs().amax(-1)  # (P,)
        hides = not differs(at[0], at[1], SAME_SHAPE) and bool(
            (moves > SAME_SHAPE * at[0].abs().max()).all()
        )
        if len(at) == 5:
            positions = torch.arange(self.length, device=mask.device).expand_as(mask)
            early = positions[mask.bool()] < self.length - 1  # (P,)
            hides = hides and not differs(at[0][early], at[4][early], SAME_SHAPE)
        return Seen(at[0], hides, at[3])

    def ignores_padding(self, call: Call) -> bool:
        """Whether rows with padding (zeros or anything else) give the same output as without it."""
        seen = self.see(call)
        if seen is None or (call.mask and not seen.hides_padding):
            return False
        embeds = self.padded_rows(self.width)[0][:, self.padding :]
        mask = torch.ones(embeds.shape[:2], dtype=torch.long, device=embeds.device)
        alone = self.run(call, embeds, mask)
        if alone is None:
            return False
        alone = alone if self.backbone.last_only else alone.flatten(0, 1)
        return not differs(alone, seen.among_zeros, other_shape(embeds))

    def repeats(self, call: Call) -> bool:
        """Whether two calls on the same input give the same output, up to rounding."""
        rows = self.padded_rows(self.width)
        first, second = (self.run(call, *rows) for _ in range(2))
        if first is None or second is None or first.shape != second.shape:
            return first is second
        return not differs(first.nan_to_num(), second.nan_to_num(), SAME_SHAPE)

    def run(self, call: Call, embeds: torch.Tensor, mask: torch.Tensor) -> torch.Tensor | None:
        """The hidden states of rows (B, L, D) with mask (B, L), 1 = real; None if it fails."""
        self.backbone.call = call
        try:
            with self._quietly():
                hidden: torch.Tensor = self.backbone(embeds.clone(), mask.clone())
        except Exception:  # a user's module may raise anything if the way to call it is wrong
            return None
        return hidden

    def stays_finite(self, call: Call) -> bool:
        """Whether outputs (also at padding) and gradients are finite on padded rows.

        Attention over no position gives nan at a padded position. It reaches the weights through
        the gradient even if the output at that position is not used.
        """
        self.backbone.call = call
        embeds, mask = self.padded_rows(self.width)
        embeds.requires_grad_()
        self.module.train()
        try:
            with self._quietly(), torch.enable_grad():
                hidden = self.backbone(embeds * mask.unsqueeze(-1), mask)
                used = hidden if self.backbone.last_only else hidden[mask.bool()]
                weights = [p for p in self.module.parameters() if p.requires_grad]
                gradients = torch.autograd.grad(
                    used.float().sum(), [embeds, *weights], allow_unused=True
                )
        except Exception:  # a user's module may raise anything
            return False
        finally:
            self.module.eval()
        return all(bool(x.isfinite().all()) for x in (hidden, *gradients) if x is not None)

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        """Run without gradients, with seeded randomness and without warnings."""
        with torch.no_grad(), seeded(self.module), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
