"""Comparing an adapter with the model that it is to become, before that model takes memory.

What a stranger's `config.json` says is built without memory first, on torch's meta device, and has
to agree with the weights, whose sizes are those of the files.
"""

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import torch
from torch import nn

from odmt_sdk.backbones.adapt import unwrap_backbone
from odmt_sdk.backbones.compared_settings import backbone_settings, different_settings
from odmt_sdk.backbones.models.by_name import make_built_in
from odmt_sdk.backbones.protocol import AdaptedBackbone
from odmt_sdk.backbones.template import BackboneTemplate
from odmt_sdk.config import ODMTConfig
from odmt_sdk.errors import AdapterError
from odmt_sdk.items.embedder import ItemEmbedder, build_item_encoder, is_built_in_fusion
from odmt_sdk.saving.description import SavedBackbone
from odmt_sdk.saving.folder import POPULARITY, OpenAdapter
from odmt_sdk.saving.layout import MAX_BUILT_TENSORS
from odmt_sdk.saving.weights import SHOWN, plain_name, unfit_weights

SHARED_BYTES = 16 << 20
Model = TypeVar("Model", bound=nn.Module)


def fitting_model(
    kind: type[Model],
    saved: OpenAdapter,
    backbone: Any,
    arguments: Mapping[str, Any],
    encoders: Mapping[str, nn.Module],
) -> Model:
    """Make the model of an adapter, without its items yet.

    Args:
        kind: its class.
        saved: the adapter.
        backbone: the user's, or None to make a built-in one as it was.
        arguments: how to call the user's backbone.
        encoders: modality -> the user's content encoder with LoRA layers.

    Returns:
        A model that waits for items, and whose weights will have the names and shapes of the saved
        ones if it gets the saved items.

    Raises:
        AdapterError: if the adapter does not fit the backbone, or itself.
    """
    about, config = saved.description.backbone, saved.description.config
    make: Any = kind
    _check_sharing(saved, everything=backbone is None)
    # what is built once for each of these has weights of its own
    for what, count in (
        ("layers", config.num_layers),
        ("modalities", len(saved.description.widths)),
    ):
        if count > len(saved.weights):
            raise AdapterError(f"its settings name {count} {what}, more than it has weights for")
    if backbone is None:
        built_in = _built_in(saved)
        with torch.device("meta"):
            pattern = make(built_in(), config=config, check=False)
        _check(
            saved, pattern, encoders, lambda: "its weights do not fit its settings: it is damaged."
        )
        rebuilt: Model = make(built_in, config=config, check=False)
        return rebuilt

    def difference() -> str:
        return _difference(about, backbone, config, arguments)

    if config.project_backbone:
        _check_projections(saved, backbone, arguments)
    try:
        model: Model = make(backbone, config=config, check=False, **arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        raise AdapterError(f"{difference()} {error}") from error
    _check_settings(about, _check(saved, model, encoders, difference))
    if about.own_call and not model.own_call:
        warnings.warn(
            f"this adapter was trained with forward_fn= or bridge=, which defined how "
            f"{about.name} is called: pass the same to from_pretrained, or its results may differ",
            stacklevel=5,
        )
    return model


def encoder_weights(saved: OpenAdapter) -> dict[str, list[str]]:
    """Names of the LoRA weights of content encoders in an adapter.

    Args:
        saved: the adapter.

    Returns:
        Modality -> names; only modalities whose encoder was trained.
    """
    about = saved.description.features
    return {
        modality: [name for name in saved.weights if name.startswith(f"encoders.{modality}.")]
        for modality in saved.description.widths
        if about.get(modality, {}).get("trained")
    }


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


def _built_in(saved: OpenAdapter) -> Callable[[], nn.Module]:
    """What makes the built-in backbone of an adapter again, without its weights."""
    about, count = saved.description.backbone, len(saved.weights)
    if about.built_in is None or not about.weights:
        raise AdapterError(
            f"it was trained with {about.name}, "
            + ("whose weights it lacks" if about.built_in else "a custom backbone")
            + ": pass it as backbone="
        )
    if count > MAX_BUILT_TENSORS:
        raise AdapterError(
            f"it has {count} weights; a backbone is built automatically for at most "
            f"{MAX_BUILT_TENSORS}: build {about.built_in} and pass it as backbone="
        )
    return partial(make_built_in, about.built_in, about.arguments, num_tensors=count)


def _check_settings(about: SavedBackbone, backbones: Mapping[str, AdaptedBackbone]) -> None:
    """Raise if a backbone of the right shapes computes something else, warn if it may."""
    possible: list[str] = []
    for source, adapted in backbones.items():
        saved = about.settings.get(source, about.settings.get("", {}))
        if not saved and about.arguments:  # saved before settings were
            saved = {k: v for k, v in about.arguments.items() if "dropout" not in k}
        if not isinstance(saved, Mapping):
            raise AdapterError("backbone.settings must be objects by source")
        now = backbone_settings(unwrap_backbone(adapted))
        certain, maybe = different_settings(saved, now)
        if certain:
            again = ", or leave out backbone=" if about.built_in else ""
            raise AdapterError(
                f"its weights fit this {about.name}, but {'; '.join(certain[:SHOWN])}: build it as "
                f"it was for training{again}"
            )
        possible += [words for words in maybe if words not in possible]
    if possible:
        warnings.warn(
            f"the backbone differs from the one that was trained: {'; '.join(possible[:SHOWN])}. "
            "Its results may differ",
            stacklevel=6,
        )


def _check(
    saved: OpenAdapter,
    model: Any,
    encoders: Mapping[str, nn.Module],
    difference: Callable[[], str],
) -> Mapping[str, AdaptedBackbone]:
    """Raise unless a model made of the saved items would have the saved weights.

    `difference` says what was saved and what was passed.

    Returns:
        Source, or "shared" -> the backbone that it would have.
    """
    config, widths = saved.description.config, saved.description.widths
    num_items = len(saved.vocabulary) if saved.vocabulary is not None else 1
    encoder = _item_encoder(config, num_items, model.hidden_size, widths)
    expected = {f"item_encoder.{name}": value for name, value in shapes(encoder).items()}
    expected[POPULARITY] = torch.Size([num_items + 1])
    template: BackboneTemplate = model._template
    backbones = template.of(encoder.sources, share=config.share_backbone)
    for source, backbone in backbones.items():
        for name, shape in shapes(backbone).items():
            expected[f"backbones.by_source.{source}.{name}"] = shape
    of_absent: set[str] = set()
    for modality, names in encoder_weights(saved).items():
        if modality in encoders:
            own = shapes(encoders[modality])
            expected |= {f"encoders.{modality}.{name}": shape for name, shape in own.items()}
        else:
            of_absent |= set(names)
    left_out: set[str] = set()
    if saved.vocabulary is None:
        left_out |= catalogue_weights(config, model.hidden_size, widths)
    if not saved.description.backbone.weights:
        left_out |= weights_of_backbones(backbones)
    unfit = unfit_weights(
        {name: entry.shape for name, entry in saved.weights.items() if name not in of_absent},
        {name: shape for name, shape in expected.items() if name not in left_out},
    )
    if unfit:
        raise AdapterError(f"{difference()} {unfit}")
    return backbones


def _check_sharing(saved: OpenAdapter, *, everything: bool) -> None:
    """Raise if few stored values are to become many.

    Weights that are one in the adapter have memory of their own until they are made one again. In
    a backbone of the user's they are one from the start.
    """
    entries = {
        name: entry
        for name, entry in saved.weights.items()
        if everything or not name.startswith("backbones.")
    }
    whole = sum(entry.num_bytes for entry in entries.values())
    stored = sum(entry.num_bytes for entry in {id(e): e for e in entries.values()}.values())
    if whole > 2 * stored + SHARED_BYTES:
        raise AdapterError(
            f"its {stored} bytes of weights are shared by many names, and the model would have "
            f"{whole} bytes: it is damaged, or its backbone must be passed as backbone="
        )


def _check_projections(saved: OpenAdapter, backbone: Any, arguments: Mapping[str, Any]) -> None:
    """Raise if layers around the backbone would be made that no stored weights are for."""
    config = saved.description.config
    width, (_, read) = config.hidden_size, _name_and_width(backbone, arguments)
    if width is None or width == read:
        return
    shapes = [
        entry.shape
        for name, entry in saved.weights.items()
        if name.startswith("backbones.") and ".project_" in name and entry.num_bytes
    ]
    if not any(width in shape and (read is None or read in shape) for shape in shapes):
        difference = _difference(saved.description.backbone, backbone, config, arguments)
        raise AdapterError(f"{difference} It has no layers from hidden size {width} to {read}")


def _name_and_width(backbone: Any, arguments: Mapping[str, Any]) -> tuple[str, int | None]:
    """What a backbone is called, and the values per item that it reads, if that can be found."""
    try:
        passed = BackboneTemplate(backbone, hidden_size=None, **arguments)
    except (TypeError, ValueError, RuntimeError):  # of several widths, or none that can be found
        return type(backbone).__name__, None
    return passed.name, passed.hidden_size


def _item_encoder(
    config: ODMTConfig, num_items: int, hidden_size: int, widths: Mapping[str, int]
) -> ItemEmbedder:
    """An item encoder without memory, if its fusion can be made so."""
    try:
        with torch.device("meta"):
            return build_item_encoder(config, num_items, hidden_size, widths)
    except (NotImplementedError, RuntimeError):  # a fusion of the user's that computes with values
        if is_built_in_fusion(config.fusion):  # of sizes that no memory has
            raise
        with torch.random.fork_rng(devices=[]):
            return build_item_encoder(config, num_items, hidden_size, widths)


def _difference(
    saved: SavedBackbone, backbone: Any, config: ODMTConfig, arguments: Mapping[str, Any]
) -> str:
    """What was saved and what was passed, in a sentence."""
    name, width = _name_and_width(backbone, arguments)
    before = f"{saved.name} of hidden size {saved.width or config.hidden_size}"
    now = f"{name} of hidden size {width}" if width else name
    again = ", or leave out backbone=" if saved.built_in else ""
    if before == now:
        now = f"{now} with other settings"
    called = " Also pass the forward_fn= or bridge= of training." if saved.own_call else ""
    return (
        f"this adapter was trained with {before}; you passed {now}. Build it as it was for "
        f"training{again}.{called if saved.own_call else ''}"
    )
