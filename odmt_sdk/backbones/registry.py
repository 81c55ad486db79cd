"""Registry of adapters: how a model of any interface becomes a `SequenceBackbone`."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from torch import nn

from odmt_sdk.backbones.forward_function import ForwardFunctionBackbone
from odmt_sdk.backbones.projected import ProjectedBackbone

AdapterBuilder = Callable[[Any, int | None], nn.Module]

# Each registers its adapters when imported, which happens where the first backbone is adapted.
BUILT_IN = (
    "torch_rnn",
    "torch_transformer",
    "transformers_models",
    "built_in",
    "id_lookup",
    "by_signature",
    "callables",
)


@dataclass(frozen=True)
class _Registered:
    name: str
    matches: Callable[[object], bool]
    priority: int
    build: AdapterBuilder


_ADAPTERS: dict[str, _Registered] = {}


def register_adapter(
    name: str, *, matches: type | Callable[[object], bool], priority: int = 0
) -> Callable[[AdapterBuilder], AdapterBuilder]:
    """Make an adapter known, for all backbones that it matches and as `adapter=name`.

    Of several that match, the highest priority is taken, and the latest registered among equals.
    The adapters of this package have priorities below 0.

    Args:
        name: its name.
        matches: the type of backbones that it is for, or a function that tells.
        priority: precedence over other adapters.

    Returns:
        A decorator for a function `(backbone, hidden_size or None) -> module`, where the module
        follows `SequenceBackbone` and leaves the backbone passed in unchanged.

    Raises:
        ValueError: if the name is taken.

    Examples:
        >>> @register_adapter("my-model", matches=MyModel)                   # doctest: +SKIP
        ... def build(backbone, hidden_size):
        ...     return MyAdapter(backbone)
    """

    def register(builder: AdapterBuilder) -> AdapterBuilder:
        if name in _ADAPTERS:
            raise ValueError(
                f"an adapter named {name!r} is registered already; choose another name"
            )
        test = _type_test(matches) if isinstance(matches, type) else matches
        _ADAPTERS[name] = _Registered(name, test, priority, builder)
        return builder

    return register


def adapt_backbone(
    backbone: Any,
    *,
    hidden_size: int | None = None,
    adapter: str | AdapterBuilder | None = None,
    forward_fn: Callable[..., Any] | None = None,
    project: bool = False,
) -> nn.Module:
    """Bring a backbone of any interface to `(inputs_embeds, attention_mask) -> hidden states`.

    The backbone is not changed: an adapter holds it, or a copy where something had to be removed,
    and `unwrap_backbone` takes it out again.

    Args:
        backbone: a module or another callable.
        hidden_size: D, the width of the item embeddings; None = the backbone's own.
        adapter: name of a registered adapter, or a function `(backbone, hidden_size) -> module`,
            in place of the one found by itself.
        forward_fn: `(backbone, inputs_embeds (B, L, D), attention_mask (B, L)) -> (B, L, D)`, which
            calls the backbone as it wants to be called.
        project: whether linear layers bridge a backbone width other than `hidden_size`.

    Returns:
        A module that follows `SequenceBackbone`; the backbone itself where it does so already.

    Raises:
        TypeError: if the backbone cannot be called, or no module comes of it.
        ValueError: if the adapter is unknown, or none can tell how to call the backbone, or widths
            differ and `project` is not set.

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
    if adapter is not None and forward_fn is not None:
        raise ValueError("adapter= and forward_fn= both say how to call the backbone: pass one")
    if forward_fn is not None:
        adapted: nn.Module = ForwardFunctionBackbone.build(backbone, forward_fn, hidden_size)
    elif adapter is None and is_adapted(backbone):
        adapted = backbone
    else:
        builder = find_adapter(backbone) if adapter is None else _named(adapter)
        adapted = builder(backbone, hidden_size)
    if not isinstance(adapted, nn.Module):
        raise TypeError(
            f"the adapter returned {type(adapted).__name__}, it must return a torch.nn.Module"
        )
    return _fit_width(adapted, hidden_size, project=project, name=_name(backbone))


def find_adapter(backbone: Any) -> AdapterBuilder:
    """The registered adapter of highest priority that matches.

    Args:
        backbone: what the user brings.

    Returns:
        Its builder.

    Raises:
        TypeError: if none matches, because the backbone cannot be called.
    """
    _load_built_in()
    matching = [entry for entry in _ADAPTERS.values() if entry.matches(backbone)]
    if not matching:
        raise TypeError(
            f"backbone must be a torch.nn.Module or another callable, got "
            f"{type(backbone).__name__}: pass an instance, such as SASRec(hidden_size=64)"
        )
    # `max` takes the first of equals, so the latest registered stands first.
    return max(reversed(matching), key=lambda entry: entry.priority).build


def is_adapted(backbone: object) -> bool:
    """Whether `adapt_backbone` made this module."""
    return isinstance(backbone, nn.Module) and hasattr(type(backbone), "reads_item_ids")


def unwrap_backbone(adapted: nn.Module) -> nn.Module:
    """Take the user's module out of its adapter, trained.

    Args:
        adapted: from `adapt_backbone`.

    Returns:
        The module inside, or `adapted` itself where it is no adapter.

    Examples:
        >>> unwrap_backbone(adapt_backbone(nn.GRU(8, 8)))
        GRU(8, 8)
    """
    while is_adapted(adapted) and isinstance(getattr(adapted, "module", None), nn.Module):
        adapted = adapted.module  # type: ignore[assignment]
    return adapted


def _named(adapter: str | AdapterBuilder) -> AdapterBuilder:
    if not isinstance(adapter, str):
        return adapter
    _load_built_in()
    if adapter not in _ADAPTERS:
        raise ValueError(
            f"adapter={adapter!r} is not registered; known are {sorted(_ADAPTERS)}. "
            "Add your own with register_adapter"
        )
    return _ADAPTERS[adapter].build


def _fit_width(
    adapted: nn.Module, hidden_size: int | None, *, project: bool, name: str
) -> nn.Module:
    """Project in and out where the backbone's widths are not D, if the user said so."""
    reads: int | None = getattr(adapted, "hidden_size", None) if is_adapted(adapted) else None
    if reads is None:
        return adapted
    returns: int = getattr(adapted, "output_size", None) or reads
    wanted = hidden_size or reads
    if reads == returns == wanted:
        return adapted
    if project:
        return ProjectedBackbone(adapted, hidden_size=wanted, reads=reads, returns=returns)
    same = f"hidden_size={reads}, or " if reads == returns else ""
    raise ValueError(
        f"{name} reads {reads} values per item and returns {returns}, the item embeddings have "
        f"{wanted}: pass {same}project=True (ODMTConfig(project_backbone=True) when wrapping) for "
        "linear layers that bridge the difference"
    )


def _type_test(kind: type) -> Callable[[object], bool]:
    return lambda backbone: isinstance(backbone, kind)


def _name(backbone: object) -> str:
    return getattr(backbone, "__name__", type(backbone).__name__)


def _load_built_in() -> None:
    for name in BUILT_IN:
        import_module(f"odmt_sdk.backbones.{name}")
