"""Pretrained encoders: loading them, telling their towers apart, calling them, knowing them again.

Letters: b items of one batch, T tokens, d width of a token, H x W a feature map.
"""

import contextlib
import copy
import hashlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import nn

Encoder: TypeAlias = "str | os.PathLike[str] | tuple[nn.Module, Any] | nn.Module"
EncoderKind = Literal["text", "image"]
Precision = Literal["auto", "float32", "bfloat16"]

# Where models of several modalities, such as CLIP, SigLIP and FLAVA, keep the part for one of them.
_TOWERS: dict[EncoderKind, tuple[str, ...]] = {
    "text": ("text_model",),
    "image": ("vision_model", "vision_tower", "image_model"),
}
_PROCESSOR_FILES: dict[EncoderKind, str] = {
    "text": "tokenizer files",
    "image": "preprocessor_config.json",
}
_CPU_BFLOAT16 = ("avx512_bf16", "amx_bf16")  # what torch calls such instructions
_VALUES_PER_WEIGHT = 64  # of each weight, that a fingerprint reads


class LoadedEncoder(NamedTuple):
    """An encoder ready to be called.

    Args:
        model: the module to call.
        processor: its tokenizer or image processor.
        name: what it is called: a folder, a name on the Hub, or the class where it has no name.
        revision: the commit on the Hub it was loaded from, if it was.
    """

    model: nn.Module
    processor: Callable[..., Any]
    name: str
    revision: str | None


def load_encoder(
    encoder: Encoder, kind: EncoderKind, device: torch.device | str | None = None
) -> LoadedEncoder:
    """Load an encoder, or take the user's, and keep the part that reads this kind of input.

    Models of several modalities are reduced to their text or vision part, encoder-decoder models
    to their encoder. A model of the user is never changed: where it has to move to another device,
    or has float16 weights on the CPU, a copy does the work.

    Args:
        encoder: a folder or a name on the Hugging Face Hub, loaded through `AutoModel` and
            `AutoTokenizer` or `AutoImageProcessor`; or a pair (model, tokenizer or image
            processor).
        kind: "text" or "image".
        device: where to run. Default: an accelerator if there is one, else the CPU; for a pair,
            where the model is.

    Returns:
        The module to call, the tokenizer or image processor, and their name.

    Raises:
        TypeError: if the encoder is neither a name nor a pair.
        OSError: if the name leads to no complete encoder.
    """
    if isinstance(encoder, str | os.PathLike):
        return _load_by_name(os.fspath(encoder), kind, device)
    if not (
        isinstance(encoder, tuple | list)
        and len(encoder) == 2
        and isinstance(encoder[0], nn.Module)
        and callable(encoder[1])
    ):
        processor = "tokenizer" if kind == "text" else "image processor"
        raise TypeError(
            f"{kind} encoder is {type(encoder).__name__}, but it must be a folder, a name on the "
            f"Hugging Face Hub, or a pair (model, {processor})"
        )
    name, revision = _origin(encoder[0])
    model = placed(_tower(encoder[0], kind), device)
    return LoadedEncoder(model, encoder[1], name, revision)


def placed(model: nn.Module, device: torch.device | str | None) -> nn.Module:
    """Bring a model of the user to a device, as a copy where anything has to change.

    Args:
        model: the model.
        device: where to run; None = where it is.

    Returns:
        The model, or its copy; on the CPU without float16 weights, which are slow there.
    """
    weight = next(model.parameters(), torch.empty(0))
    target = weight.device if device is None else torch.device(device)
    if target.type == "cpu" and weight.dtype == torch.float16:
        return copy.deepcopy(model).to(target, torch.float32)
    if target.type != weight.device.type or target.index not in (None, weight.device.index):
        return copy.deepcopy(model).to(target)
    return model


def _load_by_name(name: str, kind: EncoderKind, device: torch.device | str | None) -> LoadedEncoder:
    hide_broken_torchvision()
    import transformers

    processor_class = (
        transformers.AutoTokenizer if kind == "text" else transformers.AutoImageProcessor
    )
    target = torch.device(device) if device is not None else best_device()
    # Half precision is slow or missing on the CPU; elsewhere the weights keep their own type.
    dtype = torch.float32 if target.type == "cpu" else "auto"
    try:
        processor = processor_class.from_pretrained(name)
        with torch.random.fork_rng(devices=[]):  # poolers without weights are drawn at random
            model = transformers.AutoModel.from_pretrained(name, dtype=dtype)
    except (OSError, ValueError, KeyError) as error:
        raise OSError(
            f"{name!r} cannot be loaded as {kind} encoder. It must be a folder, or a name on the "
            f"Hugging Face Hub, with config.json, model.safetensors and {_PROCESSOR_FILES[kind]}: "
            f"{error}"
        ) from error
    return LoadedEncoder(_tower(model, kind).to(target), processor, name, _origin(model)[1])


