"""Running a copy of a module, whose arguments have names of their own, in every likely way.

Letters: B users, L positions, D hidden size.
"""

import dataclasses
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from odmt_sdk.backbones.hidden_size import NAMES, TRIED_WIDTHS
from odmt_sdk.backbones.returned import describe, find_hidden_states, take
from odmt_sdk.backbones.signature_backbone import Call, MaskForm, SignatureBackbone
from odmt_sdk.backbones.signatures import WAY_OUT, Arguments
from odmt_sdk.backbones.trial import copy_module, random_embeds, seeded, summary

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
# Rows of 5 and 4 real positions of 6: more real than padding, so that lengths counted from a mask
# of the wrong sense are too short.
BATCH, LENGTH, SHORTEST = 2, 6, 4


class SignatureTrials:
    """A copy of the user's module, and what happens when it is called.

    Args:
        module: the user's module.
        name: what to call it in messages.
        arguments: what its parameters are for.
    """

    def __init__(self, module: nn.Module, name: str, arguments: Arguments) -> None:
        self.module = copy_module(getattr(module, "_orig_mod", module))  # not compiled
        self.name = name
        self.arguments = arguments
        self.failures: dict[int, Exception] = {}  # width -> why it does not run

    def calls(self) -> Iterator[tuple[Arguments, Call]]:
        """All likely ways of calling, the usual first."""
        for arguments, mask, causal in self._masks():
            for longest_first in (False, True) if arguments.lengths else (False,):
                yield arguments, Call(mask=mask, causal=causal, longest_first=longest_first)

    def _masks(self) -> Iterator[tuple[Arguments, MaskForm | None, MaskForm | None]]:
        arguments = self.arguments
        for mask in MASK_FORMS if arguments.mask else (None,):
            for causal in CAUSAL_FORMS if arguments.causal else (None,):
                yield arguments, mask, causal
        if arguments.mask and not arguments.causal:  # a lone `mask` may be the causal one
            alone = dataclasses.replace(arguments, mask=None, causal=arguments.mask)
            for causal in CAUSAL_FORMS:
                yield alone, None, causal
        names = {arguments.mask, arguments.causal} - {None}
        if names and names <= arguments.optional:
            yield arguments, None, None

    def first_that_runs(self, width: int) -> SignatureBackbone | None:
        """The first way of calling that gives hidden states.

        Args:
            width: D to try.

        Returns:
            The copy, called that way; None if no way works, with the reason in `failures`.
        """
        embeds, mask = self.padded_rows(width)
        for arguments, call in self.calls():
            try:
                with self._quietly():
                    return self._look(arguments, call, embeds, mask)
            except Exception as error:  # whatever the user's module raises
                self.failures.setdefault(width, error)
        return None

    def _look(
        self, arguments: Arguments, call: Call, embeds: torch.Tensor, mask: torch.Tensor
    ) -> SignatureBackbone:
        """Call once, right-padded, and see where the hidden states are."""
        width = embeds.shape[-1]
        backbone = SignatureBackbone(self.module, arguments, call, hidden_size=width)
        counts = mask.sum(1)  # 5 and 4
        if not call.longest_first:
            counts = counts.flip(0)
        real = torch.arange(LENGTH, device=mask.device) < counts.unsqueeze(1)
        returned = backbone.returned(embeds.clone(), real, counts)
        key = find_hidden_states(returned, batch=BATCH, length=LENGTH, hidden_size=width)
        hidden = take(returned, key)
        if hidden.shape == (BATCH, LENGTH) and width != LENGTH:
            fewer = backbone.returned(
                embeds[:, :SHORTEST].clone(), real[:, :SHORTEST], counts.clamp(max=SHORTEST)
            )
            if take(fewer, key).shape == (BATCH, SHORTEST):
                raise TypeError(
                    f"it returned one number per position, {describe(returned)}, and hidden states "
                    "are (B, L, D)"
                )
        return SignatureBackbone(
            self.module,
            arguments,
            dataclasses.replace(call, key=key),
            hidden_size=width,
            output_size=hidden.shape[-1],
            last_only=hidden.ndim == 2,
        )

    def find_width(self, given: int | None = None) -> int:
        """The width that the module reads, by its attributes or the shapes of its weights.

        Args:
            given: what the user says it is, at which it did not run.

        Returns:
            D.

        Raises:
            ValueError: if it runs at no width, or several are possible.
        """
        owners = (self.module, getattr(self.module, "config", None))
        attributes = [getattr(owner, name, None) for owner in owners for name in NAMES]
        for width in attributes:
            if isinstance(width, int) and width > 0 and self._keeps(width):
                return width
        shapes = sorted({size for p in self.module.parameters() for size in p.shape} - {1})
        running = {width: self.first_that_runs(width) for width in shapes[:TRIED_WIDTHS]}
        found = {width: backbone for width, backbone in running.items() if backbone is not None}
        kept = [width for width, backbone in found.items() if backbone.output_size == width]
        widths = kept or list(found)
        if not shapes and self.first_that_runs(WIDTH_WITHOUT_WEIGHTS):
            return WIDTH_WITHOUT_WEIGHTS
        if len(widths) == 1:
            return widths[0]
        if widths:
            raise ValueError(
                f"{self.name} accepts embeddings of several widths ({widths}): say which one with "
                "hidden_size="
            )
        width, cause = next(iter(self.failures.items()), (0, None))
        why = f" (at width {width}, {summary(cause)})" if cause else ""
        room = f"; here it reads {LENGTH} positions" if isinstance(cause, IndexError) else ""
        advice = WAY_OUT if given else f"say its width with hidden_size=, or {WAY_OUT}"
        raise ValueError(
            f"{self.name} could not be run on embeddings{why}{room}: {advice}"
        ) from cause

    def _keeps(self, width: int) -> bool:
        backbone = self.first_that_runs(width)
        return backbone is not None and backbone.output_size == width

    def padded_rows(self, width: int, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """Random embeddings padded on the left, the padding filled with random values as well.

        Args:
            width: D.
            seed: other seeds give other values.

        Returns:
            Embeddings (B, L, D) and mask (B, L), 1 = real.
        """
        embeds = random_embeds(self.module, BATCH, LENGTH, width, seed=seed)
        mask = torch.ones(BATCH, LENGTH, dtype=torch.long, device=embeds.device)
        mask[0, :1] = mask[1, :2] = 0
        return embeds, mask

    def run(
        self, backbone: SignatureBackbone, embeds: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor | None:
        """Call once.

        Args:
            backbone: one way of calling the copy.
            embeds: (B, L, D).
            mask: (B, L), 1 = real.

        Returns:
            Hidden states (P, output size) at the P real positions, or at the B last ones of a
            module that returns only those; None if it raises.
        """
        try:
            with self._quietly():
                hidden: torch.Tensor = backbone(embeds.clone(), mask.clone())
        except Exception:  # whatever the user's module raises: this way of calling is wrong
            return None
        return hidden if backbone.last_only else hidden[mask.bool()]

    def stays_finite(self, backbone: SignatureBackbone) -> bool:
        """Whether padded rows give finite outputs, also at padding, and finite gradients.

        Attention to nothing at a padded position is nan, which reaches the weights by way of the
        gradient even where the output at that position is never used.

        Args:
            backbone: one way of calling the copy.

        Returns:
            The answer.
        """
        embeds, mask = self.padded_rows(backbone.hidden_size or WIDTH_WITHOUT_WEIGHTS)
        embeds.requires_grad_()
        self.module.train()
        try:
            with self._quietly(), torch.enable_grad():
                hidden = backbone(embeds * mask.unsqueeze(-1), mask)
                used = hidden if backbone.last_only else hidden[mask.bool()]
                weights = [p for p in self.module.parameters() if p.requires_grad]
                gradients = torch.autograd.grad(
                    used.float().sum(), [embeds, *weights], allow_unused=True
                )
        except Exception:  # whatever the user's module raises
            return False
        finally:
            self.module.eval()
        return all(bool(x.isfinite().all()) for x in (hidden, *gradients) if x is not None)

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        """Without gradients, and without warnings about forms of masks that are only tried."""
        with torch.no_grad(), seeded(self.module), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
