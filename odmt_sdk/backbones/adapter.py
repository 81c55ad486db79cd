"""What every adapter has in common: the user's module inside, and what is known about it."""

from torch import nn


class BackboneAdapter(nn.Module):
    """A module of another interface, brought to `SequenceBackbone`.

    Sub-classes define `forward(inputs_embeds (B, L, D), attention_mask (B, L)) -> (B, L, D)`, where
    B users, L positions, D hidden size.

    Args:
        module: the user's own module.
        hidden_size: D, the width that it reads; None = any.
        output_size: the width that it returns; None = D.
        max_seq_length: longest sequence that it reads; None = any.
    """

    reads_item_ids: bool = False  # `forward` also takes item_ids (B, L), 0 = padding
    last_only: bool = False  # `forward` returns (B, D), the state at the last real position
    # How to keep such a module from reading the future, where that can be said.
    way_out_of_the_future: str = "give it a causal mask, or another backbone"

    def __init__(
        self,
        module: nn.Module,
        *,
        hidden_size: int | None = None,
        output_size: int | None = None,
        max_seq_length: int | None = None,
    ) -> None:
        super().__init__()
        self.module = module
        self.hidden_size = hidden_size
        self.output_size = output_size or hidden_size
        self.max_seq_length = max_seq_length
