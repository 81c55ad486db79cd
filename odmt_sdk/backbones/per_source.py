"""`SourceBackbones`: one backbone per source, or one for all sources."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from odmt_sdk.backbones.adapt import unwrap_backbone
from odmt_sdk.backbones.models.one_state import can_read_one_state
from odmt_sdk.backbones.protocol import AdaptedBackbone, SequenceBackbone
from odmt_sdk.backbones.signature.trial import plain
from odmt_sdk.backbones.template import SHARED

COMPILED = "_orig_mod."


class SourceBackbones(nn.Module):
    """Runs the user's backbone for each source, as one copy per source or as one shared module.

    In state dicts, the weights of compiled backbones have the names of the original module.

    Args:
        backbones: source -> adapted backbone, or "shared" -> the backbone for all sources.
        input_scale: factor for the item embeddings; it is not applied for backbones that look up
            item ids.
    """

    def __init__(
        self, backbones: Mapping[str, AdaptedBackbone], *, input_scale: float = 1.0
    ) -> None:
        super().__init__()
        self.input_scale = input_scale
        self.share = SHARED in backbones
        self.by_source = nn.ModuleDict(dict(backbones))
        # torch does not type these two
        self.register_state_dict_post_hook(_without_compiled)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_with_compiled)  # type: ignore[no-untyped-call]
        self._recomputed: frozenset[str] = frozenset()  # keys of `by_source`

    def recompute(self, recomputed: bool) -> None:
        """Switch activation checkpointing of the backbones on or off.

        Args:
            recomputed: True recomputes activations in the backward pass, which saves memory; False
                keeps them.
        """
        whole = [
            name
            for name, backbone in self.by_source.items()
            if not _recompute_layers(unwrap_backbone(backbone), recomputed)
        ]
        self._recomputed = frozenset(whole if recomputed else ())

    def of(self, source: str) -> AdaptedBackbone:
        """The backbone of a source."""
        return AdaptedBackbone(self.by_source[SHARED if self.share else source])

    def gradient_checkpointing_enable(self, **options: Any) -> None:
        """Enable activation checkpointing in every backbone: less memory, but slower training.

        Args:
            **options: passed to the method of the same name of the user's modules.

        Raises:
            ValueError: if a backbone has no such method.
        """
        self._switch_checkpointing("enable", options)

    def gradient_checkpointing_disable(self) -> None:
        """Disable activation checkpointing in every backbone.

        Raises:
            ValueError: if a backbone has no such method.
        """
        self._switch_checkpointing("disable", {})

    def _switch_checkpointing(self, way: str, options: Mapping[str, Any]) -> None:
        switches = []
        for source, backbone in self.by_source.items():
            module = plain(unwrap_backbone(backbone))
            # newer versions of transformers rename the method
            names = f"activation_checkpointing_{way}", f"gradient_checkpointing_{way}"
            switch = next((s for name in names if (s := getattr(module, name, None))), None)
            if switch is None:
                raise ValueError(
                    f"the backbone of {source!r}, {type(module).__name__}, has no {names[1]}: give "
                    "it such a method, or use torch.utils.checkpoint in its forward"
                )
            switches.append(switch)
        for switch in switches:
            switch(**options)

    @property
    def last_only(self) -> bool:
        """Whether any backbone returns only its state at the last item."""
        return any(getattr(backbone, "last_only", False) for backbone in self.by_source.values())

    def forward(
        self,
        inputs_embeds: torch.Tensor,
        attention_mask: torch.Tensor,
        source: str,
        *,
        item_ids: torch.Tensor,
        positions: torch.Tensor,
        one_each: bool = False,
    ) -> torch.Tensor:
        """Compute the states of one source at the given positions.

        Args:
            inputs_embeds: (B, L, D), zeros at padding.
            attention_mask: (B, L) int64, 1 = real.
            source: the source, which selects the backbone.
            item_ids: (B, L) rows, 0 = padding.
            positions: (P,) indices into (B * L,) of the states to return, ascending.
            one_each: whether there is exactly one position per sequence.

        Returns:
            (P, D), user by user, in the dtype of `inputs_embeds`. Inputs and outputs are converted
            if the backbone has another dtype. A backbone that returns only its last state is run on
            one prefix per position.

        Raises:
            ValueError: if the backbone returns another shape or not a tensor.
        """
        backbone = self.of(source)
        computes_in = inputs_embeds.dtype
        reads_item_ids = getattr(backbone, "reads_item_ids", False)
        if self.input_scale != 1.0 and not reads_item_ids:
            inputs_embeds = inputs_embeds * self.input_scale
        inputs_embeds = _as_read_by(backbone, inputs_embeds)
        last_only = getattr(backbone, "last_only", False)
        if last_only:
            inputs_embeds, attention_mask, item_ids = _prefixes(
                inputs_embeds, attention_mask, item_ids, positions
            )
        if last_only and not len(item_ids):
            return inputs_embeds.sum(1).to(computes_in)  # (0, L, D) -> (0, D)
        ids = {"item_ids": item_ids} if reads_item_ids else {}
        if one_each and can_read_one_state(backbone):
            users = torch.arange(positions.shape[0], device=positions.device)
            # no remainder, which has no ONNX operator where the length is not fixed
            only_at = positions - users * inputs_embeds.shape[1]  # (B,)
            state: torch.Tensor = backbone(inputs_embeds, attention_mask, only_at=only_at)
            return _back_to(computes_in, state)
        read: SequenceBackbone = partial(backbone, **ids) if ids else backbone
        name = SHARED if self.share else source
        if name in self._recomputed and self.training and torch.is_grad_enabled():
            hidden = checkpoint(read, inputs_embeds, attention_mask, use_reentrant=False)
        else:
            hidden = read(inputs_embeds, attention_mask)
        expected = inputs_embeds[:, 0].shape if last_only else inputs_embeds.shape
        if not isinstance(hidden, torch.Tensor) or hidden.shape != expected:
            got = tuple(hidden.shape) if isinstance(hidden, torch.Tensor) else type(hidden).__name__
            raise ValueError(
                f"{type(backbone).__name__} returned {got} for inputs_embeds of shape "
                f"{tuple(inputs_embeds.shape)}; it must return one tensor {tuple(expected)}"
            )
        states = hidden if last_only else hidden.flatten(0, 1)[positions]  # (P, D)
        return _back_to(computes_in, states)


def _as_read_by(backbone: AdaptedBackbone, inputs_embeds: torch.Tensor) -> torch.Tensor:
    """Convert embeddings to the dtype of the backbone's weights, unless autocast handles it."""
    own = inputs_embeds.dtype
    for weight in backbone.parameters():  # torch 2.6 cannot export next(..., default)
        if weight.is_floating_point():
            own = weight.dtype
            break
    if own == inputs_embeds.dtype:
        return inputs_embeds
    if own == torch.float32 and torch.is_autocast_enabled(inputs_embeds.device.type):
        return inputs_embeds
    return inputs_embeds.to(own)


