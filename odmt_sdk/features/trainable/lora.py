"""LoRA layers in an encoder, by PEFT; only their weights are trained and saved."""

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from odmt_sdk.errors import missing_library

if TYPE_CHECKING:
    from peft import LoraConfig

# What decides how LoRA layers compute beside their weights, as PEFT names it.
_COMPARED = ("r", "lora_alpha", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern")


def with_lora(encoder: nn.Module, lora: "LoraConfig | None") -> tuple[nn.Module, dict[str, Any]]:
    """Copy an encoder and add LoRA layers to the copy.

    Args:
        encoder: the encoder; it is not changed.
        lora: the LoRA configuration; None = rank 8 and alpha 16 in every linear layer of a
            transformers model.

    Returns:
        The copy, in eval mode, and the settings that, besides the weights, determine what its LoRA
        layers compute. Only LoRA weights require gradients. Before training, the copy returns the
        same outputs as the encoder.

    Raises:
        ImportError: if PEFT is not installed.
        TypeError: if `lora` is not a `LoraConfig`.
        ValueError: if no layer can have LoRA, or LoRA would change the outputs before training.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise missing_library("training encoders needs PEFT", error, "peft") from error
    if lora is None:
        lora = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear")
    if not isinstance(lora, LoraConfig):
        raise TypeError(f"lora is a {type(lora).__name__}, but it must be a peft.LoraConfig")
    if lora.init_lora_weights not in (True, "gaussian"):
        raise ValueError(
            f"init_lora_weights={lora.init_lora_weights!r} changes the encoder before training, so "
            "it would differ from the one that made the features: leave it out"
        )
    name = type(encoder).__name__
    changed = copy.deepcopy(encoder).requires_grad_(False)
    try:
        inject_adapter_in_model(copy.deepcopy(lora), changed)
    except ValueError as error:
        raise ValueError(
            f"LoRA finds no layer of {name} to change: {error}. Choose layers with "
            f"LoraConfig(target_modules=[...]); it has {_shown(_layers(encoder))}"
        ) from error
    for parameter in changed.parameters():
        if parameter.requires_grad and parameter.dtype in (torch.float16, torch.bfloat16):
            parameter.data = parameter.data.float()  # small steps are lost in 16 bits
    settings = {name: getattr(lora, name) for name in _COMPARED if getattr(lora, name, None)}
    return changed.eval(), settings


def _layers(encoder: nn.Module) -> list[str]:
    """The last parts of the names of layers to which LoRA can be applied."""
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Embedding)
    names = (name for name, part in encoder.named_modules() if isinstance(part, kinds))
    return list(dict.fromkeys(name.rpartition(".")[2] for name in names))


def _shown(names: list[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") or "no layer that can be"
