"""Pretrained encoders: loading, selecting the text or vision tower, calling and fingerprinting.

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

# Attributes in which multi-modal models such as CLIP, SigLIP and FLAVA store their towers.
_TOWERS: dict[EncoderKind, tuple[str, ...]] = {
    "text": ("text_model",),
    "image": ("vision_model", "vision_tower", "image_model"),
}
_PROCESSOR_FILES: dict[EncoderKind, str] = {
    "text": "tokenizer files",
    "image": "preprocessor_config.json",
}
_CPU_BFLOAT16 = ("avx512_bf16", "amx_bf16")  # torch's names of these instruction sets
_VALUES_PER_WEIGHT = 64  # values of each weight that go into a fingerprint


class LoadedEncoder(NamedTuple):
    """An encoder that is ready to be called.

    Args:
        model: the module to call.
        processor: its tokenizer or image processor.
        name: its folder or name on the Hub; its class name if it has neither.
        revision: the commit on the Hub that it was loaded from; None if unknown.
    """

    model: nn.Module
    processor: Callable[..., Any]
    name: str
    revision: str | None


def load_encoder(
    encoder: Encoder, kind: EncoderKind, device: torch.device | str | None = None
) -> LoadedEncoder:
    """Load an encoder, or accept a loaded one, and select the tower for this kind of input.

    Of multi-modal models, only the text or vision tower is used; of encoder-decoder models, only
    the encoder. A model passed by the user is never modified. If it has to move to another device,
    or has float16 weights on the CPU, a copy is used.

    Args:
        encoder: a folder or a name on the Hugging Face Hub, loaded through `AutoModel` and
            `AutoTokenizer` or `AutoImageProcessor`; or a pair (model, tokenizer or image
            processor).
        kind: "text" or "image".
        device: where to run. Default: an accelerator if available, else the CPU; for a pair, the
            device of the model.

    Returns:
        The module to call, its tokenizer or image processor, and its name and revision.

    Raises:
        TypeError: if the encoder is neither a name nor a pair.
        OSError: if no complete encoder is found under that name.
    """
    if isinstance(encoder, str | os.PathLike):
        return _load_by_name(os.path.expanduser(os.fspath(encoder)), kind, device)
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
    """Place a user's model on a device; a copy is made if anything has to change.

    Args:
        model: the model.
        device: where to run; None = its current device.

    Returns:
        The model, or a copy of it. On the CPU, float16 weights become float32, which is faster.
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
    # Half precision is slow or unsupported on the CPU; elsewhere the weights keep their dtype.
    dtype = torch.float32 if target.type == "cpu" else "auto"
    try:
        processor = processor_class.from_pretrained(name)
        with torch.random.fork_rng(devices=[]):
            # weights missing in the checkpoint, such as a pooler's, are random: the same each time
            torch.default_generator.manual_seed(0)
            model = transformers.AutoModel.from_pretrained(name, dtype=dtype)
    except (OSError, ValueError, KeyError) as error:
        raise OSError(
            f"{name!r} cannot be loaded as {kind} encoder. It must be a folder, or a name on the "
            f"Hugging Face Hub, with config.json, model.safetensors and {_PROCESSOR_FILES[kind]}: "
            f"{error}"
        ) from error
    return LoadedEncoder(_tower(model, kind).to(target), processor, name, _origin(model)[1])


def _origin(model: nn.Module) -> tuple[str, str | None]:
    """Return the name and revision recorded in a model's config."""
    config = getattr(model, "config", None)
    name = getattr(config, "_name_or_path", "") or type(model).__name__
    return name, getattr(config, "_commit_hash", None)


def _tower(model: Any, kind: EncoderKind) -> nn.Module:
    for name in _TOWERS[kind]:
        tower = getattr(model, name, None)
        if isinstance(tower, nn.Module):
            return tower
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        model = model.get_encoder()
    whole: nn.Module = model
    return whole


def best_device() -> torch.device:
    """Return an accelerator if available, else the CPU."""
    # `current_accelerator` of torch 2.6 does not check whether the device is available
    accelerator = (
        torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    )
    return torch.device("cpu") if accelerator is None else accelerator


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a model.

    Args:
        model: any module.

    Returns:
        The device of its first parameter; the CPU if it has no parameters.
    """
    return next(model.parameters(), torch.empty(0)).device


def last_hidden_state(output: Any) -> torch.Tensor:
    """Extract the tokens from the output of an encoder.

    Args:
        output: a transformers output, a tuple whose first element is the tokens, or the tokens.

    Returns:
        Tokens (b, T, d), or (b, d, H, W) from a convolutional encoder.

    Raises:
        TypeError: if the output has no tokens.
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
    """Choose the dtype to compute in.

    Args:
        model: the encoder, on the device where it will run.
        precision: "auto" chooses bfloat16 for encoders with float32 weights on devices that support
            bfloat16 natively, otherwise the dtype of the weights. "float32" is always the dtype of
            the weights.

    Returns:
        `torch.bfloat16`, or the dtype of the weights.

    Raises:
        ValueError: if `precision` is unknown.
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
    """Check whether a device supports bfloat16 natively, so that encoders run faster in it.

    Args:
        device: any device.

    Returns:
        Whether it does. Always False for CPUs before torch 2.10, which does not report it.
    """
    if device.type == "cpu":
        capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        return any(capabilities.get(name, False) for name in _CPU_BFLOAT16)
    return device.type == "cuda" and torch.cuda.is_bf16_supported()


@contextmanager
def computing_in(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Compute in the dtype that `autocast_type` returned.

    Args:
        model: the encoder.
        dtype: the dtype; autocast is enabled if the weights have another dtype.

    Yields:
        Nothing.
    """
    weight = next(model.parameters(), torch.empty(0))
    with contextlib.ExitStack() as stack:
        if dtype != weight.dtype:
            stack.enter_context(torch.autocast(weight.device.type, dtype=dtype))
        yield


def fingerprint(model: nn.Module) -> str:
    """Compute a fingerprint of a model's weights from a sample of values of each weight.

    Args:
        model: any module.

    Returns:
        A short string: the same for equal weights, on any device and in any dtype.
    """
    digest = hashlib.blake2b(digest_size=12)
    for name, weight in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(weight.shape)};".encode())
        flat = weight.detach().flatten()
        some = flat[:: max(1, len(flat) // _VALUES_PER_WEIGHT)]
        digest.update(some.cpu().to(torch.float64).numpy().tobytes())
    return digest.hexdigest()


def hide_broken_torchvision() -> None:
    """Make transformers treat a broken torchvision as not installed.

    If torchvision is installed, transformers imports it with every model, even a text model. A
    torchvision built for another torch release would then break all models.
    """
    if "transformers.image_utils" in sys.modules:
        return  # too late: transformers has already checked for torchvision
    if importlib.util.find_spec("torchvision") is None:
        return
    try:
        importlib.import_module("torchvision.transforms")
    except Exception:  # a broken extension module raises any type of exception
        from transformers.utils import is_torchvision_available

        sys.modules["torchvision"] = None  # type: ignore[assignment]  # marks it as not found
        try:
            is_torchvision_available.cache_clear()
            is_torchvision_available()
        finally:
            del sys.modules["torchvision"]  # a later import raises the original error