def _back_to(dtype: torch.dtype, states: torch.Tensor) -> torch.Tensor:
    """Convert states to the dtype of the item embeddings, unless autocast is enabled."""
    if states.dtype == dtype or torch.is_autocast_enabled(states.device.type):
        return states
    return states.to(dtype)


def _recompute_layers(backbone: nn.Module, recomputed: bool) -> bool:
    """Switch activation checkpointing of a transformers model; False if it is not supported."""
    if not getattr(backbone, "supports_gradient_checkpointing", False):
        return False
    verb = "enable" if recomputed else "disable"
    for kind in ("activation", "gradient"):  # the newer name first, because the older one warns
        switch = getattr(backbone, f"{kind}_checkpointing_{verb}", None)
        if switch is not None:
            settings = {f"{kind}_checkpointing_kwargs": {"use_reentrant": False}}
            switch(**(settings if recomputed else {}))
            return True
    return False


def _prefixes(
    inputs_embeds: torch.Tensor,
    attention_mask: torch.Tensor,
    item_ids: torch.Tensor,
    positions: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """For each position, build the left-padded sequence that ends there: (B, L) -> (P, L)."""
    length = item_ids.shape[1]
    users, ends = positions // max(length, 1), positions % max(length, 1)  # (P,)
    slots = torch.arange(length, device=item_ids.device)
    columns = slots + (ends - length + 1).unsqueeze(1)  # (P, L)
    inside, columns, users = columns >= 0, columns.clamp(min=0), users.unsqueeze(1)
    mask = attention_mask[users, columns] * inside
    return inputs_embeds[users, columns] * mask.unsqueeze(-1), mask, item_ids[users, columns] * mask


def _without_compiled(
    module: nn.Module, state_dict: dict[str, Any], prefix: str, metadata: dict[str, Any]
) -> None:
    """Rename the weights of compiled modules in a state dict to their original names."""
    for name in [name for name in state_dict if name.startswith(prefix) and COMPILED in name]:
        state_dict[name.replace(COMPILED, "")] = state_dict.pop(name)


def _with_compiled(
    module: nn.Module, state_dict: dict[str, Any], prefix: str, *args: object
) -> None:
    """Rename the weights in a state dict to the names in this model, compiled or not."""
    inside = (*module.named_parameters(remove_duplicate=False), *module.named_buffers())
    for name in [prefix + name for name, _ in inside if COMPILED in name]:
        without = name.replace(COMPILED, "")
        if without in state_dict:
            state_dict[name] = state_dict.pop(without)
