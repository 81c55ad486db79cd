"""Settings that affect what a backbone computes, collected from its modules.

Two backbones with the same weight shapes may compute different functions, for example with another
number of heads, other dilations or another activation. The settings are saved with an adapter and
compared when it is loaded.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import nn

MAX_CHARACTERS = 50_000
MAX_LENGTH = 200  # longest string or list that is kept

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
_NO_FUNCTION = ("Dropout", "Dropout1d", "Dropout2d", "AlphaDropout", "Identity")


def backbone_settings(module: nn.Module) -> dict[str, Any]:
    """Collect the settings of a module and its submodules.

    Args:
        module: the user's backbone, taken out of its bridge.

    Returns:
        Dotted path -> setting as a JSON value. The index of a layer in the path is replaced by "*".
        Paths of settings that may not affect the result start with "?".

    Examples:
        >>> backbone_settings(nn.Sequential(nn.Linear(2, 2), nn.GELU()))["*.class"]
        ['Linear', 'GELU']
    """
    found: dict[str, list[Any]] = {}
    _collect(module, "", found, set())
    settings, left = {}, MAX_CHARACTERS
    for name, values in found.items():
        value = values[0] if all(value == values[0] for value in values) else values
        left -= len(name) + len(str(value))
        if left < 0:
            break
        settings[name] = value
    return settings


def _collect(module: nn.Module, path: str, found: dict[str, list[Any]], seen: set[int]) -> None:
    """Add the settings of a module, and of its submodules unless its own settings cover them."""
    if id(module) in seen:
        return
    seen.add(id(module))
    kind = type(module)
    config: Any = getattr(module, "config", None)
    place = re.sub(r"(^|\.)\d+(?=\.|$)", r"\1*", path)
    whole = True
    arguments = getattr(module, "constructor_arguments", None)
    if isinstance(arguments, dict):
        settings = arguments
    elif type(config).__module__.startswith("transformers") and hasattr(config, "to_dict"):
        flat = _flat(config.to_dict(), "")
        settings = {(k if _FUNCTION.search(k) else f"?{k}"): v for k, v in flat.items()}
    else:
        whole = False
        settings = {name: value for name, value in vars(module).items() if name[0] != "_"}
        if kind.__module__.startswith("torch.nn."):
            activation = vars(module).get("activation") or module._modules.get("activation")
            if activation is not None:  # a function, or a module
                name = getattr(activation, "__name__", type(activation).__name__)
                settings["activation"] = name.lower()
            elif not module._modules and kind.__name__ not in _NO_FUNCTION:
                found.setdefault(f"{place}.class".lstrip("."), []).append(kind.__name__)
            place = f"{place}.{kind.__name__}".lstrip(".")
        else:
            settings = {f"?{name}": value for name, value in settings.items()}
    for name, value in settings.items():
        mark, name = ("?", name[1:]) if name.startswith("?") else ("", name)
        kept = None if _IGNORED.search(name) else _json(value)
        if kept is not None:
            found.setdefault(mark + f"{place}.{name}".lstrip("."), []).append(kept)
    for name, inner in module.named_children() if not whole else ():
        _collect(inner, f"{path}.{name}".lstrip("."), found, seen)


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
            words = f"{name.removeprefix('?')} was {saved[name]!r}, is {now[name]!r}"
            (possible if name.startswith("?") else certain).append(words)
    return certain, possible


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
