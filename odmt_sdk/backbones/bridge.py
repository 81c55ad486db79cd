"""`BackboneBridge`: the base class of the bridges."""

from torch import nn


class BackboneBridge(nn.Module):
    """Wraps a module with another interface so that it follows `SequenceBackbone`.

    Subclasses define `forward(inputs_embeds (B, L, D), attention_mask (B, L)) -> (B, L, D)`, where
    B is the number of users, L the number of positions and D the hidden size.

    Args:
        module: the user's module.
        hidden_size: width D of the inputs; None = any width.
        output_size: width of the outputs; None = D.
        max_seq_length: longest sequence that the module can read; None = any length.
    """

    reads_item_ids: bool = False  # `forward` also takes item_ids (B, L), 0 = padding
    holds_copy: bool = False  # `module` is a copy that the bridge made, not the user's own object
    last_only: bool = False  # `forward` returns (B, D), the state at the last real position
    # Advice for error messages: how to keep this kind of module from reading later items.
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
