"""`adapt_backbone` and the registry of bridges that turn any model into a `SequenceBackbone`."""

import itertools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from odmt_sdk.backbones.bridges.forward_function import ForwardFunctionBackbone
from odmt_sdk.backbones.bridges.projected import ProjectedBackbone
from odmt_sdk.backbones.protocol import AdaptedBackbone
from odmt_sdk.deprecation import renamed_argument
from odmt_sdk.registry import Registry

BridgeBuilder = Callable[[Any, int | None], nn.Module]


@dataclass(frozen=True)
class _Bridge:
    matches: Callable[[object], bool]
    priority: int
    build: BridgeBuilder


BRIDGES: Registry[_Bridge] = Registry(
    "bridge",
    "register_bridge",
    "odmt_sdk.backbones.bridges",
    "odmt_sdk.backbones.models.by_name",
    "odmt_sdk.backbones.id_lookup.backbone",
    "odmt_sdk.backbones.signature.bridge",
)


def register_bridge(
    name: str, *, matches: type | Callable[[object], bool], priority: int = 0
) -> Callable[[BridgeBuilder], BridgeBuilder]:
    """Register a bridge, both for the backbones that it matches and as `bridge=name`.

    If several bridges match, the one with the highest priority is used; among equal priorities, the
    one that was registered last. The bridges of this package have priorities below 0.

    Args:
        name: name of the bridge.
        matches: the type of the backbones that the bridge is for, or a function
            `backbone -> bool`.
        priority: precedence over other bridges.

    Returns:
        A decorator for a function `(backbone, hidden_size or None) -> module`. The module must
        follow `SequenceBackbone` and leave the original backbone unchanged.

    Raises:
        ValueError: if the name is already registered.

    Examples:
        >>> @register_bridge("my-model", matches=MyModel)                   # doctest: +SKIP
        ... def build(backbone, hidden_size):
        ...     return MyBridge(backbone)
    """

    def register(builder: BridgeBuilder) -> BridgeBuilder:
        test = _type_test(matches) if isinstance(matches, type) else matches
        BRIDGES.add(name, _Bridge(test, priority, builder), by=builder)
        return builder

    return register


def register_adapter(
    name: str, *, matches: type | Callable[[object], bool], priority: int = 0
) -> Callable[[BridgeBuilder], BridgeBuilder]:
    """Deprecated name of `register_bridge`; it will be removed in the next release.

    Args:
        name: as for `register_bridge`.
        matches: as for `register_bridge`.
        priority: as for `register_bridge`.

    Returns:
        A decorator.
    """
    warnings.warn(
        "register_adapter was renamed to register_bridge; the next release removes the old name",
        FutureWarning,
        stacklevel=2,
    )
    return register_bridge(name, matches=matches, priority=priority)


@renamed_argument("adapter", "bridge")
def adapt_backbone(
    backbone: Any,
    *,
    hidden_size: int | None = None,
    bridge: str | BridgeBuilder | None = None,
    forward_fn: Callable[..., Any] | None = None,
    project: bool = False,
) -> AdaptedBackbone:
    """Wrap a backbone of any interface as `(inputs_embeds, attention_mask) -> hidden states`.

    The backbone itself is not changed. A bridge holds it, or a copy if a part had to be removed;
    `unwrap_backbone` returns the module inside a bridge.

    Args:
        backbone: a module or another callable.
        hidden_size: width D of the item embeddings; None = the backbone's own width.
        bridge: the name of a registered bridge, or a function `(backbone, hidden_size) -> module`.
            None = choose the bridge automatically.
        forward_fn: a function `(backbone, inputs_embeds (B, L, D), attention_mask (B, L)) ->
            (B, L, D)` that calls the backbone. Cannot be combined with `bridge`.
        project: whether to add linear layers around a backbone whose width differs from
            `hidden_size`.

    Returns:
        A module that follows `SequenceBackbone`; the backbone itself if it already does.

    Raises:
        TypeError: if the backbone is not callable, or the bridge does not return a module.
        ValueError: if the bridge is unknown, no bridge can determine how to call the backbone, it
            has lazy weights, or the widths differ and `project` is False.

    Examples:
        >>> import torch
        >>> gru = adapt_backbone(nn.GRU(8, 8, batch_first=True))
        >>> gru(torch.randn(2, 5, 8), torch.ones(2, 5, dtype=torch.long)).shape
        torch.Size([2, 5, 8])
    """
    if isinstance(backbone, type):
        raise TypeError(
            f"backbone is the class {backbone.__name__}, pass an instance: {backbone.__name__}(...)"
        )
    if isinstance(backbone, nn.Module):
        _refuse_lazy(backbone)
    if bridge is not None and forward_fn is not None:
        raise ValueError("bridge= and forward_fn= both say how to call the backbone: pass one")
    if forward_fn is not None:
        adapted: nn.Module = ForwardFunctionBackbone.build(backbone, forward_fn, hidden_size)
    elif bridge is None and is_adapted(backbone):
        adapted = backbone
    else:
        builder = find_bridge(backbone) if bridge is None else _named(bridge)
        adapted = builder(backbone, hidden_size)
    if not isinstance(adapted, nn.Module):
        raise TypeError(
            f"the bridge returned {type(adapted).__name__}, it must return a torch.nn.Module"
        )
    return _fit_width(AdaptedBackbone(adapted), hidden_size, project=project, name=_name(backbone))


