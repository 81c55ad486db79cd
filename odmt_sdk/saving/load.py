"""Loading: an adapter folder becomes a model, in one pass: open, check, build."""

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import nn

from odmt_sdk.errors import AdapterError
from odmt_sdk.features.feature_set import FeatureSet
from odmt_sdk.features.preparation import Preparation, prepare_like
from odmt_sdk.features.trainable.absent import AbsentEncoder
from odmt_sdk.features.trainable.encoder import TrainableEncoder
from odmt_sdk.items.embedder import ItemEmbedder, StartingItemEmbedder
from odmt_sdk.number_types import added_dtype
from odmt_sdk.saving.fitting import catalogue_weights, encoder_weights, fitting_model, shapes
from odmt_sdk.saving.folder import OpenAdapter, open_adapter
from odmt_sdk.saving.tied_weights import share_again
from odmt_sdk.saving.transfer import plan_transfer
from odmt_sdk.saving.weights import check_finite, put_weights

Model = TypeVar("Model", bound=nn.Module)

# The errors that damaged or hostile data can cause in correct code.
DATA_ERRORS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


def load_adapter(
    kind: type[Model],
    folder: Path,
    *,
    name: str,
    backbone: Any,
    item_features: FeatureSet | None,
    calling: Mapping[str, Any],
    encoders: Mapping[str, TrainableEncoder],
    transfer: bool,
    freeze: bool,
    training_settings: Mapping[str, Any],
    map_location: torch.device | str | None,
    dtype: torch.dtype | None,
    allow_non_finite: bool,
) -> Model:
    """Make a model of an adapter folder; see `ODMTWrapper.from_pretrained`.

    Args:
        kind: the class of the model, `ODMTWrapper` or a subclass.
        folder: holds the adapter.
        name: what the user called it, for messages.
        backbone: the user's; None = the built-in one it was trained with.
        item_features: content tokens of the items.
        calling: `bridge` and `forward_fn`, how to call the backbone.
        encoders: modality -> content encoder to train further.
        transfer: take what does not belong to single items.
        freeze: do not train what was taken.
        training_settings: settings to train on with.
        map_location: device of the model.
        dtype: type of the floating-point weights; None = as saved.
        allow_non_finite: accept weights that are NaN or infinite.

    Returns:
        The model, in eval mode.

    Raises:
        AdapterError: if the adapter is damaged, or does not fit the backbone or the features.
        TypeError: if `dtype` is not a floating-point type.
    """
    ready = item_features is None
    dtype = None if dtype is None else added_dtype(dtype, torch.float32)
    # weights that are made in inference mode could not be trained, nor seen to change
    with (
        torch.inference_mode(False),
        _loading(name),
        open_adapter(folder, item_embeddings=ready) as opened,
    ):
        saved = opened.trained_with(training_settings)
        if transfer:
            saved.description.config.source_weights = None  # they suit the items of the adapter
        _check_lora(saved, encoders)
        features = _join_features(saved, item_features, encoders, transfer=transfer)
        model: Any = fitting_model(kind, saved, backbone, calling, encoders)
        names = _take_items(model, saved, features, encoders, transfer=transfer)
        if not transfer:
            absent = _keep_absent(model, saved, encoders, allow_non_finite=allow_non_finite)
            names = tuple(name for name in names if name not in absent)
        put_weights(
            model,
            {weight: saved.weights[weight] for weight in names},
            dtype=dtype,
            allow_non_finite=allow_non_finite,
        )
        share_again(model, saved.description.shared_weights)
        if transfer and isinstance(model.item_encoder, StartingItemEmbedder):
            model.item_encoder.start_ids()
        model.to(device=map_location)
        if dtype is not None:  # nn.Module.to would make complex values real
            for value in (*model.parameters(), *model.buffers()):
                if value.is_floating_point():
                    value.data = value.data.to(dtype)
        _take_embeddings(model, saved, dtype=dtype, allow_non_finite=allow_non_finite)
    if freeze:
        for weight, parameter in model.named_parameters():
            parameter.requires_grad_(parameter.requires_grad and weight not in names)
    if not transfer:  # else they tell of other items
        model.card, model._provenance = saved.description.card, saved.description.features
        model._moments = saved.feature_moments
        model.item_to_item = saved.item_to_item
    loaded: Model = model.eval()
    return loaded


def _take_items(
    model: Any,
    saved: OpenAdapter,
    features: FeatureSet | None,
    encoders: Mapping[str, TrainableEncoder],
    *,
    transfer: bool,
) -> tuple[str, ...]:
    """Build the model for its items, and choose the weights that it is given."""
    widths = saved.description.widths
    if not transfer:
        model._build(saved.vocabulary, widths)
        model.encoders.update(encoders)
        model.item_features = features
        return tuple(saved.weights)
    features = cast(FeatureSet, features)  # `from_pretrained` refuses a transfer without
    if not widths:
        raise AdapterError(
            "it represents items only by their IDs, which have no meaning in another catalogue: "
            "transfer an adapter that was trained with item_features="
        )
    model._build(features.vocabulary, features.widths)
    model.encoders.update(encoders)
    model.item_features = features
    model._set_unseen(torch.ones(model.num_items + 1, dtype=torch.bool))
    report = plan_transfer(
        {name: entry.shape for name, entry in saved.weights.items()},
        shapes(model),
        catalogue_weights(model.config, model.hidden_size, widths),
    )
    model.transfer_report = report
    return report.loaded


