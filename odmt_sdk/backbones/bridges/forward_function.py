"""Bridge for modules that are called through the user's `forward_fn`."""

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import nn

from odmt_sdk.backbones.bridge import BackboneBridge
from odmt_sdk.backbones.signature.trial import random_embeds, seeded
from odmt_sdk.backbones.undisturbed import tried


class ForwardFunctionBackbone(BackboneBridge):
    """Calls a module through `forward_fn(module, inputs_embeds, attention_mask)`.

    Args:
        module: the user's module.
        forward_fn: calls the module and returns (B, L, D), or (B, D) if `last_only`.
        hidden_size: D; None = any width.
        last_only: whether only the state at the last real position is returned.

    Raises:
        TypeError: if `module` is not a `torch.nn.Module` or `forward_fn` is not callable.

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
        """Build the bridge and run it once to determine whether it returns only the last position.

        Args:
            module: the user's module.
            forward_fn: the function that calls it.
            hidden_size: D; None = no trial run.

        Returns:
            The bridge.
        """
        adapted = cls(module, forward_fn, hidden_size=hidden_size)
        if hidden_size is None:
            return adapted
        embeds = random_embeds(module, 2, 3, hidden_size)
        mask = torch.ones(2, 3, dtype=torch.long, device=embeds.device)
        try:
            with tried(module), seeded(module), torch.no_grad():
                adapted.last_only = adapted(embeds, mask).shape == (2, hidden_size)
        except Exception:  # reported by the probe, with the user's traceback
            adapted.last_only = False
        return adapted

    def forward(self, inputs_embeds: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Call the user's function.

        Args:
            inputs_embeds: (B, L, D).
            attention_mask: (B, L), 1 = real.

        Returns:
            The return value of the function.
        """
        hidden: torch.Tensor = self.forward_fn(self.module, inputs_embeds, attention_mask)
        return hidden
