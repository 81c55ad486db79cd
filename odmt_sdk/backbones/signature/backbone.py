"""`SignatureBackbone`: calls a module by the names of its own arguments.

Letters: B users, L positions, D hidden size.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional as F

from odmt_sdk.backbones.bridge import BackboneBridge
from odmt_sdk.backbones.bridges.right_padding import real_counts, restore, right_pad
from odmt_sdk.backbones.signature.returned import Key, take
from odmt_sdk.backbones.signature.roles import Arguments, MaskSense, Role


@dataclass(frozen=True)
class MaskForm:
    """The form in which a module expects a mask.

    Args:
        sense: the meaning of its values.
        kind: the type of its values; "float" is the dtype of the embeddings.
    """

    sense: MaskSense
    kind: Literal["int", "bool", "float"]

    def make(self, visible: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """The mask of positions that are `visible`: boolean, True = real or may be attended to."""
        if self.sense == "additive":
            zeros = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
            return zeros.masked_fill(~visible, torch.finfo(dtype).min)
        mask = visible if self.sense == "real" else ~visible
        return mask.to({"int": torch.long, "bool": torch.bool, "float": dtype}[self.kind])


@dataclass(frozen=True)
class Call:
    """How to call a module, beyond the names of its arguments.

    Args:
        mask: form of the padding mask; None = not passed.
        causal: form of the causal mask; None = not passed.
        right_padded: whether rows are right-padded.
        longest_first: whether rows are sorted by length, as packing may require.
        key: where the hidden states are in the return value.
    """

    mask: MaskForm | None = None
    causal: MaskForm | None = None
    right_padded: bool = True
    longest_first: bool = False
    key: Key = None


class SignatureBackbone(BackboneBridge):
    """A module whose arguments were recognized by name and verified in trial runs.

    An empty row is passed as a row with one item of zeros, because attention over no position would
    be nan.

    Args:
        module: the user's module.
        arguments: the roles of its parameters.
        call: how to call it.
        hidden_size: D.
        output_size: width of the output; None = D.
        last_only: whether it returns (B, D).
        max_seq_length: longest sequence that it can read; None = the module's `max_seq_length`, if
            it has one.

    Examples:
        >>> from odmt_sdk.backbones.signature.roles import read_arguments
        >>> arguments = read_arguments(nn.Linear(8, 8).forward, "Linear")
        >>> backbone = SignatureBackbone(nn.Linear(8, 8), arguments, Call(), hidden_size=8)
        >>> backbone(torch.randn(2, 5, 8), torch.ones(2, 5, dtype=torch.long)).shape
        torch.Size([2, 5, 8])
    """

    way_out_of_the_future = (
        "let its forward hide later positions, for instance with a causal attention mask"
    )

    def __init__(
        self,
        module: nn.Module,
        arguments: Arguments,
        call: Call,
        *,
        hidden_size: int | None = None,
        output_size: int | None = None,
        last_only: bool = False,
        max_seq_length: int | None = None,
    ) -> None:
        limit = max_seq_length or getattr(module, "max_seq_length", None)
        super().__init__(
            module,
            hidden_size=hidden_size,
            output_size=output_size,
            max_seq_length=limit if isinstance(limit, int) else None,
        )
        self.arguments = arguments
        self.call = call
        self.last_only = last_only

    def forward(self, inputs_embeds: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Run the module on a batch of sequences.

        Args:
            inputs_embeds: (B, L, D).
            attention_mask: (B, L), 1 = real.

        Returns:
            (B, L, output size), or (B, output size) if `last_only`.
        """
        dtype, slots, order = inputs_embeds.dtype, None, None
        counts = real_counts(attention_mask)  # (B,)
        positions = torch.arange(attention_mask.shape[1], device=attention_mask.device)
        if self.call.right_padded:
            inputs_embeds, slots = right_pad(inputs_embeds, attention_mask)
            real = positions < counts.unsqueeze(1)  # (B, L)
        else:  # the last position of an empty row counts as real
            real = attention_mask.bool() | (
                ~attention_mask.bool().any(1, keepdim=True)
            ).logical_and(positions == len(positions) - 1)
        if self.call.longest_first:
            order = counts.argsort(descending=True, stable=True)
            inputs_embeds, real, counts = inputs_embeds[order], real[order], counts[order]
        hidden = take(self.returned(inputs_embeds, real, counts), self.call.key)
        if order is not None:
            hidden = hidden[order.argsort()]
        hidden = hidden.to(dtype)
        if self.last_only:
            return hidden
        if hidden.shape[1] < len(positions):  # packing dropped the padding common to all rows
            hidden = F.pad(hidden, (0, 0, 0, len(positions) - hidden.shape[1]))
        return hidden if slots is None else restore(hidden, slots)

    def returned(
        self, inputs_embeds: torch.Tensor, real: torch.Tensor, counts: torch.Tensor
    ) -> Any:
        """What the module returns for rows (B, L, D), padded as it expects.

        `real` (B, L) is True at real positions, `counts` (B,) is their number in each row.
        """
        length, dtype = real.shape[1], inputs_embeds.dtype
        values: dict[Role, Any] = {"embeds": inputs_embeds, "lengths": counts}
        if self.call.mask is not None:
            values["mask"] = self.call.mask.make(real, dtype)
        if self.call.causal is not None:
            visible = torch.ones(length, length, dtype=torch.bool, device=real.device).tril()
            values["causal"] = self.call.causal.make(visible, dtype)
        positional, keywords = self.arguments.bind(values)
        return self.module(*positional, **keywords)
