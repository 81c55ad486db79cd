"""Settings that affect what a backbone computes, collected from its modules.

Two backbones with the same weight shapes may compute different functions, for example with another
number of heads, other dilations or another activation. The settings are saved with an adapter and
compared when it is loaded.
"""

import itertools
import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from odmt_sdk.backbones.signature.trial import plain
from odmt_sdk.backbones.unsaved_tensors import unsaved_tensors

MAX_CHARACTERS = 50_000
MAX_LENGTH = 200  # longest string or list that is kept
TENSOR = "tensor"  # marks the shape and sampled values of a tensor
SAMPLED_VALUES = 8
CLAMPED = 1e4
ROUNDING = 2e-2  # relative to the largest value; bfloat16 has 8 bits

# Settings of training or of the device, and settings that differ between library versions.
_IGNORED = re.compile(
    r"training|drop|^p$|inplace|momentum|track_running|batch_first|sparse|max_norm|norm_type|"
    r"scale_grad|padding_idx|device|dtype|cache|checkpoint|initializ|init_|_init|vocab|token_id|"
    r"output_|return_dict|version|name_or_path|architectures|label|problem_type|attn_impl|tie_|"
    r"summary|task|tokenizer|max_length|pretraining|prefix|pruned|^model_type$|^id$|seed|path|"
    r"verbose|num_parameters|nested|mask_check|relu_or_gelu|head_dim|max_position|n_positions|n_ctx|float16|fp16|bf16|fp32|"
    r"chunk_size_feed|gradient"
)
# Settings of transformers models that change what a model computes.
_FUNCTION = re.compile(
    r"head|rope|theta|act|eps|layer_type|window|scal|posit|norm|softcap|expert|top_?k|mult|"
    r"kernel|state|dilat|bidirect|residual|decoder|causal|bias|chunk|clamp|time_step|conv|attn|"
    r"attention|stride|group|rank|alpha|limit|base"
)
_COVERED = ("torch.", "transformers.", "odmt_sdk.")  # settings above them say what they compute
_OF_PEFT = ("_active_adapter", "_disable_adapters")
_NO_FUNCTION = ("Dropout", "Dropout1d", "Dropout2d", "AlphaDropout", "Identity")


def backbone_settings(module: nn.Module) -> dict[str, Any]:
    """Collect the settings of a module and its submodules.

    Tensors that the module needs but that are not in its state dict, such as plain attributes,
    non-persistent buffers and modules in a list, are settings too: an adapter does not hold them.

    Args:
        module: the user's backbone, taken out of its bridge.

    Returns:
        Dotted path -> setting as a JSON value. The index of a layer in the path is replaced by "*".
        Paths of settings that may not affect the result start with "?".

    Examples:
        >>> backbone_settings(nn.Sequential(nn.Linear(2, 2), nn.GELU()))["*.class"]
        ['Linear', 'GELU']
    """
    module = plain(module)
    found: dict[str, list[Any]] = {}
    saved = {id(value) for value in module.state_dict(keep_vars=True).values()}
    _collect(module, "", found, set(), saved, covered=False)
    settings, left = {}, MAX_CHARACTERS
    for name, values in found.items():
        value = values[0] if all(value == values[0] for value in values) else values
        left -= len(name) + len(str(value))
        if left < 0:
            break
        settings[name] = value
    return settings


def _collect(
    module: nn.Module,
    path: str,
    found: dict[str, list[Any]],
    seen: set[int],
    saved: set[int],
    *,
    covered: bool,
) -> None:
    """Add the settings of a module, and of its submodules unless its own settings cover them.

    Of covered submodules, only those of other libraries are looked at, such as layers of PEFT.
    """
    if id(module) in seen:
        return
    seen.add(id(module))
    kind = type(module)
    place = re.sub(r"(^|\.)\d+(?=\.|$)", r"\1*", path)
    if covered and kind.__module__.startswith(_COVERED):
        settings: Mapping[str, Any] = {}
    else:
        config: Any = getattr(module, "config", None)
        arguments = getattr(module, "constructor_arguments", None)
        if isinstance(arguments, dict):
            settings, covered = arguments, True
        elif type(config).__module__.startswith("transformers") and hasattr(config, "to_dict"):
            flat = _flat(config.to_dict(), "")
            settings = {(k if _FUNCTION.search(k) else f"?{k}"): v for k, v in flat.items()}
            covered = True
        else:
            for name, tensor in unsaved_tensors(module, saved):
                if (kept := _sampled(tensor)) is not None:
                    found.setdefault(f"?{place}.{name}".replace("?.", "?"), []).append(kept)
            settings, place = _own_settings(module, place, found)
    for name, value in settings.items():
        mark, name = ("?", name[1:]) if name.startswith("?") else ("", name)
        kept = None if _IGNORED.search(name) else _json(value)
        if kept is not None:
            found.setdefault(mark + f"{place}.{name}".lstrip("."), []).append(kept)
    for name, inner in module.named_children():
        _collect(inner, f"{path}.{name}".lstrip("."), found, seen, saved, covered=covered)


