"""The registry of raw modalities: how the cells of a column become tokens."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from odmt_sdk.features.extractor import TokenExtractor, is_missing
from odmt_sdk.features.modality import check_name
from odmt_sdk.registry import Registry

ExtractorBuilder = TypeVar("ExtractorBuilder", bound=Callable[..., TokenExtractor])


class PresentCells(Protocol):
    """Reads the cells of a column: skips empty cells and raises for invalid ones."""

    def __call__(self, cells: Sequence[Any], item_ids: Sequence[Hashable], /) -> Mapping[int, Any]:
        """N cells and the N item ids for messages -> position of each item and its value."""


def present_cells(cells: Sequence[Any], item_ids: Sequence[Hashable], /) -> dict[int, Any]:
    """Drop empty cells: None, NaN, pandas NA or NaT, and blank text.

    Args:
        cells: N cells of a column.
        item_ids: the N item ids; not read.

    Returns:
        Position -> cell.
    """
    return {position: cell for position, cell in enumerate(cells) if not is_missing(cell)}


class RawModalityReader(NamedTuple):
    """How a modality is read.

    Args:
        build: (encoder, **options) -> extractor.
        present: reads the cells of a column.
    """

    build: Callable[..., TokenExtractor]
    present: PresentCells


MODALITIES: Registry[RawModalityReader] = Registry(
    "modality", "odmt_sdk.register_modality", "odmt_sdk.features.extraction"
)


def register_modality(
    name: str, *, present: PresentCells = present_cells
) -> Callable[[ExtractorBuilder], ExtractorBuilder]:
    """Register a raw modality, for `ItemFeatures.from_items(..., encoders={name: encoder})`.

    Args:
        name: name of the modality, such as "audio".
        present: reads the cells of the column: a function `(cells, item_ids)` that returns
            position -> value for the items that have a value. Default: all cells except None, NaN
            and blank text are values.

    Returns:
        A decorator for a class or function `(encoder, **options)` that returns a `TokenExtractor`.
        The options come from `from_items(..., encoder_options={name: options})`.

    Raises:
        ValueError: if the name is already registered or is not allowed for a modality.

    Examples:
        >>> @register_modality("audio")                                      # doctest: +SKIP
        ... class AudioExtractor:
        ...     unit = "recording"
        ...
        ...     def __init__(self, encoder, *, seconds=10): ...
        >>> ItemFeatures.from_items(                                         # doctest: +SKIP
        ...     items, encoders={"audio": my_encoder}, encoder_options={"audio": {"seconds": 5}})
    """
    check_name(name)

    def register(build: ExtractorBuilder) -> ExtractorBuilder:
        MODALITIES.add(name, RawModalityReader(build, present), by=build)
        return build

    return register
