"""What the layers of an encoder below its first LoRA layer compute, kept for each text.

Letters: b texts of one batch, T tokens, d token width.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

Tokens = tuple[torch.Tensor, torch.Tensor]  # (b, T, d), and lengths (b,)


class FrozenLayers:
    """Computes the layers below the first LoRA layer once for each text.

    Nothing in them is trained, therefore their output never changes. Padding is on the right and
    masked.

    Args:
        encoder: with its LoRA layers, in eval mode.

    Raises:
        ValueError: if there are no such layers.
    """

    def __init__(self, encoder: nn.Module) -> None:
        trained = [name for name, weight in encoder.named_parameters() if weight.requires_grad]
        self._below, above = _split(encoder, trained)
        self._kept: dict[int, torch.Tensor] = {}  # position -> (T, d)
        self._recalled: list[torch.Tensor] | None = None
        self._seen = torch.empty(0)
        self._in_tuple = False
        above.register_forward_pre_hook(self._enter, with_kwargs=True)
        self._below[-1].register_forward_hook(self._check)

    def run(self, positions: Sequence[int], encode: Callable[[], Tokens]) -> Tokens:
        """Encode texts, without the layers below if the output of all texts is kept.

        Args:
            positions: of the b texts.
            encode: encodes them.

        Returns:
            Their tokens (b, T, d) and lengths (b,), as `encode` returns them.

        Raises:
            ValueError: if a layer passes more than hidden states to the next one.
        """
        if not all(place in self._kept for place in positions):
            encoded = encode()
            for place, hidden in zip(positions, self._seen.detach().cpu(), strict=True):
                self._kept.setdefault(place, hidden.clone())
            return encoded
        self._recalled = [self._kept[place] for place in positions]
        try:
            for layer in self._below:
                layer.forward = self._skip
            return encode()
        finally:
            self._recalled = None
            for layer in self._below:
                del layer.forward

    def _enter(self, layer: nn.Module, args: Any, named: dict[str, Any]) -> Any:
        """Look at the input (b, T, d) of the first layer with LoRA, or put the kept one there."""
        hidden = _hidden(args, named)
        if self._recalled is None:
            self._seen = hidden
            return None
        length = hidden.shape[1]
        kept = [one[:length] for one in self._recalled]
        kept = [F.pad(one, (0, 0, 0, length - len(one))) for one in kept]
        recalled = torch.stack(kept).to(hidden)  # b times (T, d) -> (b, T, d)
        if args:
            return (recalled, *args[1:]), named
        return args, {**named, "hidden_states": recalled}

    def _skip(self, *args: Any, **named: Any) -> Any:
        hidden = _hidden(args, named)
        return (hidden,) if self._in_tuple else hidden

    def _check(self, layer: nn.Module, args: Any, output: Any) -> None:
        self._in_tuple = isinstance(output, tuple)
        if self._in_tuple and len(output) > 1:
            raise ValueError(
                f"{type(layer).__name__} passes more than hidden states to the next layer, which "
                "cannot be kept: leave out keep_frozen_layers"
            )


def _hidden(args: Sequence[Any], named: Mapping[str, Any]) -> torch.Tensor:
    hidden: torch.Tensor = args[0] if args else named["hidden_states"]
    return hidden


def _split(encoder: nn.Module, trained: Sequence[str]) -> tuple[list[nn.Module], nn.Module]:
    """Layers below the first one with LoRA weights, and that one."""
    for name, layers in encoder.named_modules():
        if isinstance(layers, nn.ModuleList) and all(one.startswith(f"{name}.") for one in trained):
            first = min(int(one.removeprefix(f"{name}.").split(".")[0]) for one in trained)
            if first:
                return list(layers[:first]), layers[first]
    raise ValueError(
        "keep_frozen_layers needs layers below the first LoRA layer: choose the last layers, such "
        'as LoraConfig(target_modules=["query", "value"], layers_to_transform=[4, 5])'
    )
