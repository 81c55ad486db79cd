"""`BackboneTemplate`: adapts the user's backbone and creates one backbone per source from it."""

import functools
import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from odmt_sdk.backbones.adapt import BridgeBuilder, adapt_backbone, is_adapted
from odmt_sdk.backbones.check.report import check_adapted
from odmt_sdk.backbones.protocol import AdaptedBackbone
from odmt_sdk.backbones.reinitialize import reinitialize
from odmt_sdk.backbones.signature.hidden_size import infer_hidden_size
from odmt_sdk.backbones.signature.trial import copy_module, plain

SHARED = "shared"


class BackboneTemplate:
    """One or more adapted backbones, from which the backbones of a model are created.

    Args:
        backbone: a module or function of any interface; a function without arguments that creates a
            module; or a mapping from each source to its backbone.
        hidden_size: D; None = the backbone's own width.
        bridge: as in `adapt_backbone`.
        forward_fn: as in `adapt_backbone`.
        project: as in `adapt_backbone`.
        fresh_copies: whether every source gets newly initialized weights. False = every source
            starts with a copy of the backbone's weights.

    Attributes:
        name: class name of the backbone, or of all backbones; used in messages and saved.
        hidden_size: D.
        max_seq_length: longest sequence that all backbones can read; None = any length.
        like: a floating-point tensor with the device and dtype of the backbone.
        own_call: whether the user specified how to call the backbone.

    Raises:
        TypeError: if a backbone is not callable, or a factory does not return a module.
        ValueError: if it is unclear how to call a backbone, or its width cannot be found or does
            not fit.
    """

    def __init__(
        self,
        backbone: Any,
        *,
        hidden_size: int | None,
        bridge: str | BridgeBuilder | None = None,
        forward_fn: Callable[..., Any] | None = None,
        project: bool = False,
        fresh_copies: bool = False,
    ) -> None:
        self._fresh_copies = fresh_copies
        self._to_protocol = functools.partial(
            adapt_backbone, bridge=bridge, forward_fn=forward_fn, project=project
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
                    f"backbone= is a function without arguments, which must create a backbone, "
                    f"but it returned {type(given).__name__}: return a torch.nn.Module"
                )
        by_source = given if isinstance(given, dict) else {SHARED: given}
        self.own_call = (
            bridge is not None or forward_fn is not None or any(map(is_adapted, by_source.values()))
        )
        self._by_source: dict[str, AdaptedBackbone] = {}
        self._spare: set[str] = set()  # sources whose module a model may use without a copy
        self._names = {
            source: getattr(one, "__name__", type(plain(one)).__name__)
            for source, one in by_source.items()
        }
        for source, one in by_source.items():
            adapted, hidden_size = self._adapt(one, hidden_size)
            self._by_source[source] = adapted
            copied = getattr(adapted, "holds_copy", False) and not is_adapted(one)
            if copied or self._factory is not None:
                self._spare.add(source)
        self.name = ", ".join(dict.fromkeys(self._names.values()))
        self.hidden_size: int = hidden_size or 0
        limits = [getattr(one, "max_seq_length", None) for one in self._by_source.values()]
        self.max_seq_length = min((int(limit) for limit in limits if limit), default=None)
        weights = (p for one in self._by_source.values() for p in one.parameters())
        like = next(weights, torch.empty(0)).detach()
        self.like = like if like.is_floating_point() else torch.empty(0, device=like.device)

    def check(self, *, max_seq_length: int, allow_future: bool, stacklevel: int) -> None:
        """Check the backbones as `check_backbone` does; raise for errors and warn otherwise.

        Args:
            max_seq_length: longest sequence that the backbones will receive.
            allow_future: whether they may read later items.
            stacklevel: stack level of the warnings, as in `warnings.warn`.

        Raises:
            ValueError: if the check of a backbone finds an error.
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

    def make(self, sources: Iterable[str], *, share: bool) -> dict[str, AdaptedBackbone]:
        """Create the backbones of a model, without the user's own objects.

        Unless `share` is True, the model has one copy of the backbone in memory per source, in
        addition to the user's original.

        Args:
            sources: names of the sources.
            share: whether to use one backbone for all sources.

        Returns:
            Source -> backbone, or "shared" -> the backbone for all sources.

        Raises:
            ValueError: if the user gave a mapping that does not match the sources or cannot be
                shared, or if a module cannot be copied or reinitialized.
        """
        adapted = self.of(sources, share=share)
        if SHARED not in self._by_source:
            return {name: self._one_more(name) for name in adapted}
        return {name: self._one_more(SHARED) for name in adapted}

    def of(self, sources: Iterable[str], *, share: bool) -> dict[str, AdaptedBackbone]:
        """Return the adapted backbones that those of a model are copied from.

        Args:
            sources: names of the sources.
            share: whether one backbone is used for all sources.

        Returns:
            Source -> adapted backbone, or "shared" -> the backbone for all sources.

        Raises:
            ValueError: if the user gave a mapping that does not match the sources or cannot be
                shared.
        """
        sources = tuple(sources)
        if SHARED in self._by_source:
            return dict.fromkeys((SHARED,) if share else sources, self._by_source[SHARED])
        if share:
            raise ValueError("share_backbone=True needs one backbone, not one for each source")
        if set(self._by_source) != set(sources):
            raise ValueError(
                f"backbone= has the sources {sorted(self._by_source)}, but the items have "
                f"{sorted(sources)}: give a backbone for each of them"
            )
        return {name: self._by_source[name] for name in sources}

    def _one_more(self, source: str) -> AdaptedBackbone:
        """Create a backbone for a model; a module that is not the user's is used once uncopied."""
        spare = source in self._spare
        self._spare.discard(source)
        if self._factory is not None:
            own = self._by_source[source]
            return own if spare else self._adapt(self._factory(), self.hidden_size)[0]
        twin = self._by_source[source] if spare else copy_module(self._by_source[source])
        return reinitialize(twin) if self._fresh_copies else twin

    def _adapt(self, backbone: Any, hidden_size: int | None) -> tuple[AdaptedBackbone, int]:
        adapted = self._to_protocol(backbone, hidden_size=hidden_size)
        if hidden_size:
            return adapted, hidden_size
        stated = getattr(adapted, "hidden_size", None) if is_adapted(adapted) else None
        width = stated or infer_hidden_size(adapted)
        if not stated and is_adapted(adapted):  # adapt again, now that the width is known
            adapted = self._to_protocol(backbone, hidden_size=width)
        return adapted, width


def is_factory(backbone: object) -> bool:
    """Whether this is a function that can be called without arguments, not a module or class."""
    if isinstance(backbone, nn.Module | type) or not callable(backbone):
        return False
    try:
        parameters = inspect.signature(backbone).parameters.values()
    except (TypeError, ValueError):  # some built-in functions have no signature
        return False
    return all(p.default is not p.empty or p.kind is p.VAR_KEYWORD for p in parameters)
