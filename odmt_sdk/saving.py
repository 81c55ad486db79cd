"""Saving and loading: how a model becomes an adapter folder, and a folder a model."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, cast

from torch import nn

from odmt_sdk.backbones.registry import AdapterBuilder
from odmt_sdk.errors import AdapterError
from odmt_sdk.hub.pretrained import Pretrained, join_features, load, save
from odmt_sdk.hub.weights import check_weights
from odmt_sdk.items.feature_set import FeatureSet
from odmt_sdk.towers import SourceTowers


class SavedTowers(SourceTowers):
    """Towers that are saved to a folder and loaded from one.

    `ODMTWrapper` adds the training loss and recommending.
    """

    def save_pretrained(self, path: str | Path) -> Path:
        """Save the adapter: configuration, weights, item ids and ready item embeddings.

        The folder is written beside `path` and moved there when complete, so nothing half-written
        is left behind. An adapter that is there already is replaced.

        Args:
            path: the folder to make.

        Returns:
            The folder.

        Raises:
            AdapterError: if the model has no items, an item id is neither a string nor an
                integer, `path` holds something else than an adapter, or writing fails.
        """
        if self.vocabulary is None:
            raise AdapterError("a model without items cannot be saved: call set_items first")
        config = dataclasses.replace(
            self.config, hidden_size=self.hidden_size, max_seq_length=self.max_seq_length
        )
        return save(
            path,
            Pretrained(
                config,
                self._widths,
                self.backbone_name,
                self.state_dict(),
                self.vocabulary,
                self.encode_catalogue(),
            ),
        )

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        backbone: Any,
        item_features: FeatureSet | None = None,
        *,
        adapter: str | AdapterBuilder | None = None,
        forward_fn: Callable[..., Any] | None = None,
    ) -> Self:
        """Load an adapter.

        Args:
            path: a folder written by `save_pretrained`.
            backbone: like the one that was wrapped; its weights are taken from the folder.
            item_features: content tokens, joined to the saved items by id; without them the model
                recommends from its saved item embeddings, but cannot be trained.
            adapter: as when it was wrapped.
            forward_fn: as when it was wrapped.

        Returns:
            The model, in eval mode.

        Raises:
            AdapterError: if the folder is no adapter or damaged, or does not fit the backbone or
                the features.
        """
        saved = load(path)
        features = None if item_features is None else join_features(saved, item_features)
        try:
            model = cast(Any, cls)(
                backbone, config=saved.config, adapter=adapter, forward_fn=forward_fn, check=False
            )
            model._build(saved.vocabulary, saved.widths)
        except (TypeError, ValueError, RuntimeError) as error:
            raise AdapterError(f"cannot load the adapter in {str(path)!r}: {error}") from error
        check_weights(
            saved.weights,
            model.state_dict(),
            saved_backbone=saved.backbone,
            backbone=model.backbone_name,
        )
        model.load_state_dict(saved.weights)
        model.item_features = features
        model.eval()
        if features is None:
            catalogue = {s: e.to(model.device) for s, e in saved.item_embeddings.items()}
            model._catalogue.get(cast(nn.Module, model.item_encoder), lambda: catalogue)
        return cast(Self, model)
