"""`ODMTConfig`: all settings of the model, saved as the `config.json` of an adapter."""

import dataclasses
import difflib
import json
import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

IdVisibility = Literal["one_way", "mutual"]
TeachingEdges = tuple[tuple[str, tuple[str, ...]], ...]
SourceWeights = tuple[tuple[str, float], ...]

# Fusions with attention; all others ignore `num_heads`.
WITH_HEADS = ("odmt", "early_deep", "late_deep")

_OF_THE_LOSS = (
    "prefix_augmentation",
    "teaching_graph",
    "distillation_temperature",
    "distillation_weight",
    "distillation_warmup_epochs",
    "detach_teacher",
    "logq_correction",
    "item_chunk_size",
    "loss_chunk_size",
    "gather_candidates",
)

# Settings that affect training only, not the meaning of the weights.
TRAINING_SETTINGS = (
    "dropout",
    "modality_dropout",
    "id_dropout",
    "sparse_id_gradients",
    *_OF_THE_LOSS,
)

# Settings that the model reads on every use, so that a change takes effect at once.
LIVE_SETTINGS = ("max_seq_length", "source_weights", *_OF_THE_LOSS)

_WHOLE = {"num_layers": False, "num_heads": False}  # name -> whether None is allowed
_WHOLE |= dict.fromkeys(
    ("hidden_size", "max_seq_length", "item_chunk_size", "loss_chunk_size"), True
)
_FRACTIONS = (
    "dropout",
    "layer_norm_eps",
    "initial_length",
    "modality_dropout",
    "id_dropout",
    "distillation_temperature",
    "distillation_weight",
    "distillation_warmup_epochs",
)


