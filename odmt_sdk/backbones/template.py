"""What the user brought as a backbone, and one backbone per source made of it."""

import copy
import functools
import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from odmt_sdk.backbones.check import check_adapted
from odmt_sdk.backbones.hidden_size import infer_hidden_size
from odmt_sdk.backbones.registry import AdapterBuilder, adapt_backbone, is_adapted
from odmt_sdk.backbones.reinitialize import reinitialize

SHARED = "shared"


class BackboneTemplate:
    """One or several backbones of any interface, adapted, of which copies are made.

    Args:
        backbone: a module or function of any interface; a function without arguments that makes
            one; or a mapping from each source to its own.
        hidden_size: D; None = the backbone's own.
        adapter: as in `adapt_backbone`.
        forward_fn: as in `adapt_backbone`.
        project: as in `adapt_backbone`.
        fresh_copies: every source draws new weights in place of copying those of the backbone.

    Attributes:
        name: class of the backbone or backbones, for messages and for what is saved.
        hidden_size: D.
        max_seq_length: longest sequence that all of them read, or None.
        like: a floating-point tensor of the backbone's device and type.
        own_call: whether the user said how to call it.

    Raises:
        TypeError: if a backbone cannot be called.
        ValueError: if it cannot be told how to call it, or its width cannot be found or does not
            fit.
    """

    def __init__(
        self,
        backbone: Any,
        *,
        hidden_size: int | None,
        adapter: str | AdapterBuilder | None = None,
        forward_fn: Callable[..., Any] | None = None,
        project: bool = False,
        fresh_copies: bool = False,
    ) -> None:
        self._fresh_copies = fresh_copies
        self._to_protocol = functools.partial(
            adapt_backbone, adapter=adapter, forward_fn=forward_fn, project=project
        )
        self._factory: Callable[[], Any] | None = None
        given = backbone
        if isinstance(backbone, Mapping):
            if not backbone:
                raise ValueError("backbone is an empty mapping: give one for every source")
            given = dict(backbone)
        elif is_factory(backbone):
            self._factory = backbone
            given = backbone()
            if not isinstance(given, nn.Module):
                raise TypeError(
                    f"backbone= is a function without arguments, which is taken to make a "
                    f"backbone, but it returned {type(given).__name__}: return a torch.nn.Module"
                )
        by_source = given if isinstance(given, dict) else {SHARED: given}
        self.own_call = (
            adapter is not None
            or forward_fn is not None
            or any(map(is_adapted, by_source.values()))
        )
        self._by_source: dict[str, nn.Module] = {}
        self._names = {
            source: getattr(one, "__name__", type(one).__name__)
            for source, one in by_source.items()
        }
        for source, one in by_source.items():
            adapted, hidden_size = self._adapt(one, hidden_size)
            self._by_source[source] = adapted
        self.name = ", ".join(dict.fromkeys(self._names.values()))
        self.hidden_size: int = hidden_size or 0
        limits = [getattr(one, "max_seq_length", None) for one in self._by_source.values()]
        self.max_seq_length = min((int(limit) for limit in limits if limit), default=None)
        weights = (p for one in self._by_source.values() for p in one.parameters())
        like = next(weights, torch.empty(0)).detach()
        self.like = like if like.is_floating_point() else torch.empty(0, device=like.device)

    def check(self, *, max_seq_length: int, allow_future: bool, stacklevel: int) -> None:
        """Measure them as `check_backbone` does; errors are raised, other findings are warnings.

        Args:
            max_seq_length: longest sequence that the backbones will be given.
            allow_future: whether they may read later items.
            stacklevel: whose line the warnings name, as in `warnings.warn`.

        Raises:
            ValueError: if a backbone cannot be used.
        """
        for source, backbone in self._by_source.items():
            report = check_adapted(
                backbone,
                self._names[source],
                hidden_size=self.hidden_size,
                max_seq_length=max_seq_length,
                allow_future=allow_future,
            )
            report.raise_for_errors()
            for finding in report.warnings:
                warnings.warn(
                    f"{report.subject}: {finding.name}: {finding.message}",
                    stacklevel=stacklevel + 1,
                )

    def make(self, sources: Iterable[str], *, share: bool) -> dict[str, nn.Module]:
        """Make the backbones of a model; the user's own objects stay out of them.

        Args:
            sources: names of the sources.
            share: one for all sources.

        Returns:
            Source -> backbone, or "shared" -> the one for all.

        Raises:
            ValueError: if a mapping was given that does not name the sources, or is to be shared;
                or a module cannot draw new weights.
        """
        adapted = self.of(sources, share=share)
        if SHARED not in self._by_source:
            return {name: self._copy(backbone) for name, backbone in adapted.items()}
        return {name: self._one_more(first=i == 0) for i, name in enumerate(adapted)}

    def of(self, sources: Iterable[str], *, share: bool) -> dict[str, nn.Module]:
        """The backbones of which those of a model are copies.

        Args:
            sources: names of the sources.
            share: one for all sources.

        Returns:
            Source -> adapted backbone, or "shared" -> the one for all.

        Raises:
            ValueError: if a mapping was given that does not name the sources, or is to be shared.
        """
        sources = tuple(sources)
        if SHARED in self._by_source:
            return dict.fromkeys((SHARED,) if share else sources, self._by_source[SHARED])
        if share:
            raise ValueError("share_backbone=True needs one backbone, not one for each source")
        if set(self._by_source) != set(sources):
            raise ValueError(
                f"backbone= has the sources {sorted(self._by_source)}, the items have "
                f"{sorted(sources)}: give a backbone for each of them"
            )
        return {name: self._by_source[name] for name in sources}

    def _one_more(self, *, first: bool) -> nn.Module:
        adapted = self._by_source[SHARED]
        if self._factory is None:
            return self._copy(adapted)
        return adapted if first else self._adapt(self._factory(), self.hidden_size)[0]

    def _copy(self, adapted: nn.Module) -> nn.Module:
        twin = copy.deepcopy(adapted)
        return reinitialize(twin) if self._fresh_copies else twin

    def _adapt(self, backbone: Any, hidden_size: int | None) -> tuple[nn.Module, int]:
        adapted = self._to_protocol(backbone, hidden_size=hidden_size)
        if hidden_size:
            return adapted, hidden_size
        stated = getattr(adapted, "hidden_size", None) if is_adapted(adapted) else None
        width = stated or infer_hidden_size(adapted)
        if not stated and is_adapted(adapted):  # once more, now that the width is known
            adapted = self._to_protocol(backbone, hidden_size=width)
        return adapted, width


def is_factory(backbone: object) -> bool:
    """Whether this is a function that can be called without arguments, and no module or class."""
    if isinstance(backbone, nn.Module | type) or not callable(backbone):
        return False
    try:
        parameters = inspect.signature(backbone).parameters.values()
    except (TypeError, ValueError):  # built-in functions tell no signature
        return False
    return all(p.default is not p.empty or p.kind is p.VAR_KEYWORD for p in parameters)