def _own_settings(
    module: nn.Module, place: str, found: dict[str, list[Any]]
) -> tuple[dict[str, Any], str]:
    """The attributes of a module, and the path under which they are kept."""
    kind = type(module)
    settings = {name: value for name, value in vars(module).items() if name[0] != "_"}
    if kind.__module__.startswith("torch.nn."):
        activation = vars(module).get("activation") or module._modules.get("activation")
        if activation is not None:  # a function, or a module
            name = getattr(activation, "__name__", type(activation).__name__)
            settings["activation"] = name.lower()
        elif not module._modules and kind.__name__ not in _NO_FUNCTION:
            found.setdefault(f"{place}.class".lstrip("."), []).append(kind.__name__)
        return settings, f"{place}.{kind.__name__}".lstrip(".")
    if kind.__module__.startswith("peft."):  # by name of the adapter, such as scaling.default
        settings |= {name: vars(module)[name] for name in _OF_PEFT if name in vars(module)}
        flat = _flat(settings, "") | {name: settings[name] for name in _OF_PEFT if name in settings}
        return {(k if k.startswith("scaling") else f"?{k}"): v for k, v in flat.items()}, place
    return {f"?{name}": value for name, value in settings.items()}, place


def _sampled(tensor: torch.Tensor) -> list[Any] | None:
    """What identifies a tensor: its shape and some of its values; None if it has none at hand."""
    whole = tensor.layout is torch.strided and not (tensor.is_meta or tensor.is_quantized)
    if is_lazy(tensor) or not whole or tensor.grad_fn is not None or not tensor.numel():
        return None
    values = tensor.detach().flatten()[:: max(1, tensor.numel() // SAMPLED_VALUES)]
    values = torch.view_as_real(values).flatten() if values.is_complex() else values
    # masks hold infinite values, or the smallest of a type
    values = values[: 2 * SAMPLED_VALUES].double().nan_to_num(0.0).clamp(-CLAMPED, CLAMPED)
    return [TENSOR, list(tensor.shape), [float(f"{value:.4g}") for value in values.tolist()]]


def different_settings(
    saved: Mapping[str, Any], now: Mapping[str, Any]
) -> tuple[list[str], list[str]]:
    """Compare settings; those that are known for one side only are skipped.

    Args:
        saved: settings of the backbone that was trained.
        now: settings of the backbone that is to receive its weights.

    Returns:
        Descriptions of the differences that certainly change what the backbone computes, and of
        those that may.
    """
    certain: list[str] = []
    possible: list[str] = []
    for name in saved:
        if name in now and saved[name] != now[name]:
            words = _difference(name.removeprefix("?"), saved[name], now[name])
            if words:
                (possible if name.startswith("?") else certain).append(words)
    return certain, possible


def _difference(name: str, before: Any, now: Any) -> str:
    """A difference between two settings in words; "" if two tensors differ by rounding only."""
    if not (_is_sample(before) and _is_sample(now)):
        return f"{name} was {before!r}, is {now!r}"
    if before[1] != now[1]:
        return f"the tensor {name} had the shape {before[1]}, has {now[1]}"
    scale = max(map(abs, before[2]), default=0.0)
    pairs = itertools.zip_longest(before[2], now[2], fillvalue=math.inf)
    if all(abs(a - b) <= ROUNDING * scale for a, b in pairs):
        return ""
    return f"the tensor {name} has other values, which no adapter holds (register it as a buffer)"


def _is_sample(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and value[0] == TENSOR
        and isinstance(value[2], list)
        and all(type(number) in (int, float) for number in value[2])
    )


def _flat(values: Mapping[str, Any], way: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found.update(_flat(value, f"{way}{name}."))
        elif not str(name).startswith("_"):
            found[f"{way}{name}"] = value
    return found


def _json(value: Any) -> Any:
    """Convert to a short JSON value; None for anything else."""
    if isinstance(value, list | tuple):
        inner = [_json(one) for one in value] if len(value) <= MAX_LENGTH else [None]
        return None if None in inner else inner
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, str):
        return value if len(value) <= MAX_LENGTH else None
    return value if type(value) in (bool, int, float) and abs(value) < 1 << 62 else None