@dataclass(kw_only=True)
class ODMTConfig:
    """Settings of `ODMTWrapper`; every setting has a default.

    The defaults are chosen to work well in general; `ODMTConfig.paper()` gives the model as
    published.

    Values are checked when they are set. A model keeps its own copy, `model.config`. On that copy
    the `LIVE_SETTINGS` can be changed: the change takes effect at once and is saved with the
    adapter. The other settings are built into the weights or layers of the model, and changing them
    raises `ValueError`.

    Args:
        hidden_size: width D of every item and sequence embedding; None = the backbone's width.
        max_seq_length: longest history in items; longer histories keep their most recent items.
            None = the backbone's `max_seq_length`, or 50 if it has none.
        fusion: how an item becomes embeddings. "odmt" is the ID-aware multi-modal transformer,
            "id" a plain table of ID embeddings; for the others see "Fusions to compare with" in the
            documentation.
        num_layers: number of blocks of the multi-modal transformer.
        num_heads: number of attention heads per block; must divide `hidden_size`.
        id_visibility: "one_way" hides the ID token from text and image tokens (the paper's
            choice); "mutual" lets every token attend to every other token.
        token_norm: whether content tokens pass a layer norm after projection, which makes the model
            independent of the scale of the features.
        shortcut: whether the first token of each source also bypasses the transformer, which keeps
            the sources distinct.
        dropout: dropout probability throughout the item encoder, 0 <= dropout < 1.
        layer_norm_eps: epsilon of the item encoder's layer norms.
        initial_length: length of the embeddings of items before training, > 0. Short embeddings
            learn faster, because training soon outweighs their random start. Not in the paper,
            whose embeddings have unit length.
        modality_dropout: probability of hiding a modality of an item in a training batch,
            0 <= modality_dropout < 1. It prepares the model for items that lack a modality.
        id_dropout: probability of hiding an item's ID in a training batch, 0 <= id_dropout < 1. The
            model learns to rely on content alone, as it must for items that are not in the training
            data. An item always keeps at least one of its ID and its modalities.
        prefix_augmentation: for a backbone that returns only its last state: whether to train on
            every prefix of a sequence. The loss is then that of a backbone that returns all states,
            at the cost of one backbone input per prefix. False = train on whole sequences only.
        scale_inputs: whether to multiply item embeddings by sqrt(D) before a backbone reads them.
            Trained item embeddings are about 1 to 5 long, which suits the scores. Multiplied by
            sqrt(D), their values have about that size, as the weights of sequence models expect,
            and position embeddings do not dominate them. Without scaling, training starts
            more slowly. A backbone that looks up item ids itself receives the embeddings unscaled.
            Not in the paper.
        share_backbone: whether all sources share one backbone. False = one copy of the backbone in
            memory per source.
        project_backbone: whether to add linear layers around a backbone whose width differs from D.
        allow_future: whether to accept a backbone that reads later items. During training such a
            backbone sees the items that it has to predict.
        teaching_graph: who teaches whom: the name of a registered teaching graph, or edges
            `(student, (teacher, ...))`.
        distillation_temperature: temperature tau > 0 of the distillation loss.
        distillation_weight: weight of the distillation loss after the warm-up, >= 0; 0 turns
            distillation off.
        distillation_warmup_epochs: epochs until the full weight is reached, >= 0; 0 = no warm-up.
            The weight rises as exp(-5 (1 - epoch / warmup)^2), where epoch 0 is the start of
            training.
        detach_teacher: whether gradients of the distillation loss stop at the teachers.
        logq_correction: whether to subtract the log-popularity of a candidate from its logit during
            training.
        item_chunk_size: number of items that the item encoder processes at once in training, with
            activation checkpointing: the results are the same, with less memory and more time.
            None = all items at once.
        loss_chunk_size: number of positions that the loss processes at once, with activation
            checkpointing. None = all positions at once.
        sparse_id_gradients: whether the gradient of the ID embedding table holds only the rows of
            the batch, so that the cost of a step does not grow with the catalogue. Requires the
            optimizer `LazyAdamW`, which `fit` and `ODMTTrainer` then use.
        source_weights: weights of the sources in the final score, as a mapping such as
            {"id": 2.0} or as pairs; a source that is not named has weight 1. None = equal weights,
            as in the paper. `fit` chooses them after training. Losses do not use them.
        gather_candidates: whether the items of all processes of a distributed run are candidates,
            so that several devices train as one device on a large batch.

    Raises:
        TypeError: if a value has the wrong type.
        ValueError: if a value is outside the range stated for it.

    Source: sections 3.2 to 3.4 of the paper, https://arxiv.org/abs/2308.04067.

    Examples:
        >>> ODMTConfig(num_heads=4).num_heads
        4
    """

    hidden_size: int | None = None
    max_seq_length: int | None = None
    fusion: str = "odmt"
    num_layers: int = 2
    num_heads: int = 2
    id_visibility: IdVisibility = "one_way"
    token_norm: bool = True
    shortcut: bool = True
    dropout: float = 0.1
    layer_norm_eps: float = 1e-6
    initial_length: float = 0.16
    modality_dropout: float = 0.0
    id_dropout: float = 0.0
    prefix_augmentation: bool = True
    scale_inputs: bool = True
    share_backbone: bool = False
    project_backbone: bool = False
    allow_future: bool = False
    teaching_graph: str | TeachingEdges = "ensemble"
    distillation_temperature: float = 1.0
    distillation_weight: float = 0.2
    distillation_warmup_epochs: float = 20.0
    detach_teacher: bool = True
    logq_correction: bool = True
    item_chunk_size: int | None = None
    loss_chunk_size: int | None = None
    sparse_id_gradients: bool = False
    gather_candidates: bool = False
    source_weights: Mapping[str, float] | SourceWeights | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dataclass_fields__:
            value = _checked(name, value)
            if self.__dict__.get("_in_use") and name not in LIVE_SETTINGS:
                self._refuse_change(name, value)
        else:
            _refuse_misspelling(name, list(self.__dataclass_fields__))
        object.__setattr__(self, name, value)

    def __post_init__(self) -> None:
        if self.hidden_size is not None and self.fusion in WITH_HEADS:
            check_heads(self.hidden_size, self.num_heads)

    def for_model(self) -> Self:
        """Return a copy for a model, on which only the `LIVE_SETTINGS` can be changed.

        Returns:
            The copy; changing any other setting on it raises `ValueError`.

        Examples:
            >>> config = ODMTConfig().for_model()
            >>> config.distillation_weight = 0.0
            >>> config.num_layers = 3  # doctest: +ELLIPSIS
            Traceback (most recent call last):
            ...
            ValueError: num_layers=3 cannot replace num_layers=2 in an existing model, ...
        """
        copied = dataclasses.replace(self)
        object.__setattr__(copied, "_in_use", True)
        return copied

    def _refuse_change(self, name: str, value: Any) -> None:
        """Raise unless the new value of a built-in setting equals the current one."""
        before = getattr(self, name)
        if value == before and type(value) is type(before):
            return
        way_out = f"make a new model with ODMTConfig({name}={value!r})"
        if name in TRAINING_SETTINGS:
            way_out += (
                " or, to go on with the weights, save this one and load it with "
                f"from_pretrained(..., training_settings={{{name!r}: {value!r}}})"
            )
        raise ValueError(
            f"{name}={value!r} cannot replace {name}={before!r} in an existing model, "
            f"because its layers were built with it. Instead {way_out}"
        )

    @classmethod
    def paper(cls, **settings: Any) -> Self:
        """Return the configuration of the model as published.

        Args:
            **settings: settings that override the published ones.

        Returns:
            The configuration.

        Raises:
            TypeError: if a setting is unknown or a value has the wrong type.
            ValueError: if a value is out of range.

        Source: section 4.1 of the paper, https://arxiv.org/abs/2308.04067.

        Examples:
            >>> ODMTConfig.paper(num_layers=1).distillation_warmup_epochs
            50.0
        """
        published: dict[str, Any] = {
            "token_norm": False,
            "shortcut": False,
            "initial_length": 1.0,
            "scale_inputs": False,
            "teaching_graph": "paper",
            "distillation_temperature": 0.5,
            "distillation_weight": 1.0,
            "distillation_warmup_epochs": 50.0,
            "detach_teacher": False,
        }
        return cls(**{**published, **settings})

    def to_dict(self) -> dict[str, Any]:
        """Return all settings as plain JSON values."""
        return dataclasses.asdict(self)

    def to_json_string(self) -> str:
        """Return all settings as JSON; loggers of `transformers.Trainer` call this method."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True, default=str)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Self:
        """Build a configuration from the output of `to_dict`.

        Args:
            settings: values by name; names that are missing take their defaults.

        Returns:
            The configuration.

        Raises:
            ValueError: if a name is unknown or a value is out of range.
            TypeError: if a value has the wrong type.
        """
        fields = {field.name: field for field in dataclasses.fields(cls)}
        unknown = sorted(set(settings) - set(fields))
        if unknown:
            raise ValueError(
                f"unknown settings {unknown}; known are {sorted(fields)}. "
                "A newer odmt-sdk may have written them: upgrade the package, or remove the "
                "settings"
            )
        return cls(**settings)

    def trained_with(self, settings: Mapping[str, Any]) -> Self:
        """Return a copy with other training settings.

        Args:
            settings: values by name; only `TRAINING_SETTINGS` are allowed.

        Returns:
            A new configuration.

        Raises:
            ValueError: if another setting is named or a value is out of range.

        Examples:
            >>> ODMTConfig(id_dropout=0.5).trained_with({"id_dropout": 0.0}).id_dropout
            0.0
        """
        others = sorted(set(settings) - set(TRAINING_SETTINGS))
        if others:
            raise ValueError(
                f"{others} cannot be changed for existing weights; only training settings can: "
                f"{sorted(TRAINING_SETTINGS)}"
            )
        return dataclasses.replace(self, **settings)


def whole_number(name: str, value: Any, *, least: int = 1, instead: str = "") -> int:
    """Check an integer given as a Python or numpy integer, or as a tensor of one element.

    Args:
        name: name of the argument in error messages.
        value: the value to check.
        least: the smallest value allowed.
        instead: what else is allowed, as text for the error message.

    Returns:
        The value as a Python integer.

    Raises:
        TypeError: if the value is not an integer.
        ValueError: if it is less than `least`.

    Examples:
        >>> whole_number("k", 5)
        5
    """
    refused = f"{name}={value!r} must be a whole number of at least {least}{instead}"
    if isinstance(value, bool) or _is_numpy_bool(value):
        raise TypeError(refused)
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(refused) from None
    if number < least:
        raise ValueError(f"{name}={number} must be at least {least}{instead}")
    return number


def _checked(name: str, value: Any) -> Any:
    """Check the value of a setting and return it as a plain Python value."""
    if name in _WHOLE:
        if value is None and _WHOLE[name]:
            return None
        instead = ""
        if _WHOLE[name]:
            asks = name in ("hidden_size", "max_seq_length")
            instead = ", or None for the backbone's own" if asks else ", or None for all at once"
        return whole_number(name, value, instead=instead)
    if name in _FRACTIONS:
        return _checked_fraction(name, value)
    if name == "source_weights":
        return None if value is None else _checked_weights(value)
    if name == "teaching_graph":
        return str(value) if isinstance(value, str) else _checked_edges(value)
    if name == "fusion":
        if not isinstance(value, str):
            raise TypeError(f"fusion={value!r} must be the name of a registered fusion")
        return str(value)
    if name == "id_visibility":
        if value not in get_args(IdVisibility):
            raise ValueError(f"id_visibility={value!r} must be one of {get_args(IdVisibility)}")
        return value
    if not isinstance(value, bool) and not _is_numpy_bool(value):
        raise TypeError(f"{name}={value!r} must be True or False")
    return bool(value)


def _is_numpy_bool(value: object) -> bool:
    return type(value).__module__ == "numpy" and type(value).__name__ in ("bool", "bool_")


def _checked_edges(value: Any) -> TeachingEdges:
    """Check the edges of a teaching graph and return them as plain tuples."""
    try:
        edges = tuple((student, tuple(teachers)) for student, teachers in value)
        names = [name for student, teachers in edges for name in (student, *teachers)]
        fits = all(isinstance(name, str) for name in names) and all(teach for _, teach in edges)
        fits = fits and not any(isinstance(teachers, str) for _, teachers in value)
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise TypeError(
            f"teaching_graph={value!r} must be the name of a registered graph, or edges such as "
            '("text", ("id",)): a student, and the names of at least one teacher'
        )
    return edges


def _checked_weights(value: Any) -> SourceWeights:
    """Check the weights of sources and return them as pairs."""
    try:
        weights = dict(value)
        fits = all(isinstance(source, str) for source in weights) and not isinstance(value, str)
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise TypeError(
            f"source_weights={value!r} must map sources to numbers of at least 0, such as "
            '{"id": 2.0}, or be None for equal weights'
        )
    return tuple((source, _checked_fraction("source_weights", w)) for source, w in weights.items())


def _checked_fraction(name: str, value: Any) -> float:
    plain: float = value
    if type(value) not in (int, float):
        if isinstance(value, str | bytes | bool) or not hasattr(value, "__float__"):
            raise TypeError(f"{name}={value!r} must be a number")
        plain = float(value)
    if not math.isfinite(plain):
        raise ValueError(f"{name}={value} must be finite")
    if name in ("dropout", "modality_dropout", "id_dropout"):
        if not 0 <= plain < 1:
            raise ValueError(f"{name}={value} must be at least 0 and below 1")
    elif name in ("layer_norm_eps", "distillation_temperature", "initial_length"):
        if not plain > 0:
            raise ValueError(f"{name}={value} must be greater than 0")
    elif not plain >= 0:
        raise ValueError(f"{name}={value} must be at least 0")
    return plain


def _refuse_misspelling(name: str, known: list[str]) -> None:
    """Raise if an attribute looks like a misspelt setting; libraries may set other attributes."""
    meant = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
    if meant:
        raise AttributeError(
            f"ODMTConfig has no setting {name!r}; did you mean {meant[0]!r}? Known are {known}"
        )


def check_heads(hidden_size: int, num_heads: int) -> None:
    """Check that `num_heads` divides `hidden_size`.

    Raises:
        ValueError: if it does not.
    """
    if hidden_size % num_heads:
        divisors = [n for n in range(1, min(hidden_size, 32) + 1) if hidden_size % n == 0]
        raise ValueError(
            f"hidden_size={hidden_size} is not divisible by num_heads={num_heads}; "
            f"choose num_heads among {divisors}"
        )
