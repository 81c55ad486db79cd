"""Comparing saved weights with a model before any of them is touched, and putting them there."""

from collections.abc import Mapping

import torch
from torch import nn

from odmt_sdk.errors import AdapterError
from odmt_sdk.files.tensor_file import SavedTensor

SHOWN = 5
COMPUTED = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
# What compiling, distributing and checkpointing put into the names of weights.
WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")


def plain_name(name: str) -> str:
    """The name of a weight without what wraps its module."""
    for wrapper in WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def unfit_weights(saved: Mapping[str, torch.Size], expected: Mapping[str, torch.Size]) -> str:
    """Compare the saved weights with those of the model, by name and shape.

    Args:
        saved: name -> shape in the adapter.
        expected: name -> shape in the model.

    Returns:
        What does not fit, for a message; "" if all do.
    """
    reshaped = [
        f"{name} is {tuple(saved[name])} in the adapter, {tuple(expected[name])} in the model"
        for name in expected
        if name in saved and saved[name] != expected[name]
    ]
    problems = [
        f"{what}: {'; '.join(names[:SHOWN])}{' ...' if len(names) > SHOWN else ''}"
        for what, names in (
            ("not in the adapter", sorted(set(expected) - set(saved))),
            ("not in the model", sorted(set(saved) - set(expected))),
            ("other shapes", reshaped),
        )
        if names
    ]
    return ". ".join(problems)


def put_weights(
    model: nn.Module,
    saved: Mapping[str, SavedTensor],
    *,
    dtype: torch.dtype | None,
    allow_non_finite: bool,
) -> None:
    """Give a model saved weights, one after another, without a second copy of all of them.

    The parameters stay the objects that they are, so that whatever else holds them sees the new
    values. They take the type in which they were saved.

    Args:
        model: has weights of these names and shapes.
        saved: by name.
        dtype: type of the floating-point weights; None = as saved.
        allow_non_finite: whether NaN and infinite values are accepted.

    Raises:
        AdapterError: if a file is damaged, a value is not finite, or the model ties weights that
            differ in the adapter.
    """
    own = _own_tensors(model)
    _check_types(own, saved, dtype)
    raw_names = {plain_name(name): name for name in model.state_dict(keep_vars=True)}
    first: dict[int, str] = {}
    others: dict[str, torch.Tensor] = {}
    for name, entry in saved.items():
        target = own.get(name)
        if target is None:
            others[raw_names[name]] = entry.read()
            if not allow_non_finite:
                check_finite(name, others[raw_names[name]], infinity=True)
        elif id(target) in first:
            _check_tied(saved, name, first[id(target)])
        else:
            first[id(target)] = name
            value = _read_for(target, entry)
            if not allow_non_finite:
                infinity = name.startswith("backbones.") and not isinstance(target, nn.Parameter)
                check_finite(name, value, infinity=infinity)
            target.data = value.to(target.device, dtype if value.is_floating_point() else None)
    if others:  # kept by a module in a way of its own
        model.load_state_dict(others, strict=False)


def _own_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return {
        plain_name(name): tensor
        for tensors in (
            model.named_parameters(remove_duplicate=False),
            model.named_buffers(remove_duplicate=False),
        )
        for name, tensor in tensors
    }


def _check_types(
    own: Mapping[str, torch.Tensor], saved: Mapping[str, SavedTensor], dtype: torch.dtype | None
) -> None:
    """Raise unless the model can compute with the types in which its weights were saved."""
    first: dict[tuple[str, torch.dtype], str] = {}
    for name, entry in saved.items():
        target = own.get(name)
        if target is None:
            continue
        now, then = target.dtype, entry.dtype
        same_kind = _kind(now) == _kind(then)
        if not same_kind or (now != then and not then.is_floating_point and not then.is_complex):
            raise AdapterError(
                f"{name} has dtype {_named(then)} in the adapter, but {_named(now)} in the model: "
                "the adapter is damaged, or the backbone was built in another way"
            )
        if dtype is not None or not then.is_floating_point:
            continue
        if then not in COMPUTED and then != now:
            raise AdapterError(
                f"{name} has dtype {_named(then)}, with which torch cannot compute: pass dtype=, "
                "such as torch.float32"
            )
        kept = first.setdefault((_part(name), now), name)
        if saved[kept].dtype != then:
            raise AdapterError(
                f"{name} has dtype {_named(then)} in the adapter and {kept} has "
                f"{_named(saved[kept].dtype)}, but in the model both have {_named(now)}: build "
                "the backbone as in training, or pass dtype="
            )


def _part(name: str) -> str:
    """The item encoder, or one of the backbones: each may have a type of its own."""
    return ".".join(name.split(".")[: 3 if name.startswith("backbones.") else 1])


def check_finite(name: str, value: torch.Tensor, *, infinity: bool = False) -> None:
    """Raise unless all values are finite.

    Args:
        name: for the message.
        value: any tensor.
        infinity: accept infinite values, as masks have them, but not NaN.

    Raises:
        AdapterError: if one is not.
    """
    if value.is_complex():
        value = torch.view_as_real(value)
    if not value.is_floating_point() or not value.numel():
        return
    if value.dtype.itemsize == 1:
        value = value.float()
    ends = torch.stack(torch.aminmax(value))
    if bool((ends.isnan() if infinity else ~ends.isfinite()).any()):
        raise AdapterError(
            f"{name} holds NaN or infinite values: training diverged, or the adapter was tampered "
            "with. Pass allow_non_finite=True to load it anyway"
        )


def _read_for(target: torch.Tensor, entry: SavedTensor) -> torch.Tensor:
    """The values of a weight, in its own memory where it has that for itself."""
    if (
        target.device.type == "cpu"
        and target.dtype == entry.dtype
        and target.is_contiguous()
        and target.untyped_storage().nbytes() == entry.num_bytes
    ):
        return entry.read(target.data)
    target.data = target.data.new_empty(0)  # frees it before the new values take its place
    return entry.read()


def _kind(dtype: torch.dtype) -> tuple[bool, bool, bool]:
    """Whether it is of fractions, of complex numbers, of true and false."""
    return dtype.is_floating_point, dtype.is_complex, dtype is torch.bool


def _named(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _check_tied(saved: Mapping[str, SavedTensor], name: str, kept: str) -> None:
    if saved[name] is not saved[kept] and not torch.equal(saved[name].read(), saved[kept].read()):
        raise AdapterError(
            f"the model ties {name} to {kept}, but they differ in the adapter: untie them, as in "
            "training"
        )
