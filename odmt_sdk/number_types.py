"""Types of the numbers that a model computes with."""

from collections.abc import Callable

import torch


def added_dtype(asked: torch.dtype | None, backbone: torch.dtype) -> torch.dtype:
    """Choose the type of the weights that are added to a backbone.

    Args:
        asked: the type that the user asked for, or None.
        backbone: the type of the backbone's weights.

    Returns:
        `asked`; if it is None, float32, or float64 if the backbone has it.

    Raises:
        TypeError: if `asked` is not a floating-point type.

    Examples:
        >>> added_dtype(None, torch.bfloat16)
        torch.float32
    """
    if asked is None:
        return torch.promote_types(torch.float32, backbone)
    if not isinstance(asked, torch.dtype) or not asked.is_floating_point:
        raise TypeError(f"dtype={asked!r} must be a floating-point type, such as torch.bfloat16")
    return asked


def keeping_complex(
    convert: Callable[[torch.Tensor], torch.Tensor],
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Wrap a conversion so that complex numbers stay complex; torch would drop the imaginary part.

    Args:
        convert: a conversion to another type or device, as passed to `nn.Module._apply`.

    Returns:
        The wrapped conversion. It applies the new type to the real and the imaginary part.

    Examples:
        >>> keeping_complex(lambda tensor: tensor.double())(torch.tensor([1 + 2j]))
        tensor([1.+2.j], dtype=torch.complex128)
    """

    def converted(tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_complex():
            return convert(tensor)
        parts = convert(torch.view_as_real(tensor.resolve_conj()))
        if parts.is_complex():  # a complex type was asked for
            return convert(tensor)
        if parts.dtype in (torch.float32, torch.float64):
            return torch.view_as_complex(parts)
        return tensor.to(parts.device)  # there are no complex numbers of 16 bits to compute with

    return converted
