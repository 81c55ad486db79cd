"""What a model card says that cannot be read from the model."""

from dataclasses import dataclass, field


@dataclass(kw_only=True)
class CardDetails:
    """Details for the model card that cannot be read from the model; set them on `model.card`.

    Args:
        title: heading; None = the name of the repository.
        description: a paragraph about the purpose of the model.
        dataset: displayed name of the training data.
        dataset_id: id of the training data on the Hub.
        license: license identifier, such as "apache-2.0".
        language: language code of the texts, such as "en", or a list of codes.
        training: further facts about training, name -> text or number; `fit` adds sizes and
            settings.
        results: split -> metrics, as returned by `evaluate`; `fit` and `ODMTTrainer` set them.
        limits: limits of this model, in addition to those of all such models.

    Examples:
        >>> CardDetails(dataset="My shop, 2026", license="apache-2.0").results
        {}
    """

    title: str | None = None
    description: str | None = None
    dataset: str | None = None
    dataset_id: str | None = None
    license: str | None = None
    language: str | list[str] | None = None
    training: dict[str, str | int | float | bool] = field(default_factory=dict)
    results: dict[str, dict[str, float]] = field(default_factory=dict)
    limits: str | None = None
