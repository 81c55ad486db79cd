"""A module called the way the user's own function says."""

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import nn

from odmt_sdk.backbones.adapter import BackboneAdapter
from odmt_sdk.backbones.trial import copy_module, random_embeds, seeded


class ForwardFunctionBackbone(BackboneAdapter):
    """A module behind `forward_fn(module, inputs_embeds, attention_mask)`.

    Args:
        module: the user's module.
        forward_fn: calls it and returns (B, L, D), or (B, D) if `last_only`.
        hidden_size: D; None = any.
        last_only: whether only the last real position is returned.

    Raises:
        TypeError: if `module` is no module or `forward_fn` cannot be called.

    Examples:
        >>> gru = nn.GRU(8, 8, batch_first=True)
        >>> backbone = ForwardFunctionBackbone(gru, lambda gru, embeds, mask: gru(embeds)[0])
        >>> backbone(torch.randn(2, 5, 8), torch.ones(2, 5)).shape
        torch.Size([2, 5, 8])
    """

    way_out_of_the_future = "make forward_fn pass a causal mask"

    def __init__(
        self,
        module: nn.Module,
        forward_fn: Callable[..., Any],
        *,
        hidden_size: int | None = None,
        last_only: bool = False,
    ) -> None:
        if not isinstance(module, nn.Module):
            raise TypeError(
                f"forward_fn= calls a torch.nn.Module, but backbone is a {type(module).__name__}: "
                "pass the module that holds the weights"
            )
        if not callable(forward_fn):
            raise TypeError(f"forward_fn must be a function, got {type(forward_fn).__name__}")
        limit = getattr(module, "max_seq_length", None)
        super().__init__(
            module,
            hidden_size=hidden_size,
            max_seq_length=limit if isinstance(limit, int) else None,
        )
        self.forward_fn = forward_fn
        self.last_only = last_only

    @classmethod
    def build(
        cls, module: nn.Module, forward_fn: Callable[..., Any], hidden_size: int | None
    ) -> Self:
        """Make the adapter, and see in a trial whether it returns the last position only.

        Args:
            module: the user's module.
            forward_fn: calls it.
            hidden_size: D; without it no trial is made.

        Returns:
            The adapter.
        """
        adapted = cls(module, forward_fn, hidden_size=hidden_size)
        if hidden_size is None:
            return adapted
        trial = copy_module(adapted)
        embeds = random_embeds(module, 2, 3, hidden_size)
        mask = torch.ones(2, 3, dtype=torch.long, device=embeds.device)
        try:
            with seeded(module), torch.no_grad():
                adapted.last_only = trial(embeds, mask).shape == (2, hidden_size)
        except Exception:  # reported by the probe, with the user's traceback
            adapted.last_only = False
        return adapted

    def forward(self, inputs_embeds: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Call the user's function.

        Args:
            inputs_embeds: (B, L, D).
            attention_mask: (B, L), 1 = real.

        Returns:
            What the function returns.
        """
        return self.forward_fn(self.module, inputs_embeds, attention_mask)  # type: ignore[no-any-return]
