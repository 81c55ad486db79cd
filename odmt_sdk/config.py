"""Settings of the model, as one plain dataclass that becomes the `config.json` of an adapter."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

IdVisibility = Literal["one_way", "mutual"]

# What decides how a model is trained, and nothing of what its weights mean.
TRAINING_SETTINGS = (
    "dropout",
    "modality_dropout",
    "id_dropout",
    "prefix_augmentation",
    "teaching_graph",
    "distillation_temperature",
    "distillation_weight",
    "distillation_warmup_epochs",
    "detach_teacher",
    "logq_correction",
    "item_chunk_size",
    "loss_chunk_size",
    "sparse_id_gradients",
    "gather_candidates",
)


@dataclass(kw_only=True)
class ODMTConfig:
    """Settings of `ODMTWrapper`; everything has a default.

    The defaults are what serves best in general; `paper()` is the model as published.

    Args:
        hidden_size: width D of every item and sequence embedding; None takes the backbone's.
        max_seq_length: histories are cut to this many latest items; None takes the backbone's
            `max_seq_length`, or 50 where it has none.
        fusion: how an item becomes embeddings: "odmt", the ID-aware multi-modal transformer; "id",
            a bare table of item IDs; or another of "Fusions to compare with" in the documentation.
        num_layers: blocks of the multi-modal transformer.
        num_heads: attention heads of each of them; must divide `hidden_size`.
        id_visibility: "one_way" hides the ID token from text and image tokens (the paper's
            choice), "mutual" lets every token see every other.
        token_norm: whether content tokens pass a layer norm once projected, so that the scale of
            the features does not matter.
        shortcut: whether the first token of each source also goes around the transformer, so that
            the sources stay different.
        dropout: probability used throughout the item encoder, 0 <= dropout < 1.
        layer_norm_eps: epsilon of the item encoder's layer norms.
        modality_dropout: probability that a modality of an item is hidden in a training batch,
            0 <= modality_dropout < 1; items that lack one are met in training then.
        id_dropout: probability that an item's ID is hidden in a training batch,
            0 <= id_dropout < 1. Content learns to stand alone then, as it has to for items that
            training never sees. Content and ID of an item are never all hidden.
        prefix_augmentation: whether a backbone that returns only its last state trains on every
            prefix of a sequence, which is the loss of a backbone that returns all states, at the
            cost of reading every prefix; else on whole sequences only.
        share_backbone: one backbone for all sources in place of one each.
        project_backbone: whether linear layers bridge a backbone width other than D.
        allow_future: whether a backbone that reads later items is accepted; it is then shown the
            items that it is to predict.
        teaching_graph: name of a registered teaching graph (who teaches whom).
        distillation_temperature: tau > 0 of the distillation loss.
        distillation_weight: weight of the distillation loss after its warm-up, >= 0; 0 turns
            distillation off.
        distillation_warmup_epochs: epochs until the full weight is reached, >= 0; the weight rises
            as exp(-5 (1 - epoch / warmup)^2).
        detach_teacher: whether teachers receive no gradient from their students.
        logq_correction: whether the log-popularity of a candidate is subtracted from its logit
            while training.
        item_chunk_size: train on so many items at a time, whose inner states are computed again
            for the gradient: the same numbers in less memory and more time. None = all at once.
        loss_chunk_size: the same for the loss, so many positions at a time.
        sparse_id_gradients: whether the gradient of the table of IDs holds only the rows of the
            batch, so that no step costs more for a larger catalogue; asks for the optimizer
            `LazyAdamW`, which `fit` and `ODMTTrainer` use.
        gather_candidates: whether the items of all processes of a distributed run are candidates,
            so that many devices train as one on a large batch.

    Raises:
        ValueError: if a value breaks the rule stated for it.

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
    modality_dropout: float = 0.0
    id_dropout: float = 0.0
    prefix_augmentation: bool = True
    share_backbone: bool = False
    project_backbone: bool = False
    allow_future: bool = False
    teaching_graph: str = "ensemble"
    distillation_temperature: float = 1.0
    distillation_weight: float = 0.2
    distillation_warmup_epochs: float = 20.0
    detach_teacher: bool = True
    logq_correction: bool = True
    item_chunk_size: int | None = None
    loss_chunk_size: int | None = None
    sparse_id_gradients: bool = False
    gather_candidates: bool = False

    def __post_init__(self) -> None:
        for name in ("hidden_size", "max_seq_length"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} must be at least 1, or None to ask the backbone")
        for name in ("item_chunk_size", "loss_chunk_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} must be at least 1, or None for all at once")
        for name in ("num_layers", "num_heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.hidden_size is not None:
            check_heads(self.hidden_size, self.num_heads)
        if self.id_visibility not in get_args(IdVisibility):
            raise ValueError(
                f"id_visibility={self.id_visibility!r} must be one of {get_args(IdVisibility)}"
            )
        for name in ("dropout", "modality_dropout", "id_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 0 and below 1")
        if not self.layer_norm_eps > 0:
            raise ValueError(f"layer_norm_eps={self.layer_norm_eps} must be greater than 0")
        if not self.distillation_temperature > 0:
            raise ValueError(
                f"distillation_temperature={self.distillation_temperature} must be greater than 0"
            )
        for name in ("distillation_weight", "distillation_warmup_epochs"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 0")

    @classmethod
    def paper(cls, **settings: Any) -> Self:
        """The model as published, where the defaults depart from it.

        Args:
            **settings: others than the published ones.

        Returns:
            The configuration.

        Raises:
            TypeError: if a setting is unknown.
            ValueError: if a value breaks its rule.

        Source: section 4.1 of the paper, https://arxiv.org/abs/2308.04067.

        Examples:
            >>> ODMTConfig.paper(num_layers=1).distillation_warmup_epochs
            50.0
        """
        published: dict[str, Any] = {
            "token_norm": False,
            "shortcut": False,
            "teaching_graph": "paper",
            "distillation_temperature": 0.5,
            "distillation_weight": 1.0,
            "distillation_warmup_epochs": 50.0,
            "detach_teacher": False,
        }
        return cls(**{**published, **settings})

    def to_dict(self) -> dict[str, Any]:
        """All settings as plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Self:
        """Build a configuration from `to_dict`'s output.

        Args:
            settings: names and values; names left out take their defaults.

        Returns:
            The configuration.

        Raises:
            ValueError: if a name is unknown or a value breaks its rule.
            TypeError: if a value has the wrong type.
        """
        fields = {field.name: field for field in dataclasses.fields(cls)}
        unknown = sorted(set(settings) - set(fields))
        if unknown:
            raise ValueError(
                f"unknown settings {unknown}; known are {sorted(fields)}. "
                "A newer odmt-sdk may have written them: upgrade, or remove them"
            )
        return cls(**settings)

    def trained_with(self, settings: Mapping[str, Any]) -> Self:
        """The same model, trained in another way.

        Args:
            settings: names among `TRAINING_SETTINGS`, and values.

        Returns:
            A new configuration.

        Raises:
            ValueError: if another setting is named or a value breaks its rule.

        Examples:
            >>> ODMTConfig(id_dropout=0.5).trained_with({"id_dropout": 0.0}).id_dropout
            0.0
        """
        others = sorted(set(settings) - set(TRAINING_SETTINGS))
        if others:
            raise ValueError(
                f"{others} cannot change for weights that are there; of how to train, "
                f"{sorted(TRAINING_SETTINGS)} can"
            )
        return dataclasses.replace(self, **settings)


def check_heads(hidden_size: int, num_heads: int) -> None:
    """Raise `ValueError` unless `num_heads` divides `hidden_size`."""
    if hidden_size % num_heads:
        divisors = [n for n in range(1, min(hidden_size, 32) + 1) if hidden_size % n == 0]
        raise ValueError(
            f"hidden_size={hidden_size} is not divisible by num_heads={num_heads}; "
            f"choose num_heads among {divisors}"
        )