def _take_embeddings(
    model: Any, saved: OpenAdapter, *, dtype: torch.dtype | None, allow_non_finite: bool
) -> None:
    """Keep the saved item embeddings, if there are any, instead of encoding the items."""
    if not saved.item_embeddings:
        return
    expected = (model.num_items + 1, model.hidden_size)
    like = next(model.parameters())
    encoder: ItemEmbedder = model.item_encoder
    kinds = (value.dtype for value in encoder.parameters() if value.is_floating_point())
    dtype = dtype or next(kinds, None)  # what the encoder itself would give
    embeddings = {}
    for source in model.sources:
        entry = saved.item_embeddings.get(source)
        if entry is None or entry.shape != expected or not entry.dtype.is_floating_point:
            raise AdapterError(f"it has no item embeddings {expected} of {source!r}")
        value = entry.read()
        if not allow_non_finite:
            check_finite(f"the item embeddings of {source!r}", value)
        embeddings[source] = value.to(like.device, dtype)
    model._catalogue.keep(model._item_modules(), model.item_features, embeddings)


def _keep_absent(
    model: Any,
    saved: OpenAdapter,
    encoders: Mapping[str, TrainableEncoder],
    *,
    allow_non_finite: bool,
) -> set[str]:
    """Keep the LoRA weights of encoders that were not given; return their names."""
    kept = set()
    for modality, names in encoder_weights(saved).items():
        if modality in encoders:
            continue
        weights = {}
        for name in names:
            if not saved.weights[name].dtype.is_floating_point:
                raise AdapterError(
                    f"{name} has dtype {saved.weights[name].dtype}, so it is not a LoRA weight"
                )
            value = saved.weights[name].read()
            if not allow_non_finite:
                check_finite(name, value)
            weights[name.removeprefix(f"encoders.{modality}.")] = value
        trained = saved.description.features[modality]["trained"]
        model.encoders[modality] = AbsentEncoder(weights, trained)
        kept |= set(names)
        if model.item_features is not None:
            warnings.warn(
                f"the {modality} encoder was trained with this adapter but is not given, so its "
                "features are frozen. To continue its training, pass "
                f"encoders={{{modality!r}: ...}}",
                UserWarning,
                stacklevel=5,
            )
    return kept


def _check_lora(saved: OpenAdapter, encoders: Mapping[str, TrainableEncoder]) -> None:
    """Raise if the LoRA layers of an encoder compute in another way than those saved."""
    for modality, encoder in encoders.items():
        trained = saved.description.features.get(modality, {}).get("trained")
        if not trained:
            continue  # trained on frozen features so far
        if not isinstance(trained, Mapping):
            raise AdapterError(f"features.{modality}.trained must be an object")
        before = {name: value for name, value in trained.items() if name != "weights"}
        if before != encoder.lora_settings:
            raise AdapterError(
                f"its {modality} encoder was trained with the LoRA settings {before}, but this one "
                f"has {encoder.lora_settings}: pass the same lora=LoraConfig(...) as in training"
            )


def _join_features(
    saved: OpenAdapter,
    item_features: FeatureSet | None,
    encoders: Mapping[str, TrainableEncoder],
    *,
    transfer: bool,
) -> FeatureSet | None:
    """The user's features, prepared like those of the adapter and in its rows."""
    widths = dict(saved.description.widths)
    # an encoder that is trained on stands before features of the same encoder before training
    made = {
        name: {k: v for k, v in about.items() if k != "trained" or name not in encoders}
        for name, about in saved.description.features.items()
    }
    expected = Preparation(made, saved.feature_moments, widths, False)
    if transfer:
        return prepare_like(
            cast(FeatureSet, item_features),  # `from_pretrained` refuses None
            expected,
            reader="the adapter",
            own_moments=True,
            stacklevel=6,
        )
    if saved.vocabulary is None:
        raise AdapterError(
            "it has no items, because it was saved for transfer to other catalogues: pass "
            "item_features= of your catalogue and transfer=True"
        )
    if item_features is None:
        return None
    if item_features.widths != widths:
        raise AdapterError(
            f"it reads features {widths} (values per token), got {item_features.widths}: extract "
            "them with the same encoders as in training"
        )
    item_features = prepare_like(item_features, expected, reader="the adapter", stacklevel=6)
    try:
        return item_features.select(saved.vocabulary)
    except ValueError as error:
        raise AdapterError(f"the features lack an item of the adapter: {error}") from error


@contextlib.contextmanager
def _loading(path: str) -> Iterator[None]:
    """Whatever an adapter makes go wrong is an `AdapterError` that names it."""
    try:
        yield
    except DATA_ERRORS as error:
        raise AdapterError(f"cannot load the adapter in {path!r}: {error}") from error
