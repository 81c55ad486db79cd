"""Comparing an adapter with the model that it is to become, before that model takes memory.

What a stranger's `config.json` says is built without memory first, on torch's meta device, and has
to agree with the weights, whose sizes are those of the files.
"""

from collections.abc import Mapping
from typing import Any, TypeVar, cast

import torch
from torch import nn

from odmt_sdk.backbones.built_in import make_built_in
from odmt_sdk.backbones.registry import unwrap_backbone
from odmt_sdk.backbones.template import BackboneTemplate
from odmt_sdk.config import ODMTConfig
from odmt_sdk.errors import AdapterError
from odmt_sdk.hub.adapter_folder import POPULARITY, OpenAdapter
from odmt_sdk.hub.description import SavedBackbone
from odmt_sdk.hub.weights import check_weights, plain_name
from odmt_sdk.items.fusion import ItemEmbedder, build_item_encoder
from odmt_sdk.towers import SourceTowers

Model = TypeVar("Model", bound=SourceTowers)


def fitting_model(
    kind: type[Model], saved: OpenAdapter, backbone: Any, arguments: Mapping[str, Any]
) -> Model:
    """Make the model of an adapter, without its items yet.

    Args:
        kind: its class.
        saved: the adapter.
        backbone: the user's, or None to make a built-in one as it was.
        arguments: how to call the user's backbone.

    Returns:
        A model that waits for items, and whose weights will have the names and shapes of the saved
        ones if it gets the saved items.

    Raises:
        AdapterError: if the adapter does not fit the backbone, or itself.
    """
    about, config = saved.description.backbone, saved.description.config
    make: Any = kind
    # what is built once for each of these has weights of its own
    for what, count in (
        ("layers", config.num_layers),
        ("modalities", len(saved.description.widths)),
    ):
        if count > len(saved.weights):
            raise AdapterError(f"its settings name {count} {what}, of which no weights exist")
    if backbone is None:
        if about.built_in is None or not about.weights:
            raise AdapterError(
                f"it was trained with {about.name}, "
                + ("which is not in it" if about.built_in else "a backbone of its author's own")
                + ": pass it as backbone="
            )
        name = about.built_in

        def built_in() -> nn.Module:
            return make_built_in(name, about.arguments, num_tensors=len(saved.weights))

        difference = "its weights do not fit its settings: it is damaged."
        with torch.device("meta"):
            pattern = make(built_in(), config=config, check=False)
        _check(saved, pattern, difference)
        return cast(Model, make(built_in, config=config, check=False))
    try:
        model: Model = make(backbone, config=config, check=False, **arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        difference = _difference(about, backbone, config, arguments)
        raise AdapterError(f"{difference} {error}") from error
    _check(saved, model, _difference(about, backbone, config, arguments))
    return model


def catalogue_weights(config: ODMTConfig, hidden_size: int, widths: Mapping[str, int]) -> set[str]:
    """Names of the weights that have a row for every item.

    Args:
        config: settings of the model.
        hidden_size: D.
        widths: modality -> feature width.

    Returns:
        Those that differ between models of two and of three items.
    """
    two, three = (_item_encoder(config, n, hidden_size, widths).state_dict() for n in (2, 3))
    names = {name for name, value in two.items() if value.shape != three[name].shape}
    return {f"item_encoder.{name}" for name in names} | {POPULARITY}


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    """Name -> shape of the weights that are saved of a model."""
    return {plain_name(name): value.shape for name, value in model.state_dict().items()}


def weights_of_backbones(backbones: Mapping[str, nn.Module]) -> set[str]:
    """Names of the weights of the user's own modules.

    Args:
        backbones: source -> adapted backbone.

    Returns:
        Names in the model; those of layers that the package put around them are not among them.
    """
    found = set()
    for source, adapted in backbones.items():
        own = {id(value) for value in unwrap_backbone(adapted).state_dict(keep_vars=True).values()}
        found |= {
            plain_name(f"backbones.by_source.{source}.{name}")
            for name, value in adapted.state_dict(keep_vars=True).items()
            if id(value) in own
        }
    return found


def _check(saved: OpenAdapter, model: SourceTowers, difference: str) -> None:
    """Raise unless a model made of the saved items would have the saved weights."""
    config, widths = saved.description.config, saved.description.widths
    num_items = len(saved.vocabulary) if saved.vocabulary is not None else 1
    encoder = _item_encoder(config, num_items, model.hidden_size, widths)
    expected = {f"item_encoder.{name}": value for name, value in shapes(encoder).items()}
    expected[POPULARITY] = torch.Size([num_items + 1])
    template = cast(BackboneTemplate, model._template)
    sources = cast(ItemEmbedder, encoder).sources
    backbones = template.of(sources, share=config.share_backbone)
    for source, backbone in backbones.items():
        for name, shape in shapes(backbone).items():
            expected[f"backbones.by_source.{source}.{name}"] = shape
    left_out: set[str] = set()
    if saved.vocabulary is None:
        left_out |= catalogue_weights(config, model.hidden_size, widths)
    if not saved.description.backbone.weights:
        left_out |= weights_of_backbones(backbones)
    check_weights(
        {name: entry.shape for name, entry in saved.weights.items()},
        {name: shape for name, shape in expected.items() if name not in left_out},
        difference=difference,
    )


def _item_encoder(
    config: ODMTConfig, num_items: int, hidden_size: int, widths: Mapping[str, int]
) -> nn.Module:
    """An item encoder without memory, if its fusion can be made so."""
    try:
        with torch.device("meta"):
            return build_item_encoder(config, num_items, hidden_size, widths)
    except (NotImplementedError, RuntimeError):  # a fusion of the user's that computes with values
        with torch.random.fork_rng(devices=[]):
            return build_item_encoder(config, num_items, hidden_size, widths)


def _difference(
    saved: SavedBackbone, backbone: Any, config: ODMTConfig, arguments: Mapping[str, Any]
) -> str:
    """What was saved and what was passed, in a sentence."""
    try:
        passed = BackboneTemplate(backbone, hidden_size=None, **arguments)
        name, width = passed.name, passed.hidden_size
    except (TypeError, ValueError, RuntimeError):  # of several widths, or none that can be found
        name, width = type(backbone).__name__, 0
    before = f"{saved.name} of hidden size {saved.width or config.hidden_size}"
    now = f"{name} of hidden size {width}" if width else name
    again = ", or leave backbone= out" if saved.built_in else ""
    if before == now:
        now = f"{now} of another build"
    return (
        f"this adapter was trained with {before}; you passed {now}. Build it as it was for "
        f"training{again}."
    )