def find_bridge(backbone: Any) -> BridgeBuilder:
    """Find the registered bridge of highest priority that matches a backbone.

    Args:
        backbone: the user's backbone.

    Returns:
        The function that builds the bridge.

    Raises:
        TypeError: if no bridge matches because the backbone is not callable.
    """
    # sorting keeps the order of equal priorities: the one registered last is asked first
    last_first = reversed([BRIDGES.get(name) for name in BRIDGES])
    for entry in sorted(last_first, key=lambda entry: entry.priority, reverse=True):
        if entry.matches(backbone):
            return entry.build
    raise TypeError(
        f"backbone must be a torch.nn.Module or another callable, got "
        f"{type(backbone).__name__}: pass an instance, such as SASRec(hidden_size=64)"
    )


def is_adapted(backbone: object) -> bool:
    """Whether a backbone is already inside a bridge."""
    return isinstance(backbone, nn.Module) and hasattr(type(backbone), "reads_item_ids")


def unwrap_backbone(adapted: nn.Module) -> nn.Module:
    """Return the user's module inside a bridge, with its trained weights.

    Args:
        adapted: a module from `adapt_backbone`.

    Returns:
        The module inside, or `adapted` itself if it is not a bridge.

    Examples:
        >>> unwrap_backbone(adapt_backbone(nn.GRU(8, 8)))
        GRU(8, 8)
    """
    while is_adapted(adapted):
        module = getattr(adapted, "module", None)
        if not isinstance(module, nn.Module):
            break
        adapted = module
    return adapted


def _named(bridge: str | BridgeBuilder) -> BridgeBuilder:
    if not isinstance(bridge, str):
        return bridge
    if bridge not in BRIDGES:
        raise ValueError(
            f"bridge={bridge!r} is not registered; known are {sorted(BRIDGES)}. "
            "Add your own with register_bridge"
        )
    return BRIDGES.get(bridge).build


def _fit_width(
    adapted: AdaptedBackbone, hidden_size: int | None, *, project: bool, name: str
) -> AdaptedBackbone:
    """Add projections if the backbone's widths differ from D and `project` is True, else raise."""
    reads: int | None = getattr(adapted, "hidden_size", None) if is_adapted(adapted) else None
    if reads is None:
        return adapted
    returns: int = getattr(adapted, "output_size", None) or reads
    wanted = hidden_size or reads
    if reads == returns == wanted:
        return adapted
    if project:
        return AdaptedBackbone(
            ProjectedBackbone(adapted, hidden_size=wanted, reads=reads, returns=returns)
        )
    same = f"hidden_size={reads}, or " if reads == returns else ""
    raise ValueError(
        f"{name} reads {reads} values per item and returns {returns}, but the item embeddings have "
        f"{wanted}: pass {same}project=True (ODMTConfig(project_backbone=True) when wrapping), "
        "which adds linear layers between the two widths"
    )


def _refuse_lazy(backbone: nn.Module) -> None:
    """Raise if a weight has no shape yet, as in `nn.LazyLinear` before its first call."""
    tensors = itertools.chain(backbone.named_parameters(), backbone.named_buffers())
    lazy = [name for name, tensor in tensors if is_lazy(tensor)]
    if lazy:
        raise ValueError(
            f"{type(backbone).__name__} has lazy weights, which have no shape yet: "
            f"{', '.join(lazy[:3])}. Run it once on a batch of embeddings before wrapping it"
        )


def _type_test(kind: type) -> Callable[[object], bool]:
    return lambda backbone: isinstance(backbone, kind)


def _name(backbone: object) -> str:
    return getattr(backbone, "__name__", type(backbone).__name__)