def _origin(model: nn.Module) -> tuple[str, str | None]:
    """What a model says of its name and revision."""
    config = getattr(model, "config", None)
    name = getattr(config, "_name_or_path", "") or type(model).__name__
    return name, getattr(config, "_commit_hash", None)


def _tower(model: nn.Module, kind: EncoderKind) -> nn.Module:
    for name in _TOWERS[kind]:
        tower = getattr(model, name, None)
        if isinstance(tower, nn.Module):
            return tower
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        encoder: nn.Module = model.get_encoder()  # type: ignore[operator]
        return encoder
    return model


def best_device() -> torch.device:
    """Return an accelerator if there is one, else the CPU."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return torch.device("cpu") if accelerator is None else accelerator


def device_of(model: nn.Module) -> torch.device:
    """Return where a model's weights are.

    Args:
        model: any module.

    Returns:
        The device of its first parameter; the CPU if it has none.
    """
    return next(model.parameters(), torch.empty(0)).device


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Switch dropout and the like off, and on again afterwards where it was on.

    Args:
        model: any module.

    Yields:
        Nothing.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def last_hidden_state(output: Any) -> torch.Tensor:
    """Take the tokens from what an encoder returned.

    Args:
        output: a transformers output, a tuple that starts with the tokens, or the tokens.

    Returns:
        (b, T, d), or (b, d, H, W) from a convolutional encoder.

    Raises:
        TypeError: if there are no tokens in it.
    """
    state = getattr(output, "last_hidden_state", output)
    if isinstance(state, tuple | list):
        state = state[0]
    if not isinstance(state, torch.Tensor):
        raise TypeError(
            f"the encoder returns {type(output).__name__} without last_hidden_state; use a base "
            "model, as transformers.AutoModel loads it"
        )
    return state


def autocast_type(model: nn.Module, precision: Precision) -> torch.dtype:
    """Choose the type to compute in.

    Args:
        model: the encoder, where it will run.
        precision: "auto" takes bfloat16 on accelerators and CPUs that compute in it, for encoders
            whose weights are float32, and the weights' own type everywhere else.

    Returns:
        `torch.bfloat16`, or the type of the weights.

    Raises:
        ValueError: if `precision` is something else.
    """
    weight = next(model.parameters(), torch.empty(0))
    if precision == "auto":
        helps = weight.dtype == torch.float32 and computes_in_bfloat16(weight.device)
        return torch.bfloat16 if helps else weight.dtype
    if precision not in ("float32", "bfloat16"):
        raise ValueError(
            f"precision is {precision!r}, but it must be 'auto', 'float32' or 'bfloat16'"
        )
    return torch.bfloat16 if precision == "bfloat16" else weight.dtype


def computes_in_bfloat16(device: torch.device) -> bool:
    """Tell whether a device has instructions for bfloat16, with which encoders run faster.

    Args:
        device: any.

    Returns:
        False for a CPU of which torch does not say so: before torch 2.10 it says so of none.
    """
    if device.type == "cpu":
        capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        return any(capabilities.get(name, False) for name in _CPU_BFLOAT16)
    return device.type == "cuda" and torch.cuda.is_bf16_supported()


@contextmanager
def inference(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Compute without gradients, in a type as `autocast_type` chooses it.

    Args:
        model: the encoder.
        dtype: the type; autocast is used where it is not that of the weights.

    Yields:
        Nothing.
    """
    weight = next(model.parameters(), torch.empty(0))
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        if dtype != weight.dtype:
            stack.enter_context(torch.autocast(weight.device.type, dtype=dtype))
        yield


def fingerprint(model: nn.Module) -> str:
    """Tell encoders with other weights apart, by a few values of each weight.

    Args:
        model: any module.

    Returns:
        A short text: the same for the same weights, whatever device and type they are in.
    """
    digest = hashlib.blake2b(digest_size=12)
    for name, weight in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(weight.shape)};".encode())
        flat = weight.detach().flatten()
        some = flat[:: max(1, len(flat) // _VALUES_PER_WEIGHT)]
        digest.update(some.cpu().to(torch.float64).numpy().tobytes())
    return digest.hexdigest()


def hide_broken_torchvision() -> None:
    """Let transformers treat a torchvision that cannot be imported as not installed.

    transformers imports torchvision with every model, texts included, as soon as it is installed;
    one that belongs to another torch release then takes all models down with it.
    """
    if "transformers.image_utils" in sys.modules:
        return  # transformers has imported what it needs of torchvision, or found none
    if importlib.util.find_spec("torchvision") is None:
        return
    try:
        importlib.import_module("torchvision.transforms")
    except Exception:  # a broken extension module raises RuntimeError, OSError, AttributeError ...
        from transformers.utils import is_torchvision_available

        sys.modules["torchvision"] = None  # type: ignore[assignment]  # not importable, not found
        try:
            is_torchvision_available.cache_clear()
            is_torchvision_available()
        finally:
            del sys.modules["torchvision"]  # a later import shows its own error again
