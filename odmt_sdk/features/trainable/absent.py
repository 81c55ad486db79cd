"""The LoRA weights of an encoder that was not passed to the model."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


class AbsentEncoder(nn.Module):
    """Keeps the LoRA weights of an encoder that was not given, so that saving does not lose them.

    Args:
        weights: name -> LoRA weight.
        trained: the saved description of the encoder's training, see `TrainableEncoder.trained`.

    Examples:
        >>> absent = AbsentEncoder({"model.lora_A.weight": torch.ones(2, 4)}, {"r": 2})
        >>> list(absent.state_dict()), len(list(absent.parameters()))
        (['model.lora_A.weight'], 0)
    """

    def __init__(self, weights: Mapping[str, torch.Tensor], trained: Mapping[str, Any]) -> None:
        super().__init__()
        self.weights, self.trained = dict(weights), dict(trained)

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        destination.update({prefix + name: value for name, value in self.weights.items()})

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *_: Any) -> None:
        for name in self.weights:
            self.weights[name] = state.get(prefix + name, self.weights[name])
