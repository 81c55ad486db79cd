"""What a model card says that cannot be read from the model."""

from dataclasses import dataclass, field


@dataclass(kw_only=True)
class CardDetails:
    """What `model.card` tells readers of the model card.

    Args:
        title: heading; None = named after the repository.
        description: a paragraph on what the model is for.
        dataset: name of the data it was trained on, as it is shown.
        dataset_id: id of that data set on the Hub.
        license: identifier of the license, such as "apache-2.0".
        language: code of the language of texts, such as "en".
        training: what else is worth saying of training; `fit` fills in sizes and settings.
        results: split -> metrics, as `evaluate` returns them; `fit` and `ODMTTrainer` fill it in.
        limits: what the model cannot do, beside what is true of every such model.

    Examples:
        >>> CardDetails(dataset="My shop, 2026", license="apache-2.0").results
        {}
    """

    title: str | None = None
    description: str | None = None
    dataset: str | None = None
    dataset_id: str | None = None
    license: str | None = None
    language: str | None = None
    training: dict[str, str] = field(default_factory=dict)
    results: dict[str, dict[str, float]] = field(default_factory=dict)
    limits: str | None = None
