"""Bridge for PEFT models of any task type, such as models with LoRA layers."""

import sys
from typing import Any

from torch import nn

from odmt_sdk.backbones.adapt import find_bridge, register_bridge


def _is_peft_model(backbone: object) -> bool:
    """Whether this is a PEFT model, without importing PEFT if nobody has imported it yet."""
    library = sys.modules.get("peft")
    if library is None:
        return False
    return isinstance(backbone, (library.PeftModel, library.PeftMixedModel))


@register_bridge("peft", matches=_is_peft_model, priority=-5)
def _build(backbone: Any, hidden_size: int | None) -> nn.Module:
    """Build the bridge of the base model, which contains the layers that PEFT inserted.

    Raises:
        ValueError: if the PEFT method prepends virtual tokens instead of changing layers.
    """
    configs = getattr(backbone, "peft_config", {})
    prompts = [name for name, config in configs.items() if _learns_a_prompt(config)]
    if prompts:
        kind = type(configs[prompts[0]]).__name__
        raise ValueError(
            f"{type(backbone).__name__} learns a prompt ({kind}), which adds virtual tokens "
            "before the text and changes no layers of the model: use LoraConfig or another method "
            "that changes layers, or pass forward_fn= to define how it is called"
        )
    model: nn.Module = backbone.get_base_model() if configs else backbone
    return find_bridge(model)(model, hidden_size)


def _learns_a_prompt(config: Any) -> bool:
    return bool(getattr(config, "is_prompt_learning", False))
