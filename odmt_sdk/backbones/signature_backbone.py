"""A module called by the names of its own arguments.

Letters: B users, L positions, D hidden size.
"""

from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from torch import nn
from torch.nn import functional as F

from odmt_sdk.backbones.adapter import BackboneAdapter
from odmt_sdk.backbones.alignment import real_counts, restore, right_pad
from odmt_sdk.backbones.returned import Key, take
from odmt_sdk.backbones.signatures import Arguments, Role

MaskSense = Literal["real", "ignored", "additive"]
"""What a mask says: 1 = real, 1 = ignored, or a number to add to attention scores."""


@dataclass(frozen=True)
class MaskForm:
    """How a module wants a mask.

    Args:
        sense: what its values say.
        kind: their type; "float" is that of the embeddings.
    """

    sense: MaskSense
    kind: Literal["int", "bool", "float"]

    def make(self, visible: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Write a mask in this form.

        Args:
            visible: boolean, any shape; True = real, or may be seen.
            dtype: type of the embeddings.

        Returns:
            The mask, of the same shape.
        """
        if self.sense == "additive":
            zeros = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
            return zeros.masked_fill(~visible, torch.finfo(dtype).min)
        mask = visible if self.sense == "real" else ~visible
        return mask.to({"int": torch.long, "bool": torch.bool, "float": dtype}[self.kind])


@dataclass(frozen=True)
class Call:
    """How a module is called, beyond the names of its arguments.

    Args:
        mask: form of the padding mask, None = none is passed.
        causal: form of the causal mask, None = none is passed.
        right_padded: whether the real positions stand at the front of their rows.
        longest_first: whether rows are sorted by their length, as packing may ask.
        key: where in the returned value the hidden states are.
    """

    mask: MaskForm | None = None
    causal: MaskForm | None = None
    right_padded: bool = True
    longest_first: bool = False
    key: Key = None


class SignatureBackbone(BackboneAdapter):
    """A module whose arguments were recognised by name and tried out.

    An empty row is passed as one of a single item of zeros, as attention to nothing would be nan.

    Args:
        module: the user's module.
        arguments: what its parameters are for.
        call: how they are filled.
        hidden_size: D.
        output_size: the width it returns; None = D.
        last_only: whether it returns (B, D).
        max_seq_length: longest sequence it reads; None = the module's `max_seq_length`, if any.

    Examples:
        >>> from odmt_sdk.backbones.signatures import read_arguments
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
        """Read sequences.

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
        if hidden.shape[1] < len(positions):  # packing cut the padding that all rows share
            hidden = F.pad(hidden, (0, 0, 0, len(positions) - hidden.shape[1]))
        return hidden if slots is None else restore(hidden, slots)

    def returned(
        self, inputs_embeds: torch.Tensor, real: torch.Tensor, counts: torch.Tensor
    ) -> Any:
        """Call the module.

        Args:
            inputs_embeds: (B, L, D), padded as the module wants it.
            real: (B, L) boolean, True = real.
            counts: (B,) int64, real positions of every row.

        Returns:
            Whatever the module returns.
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

    def called(self, call: Call) -> Self:
        """The same module, called in another way.

        Args:
            call: how.

        Returns:
            Another adapter around it.
        """
        return type(self)(
            self.module,
            self.arguments,
            call,
            hidden_size=self.hidden_size,
            output_size=self.output_size,
            last_only=self.last_only,
        )
