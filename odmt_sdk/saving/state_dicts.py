"""State dicts of whole models: they tell of which items they are, as the rows of a table do not."""

import warnings
from typing import Any, Protocol, cast

from torch import nn

from odmt_sdk.vocabulary import ItemVocabulary

# in the metadata of the state dict
ITEMS, COUNTS, WEIGHTS = "odmt_items", "odmt_item_to_item_weight", "odmt_source_weights"


class HasItems(Protocol):
    """A model with items."""

    vocabulary: ItemVocabulary | None

    @property
    def item_to_item_weight(self) -> float:
        """Factor of the item-to-item counts; 0 without them."""

    @property
    def source_weights(self) -> dict[str, float]:
        """Source -> weight in the score."""


def describe_items(model: nn.Module) -> None:
    """Let the state dicts of a model say of which items they are, and check that in loading.

    The description is metadata, which `torch.save` keeps. A plain dictionary has none, so it is
    loaded without a check.

    Args:
        model: a model with `vocabulary`, `item_to_item_weight` and `source_weights`.
    """
    model.register_state_dict_post_hook(_describe)
    model.register_load_state_dict_pre_hook(_compare)


def _describe(
    model: nn.Module, state_dict: dict[str, Any], prefix: str, metadata: dict[str, Any]
) -> None:
    of = cast(HasItems, model)
    if of.vocabulary is not None:
        metadata[ITEMS], metadata[COUNTS] = of.vocabulary.fingerprint, of.item_to_item_weight
        metadata[WEIGHTS] = of.source_weights


def _compare(
    model: nn.Module,
    state_dict: dict[str, Any],
    prefix: str,
    metadata: dict[str, Any],
    strict: bool,
    missing_keys: list[str],
    unexpected_keys: list[str],
    error_messages: list[str],
) -> None:
    of = cast(HasItems, model)
    saved = metadata.get(ITEMS)
    if saved is None or of.vocabulary is None:
        return
    if saved != of.vocabulary.fingerprint:
        error_messages.append(
            "the state dict is of a model with other item ids, or with the same ids in another "
            "order, so its rows would belong to the wrong items. Load it into a model with the "
            "same vocabulary= as before; for another catalogue, use save_pretrained and "
            "from_pretrained(..., transfer=True); to load it by row in any case, pass "
            "dict(state_dict)"
        )
        return
    if metadata.get(WEIGHTS, of.source_weights) != of.source_weights:
        warnings.warn(
            f"the model of this state dict weighed its sources by {metadata[WEIGHTS]}, this one "
            f"weighs them by {of.source_weights}, so scores differ: set model.source_weights, or "
            "save models with save_pretrained",
            UserWarning,
            stacklevel=5,
        )
    if metadata.get(COUNTS) and not of.item_to_item_weight:
        warnings.warn(
            f"the model of this state dict had item-to-item counts (item_to_item_weight="
            f"{metadata[COUNTS]:.3g}), which a state dict does not hold, so scores differ: call "
            "add_item_to_item(model, split), or save models with save_pretrained",
            UserWarning,
            stacklevel=5,
        )
