"""The towers: every item and every sequence as one embedding per source.

Letters: B users, L slots of a sequence, U distinct items, N items, D hidden size.
"""

from collections.abc import Hashable, Iterable, Mapping
from typing import Self, cast

import torch
from torch import nn

from odmt_sdk.backbones.hidden_size import infer_hidden_size
from odmt_sdk.backbones.per_source import SourceBackbones
from odmt_sdk.config import ODMTConfig, check_heads
from odmt_sdk.items.features import ItemFeatures
from odmt_sdk.items.fusion import ItemEmbedder, build_item_encoder
from odmt_sdk.retrieval.catalogue import CatalogueCache, encode_in_batches
from odmt_sdk.vocabulary import ItemVocabulary

DEFAULT_MAX_SEQ_LENGTH = 50


class SourceTowers(nn.Module):
    """An item encoder and one backbone per source, for one catalogue.

    `ODMTWrapper` adds the training loss, recommending and saving.

    Args:
        backbone: module `(inputs_embeds (B, L, D), attention_mask (B, L)) -> (B, L, D)`, causal.
        config: settings.
        hidden_size: D; None = `config.hidden_size`, else the backbone's own.

    Raises:
        ValueError: if the hidden size cannot be told, or does not fit.
    """

    item_log_probability: torch.Tensor

    def __init__(
        self, backbone: nn.Module, config: ODMTConfig, *, hidden_size: int | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.hidden_size = hidden_size or config.hidden_size or infer_hidden_size(backbone)
        if config.fusion == "odmt":
            check_heads(self.hidden_size, config.num_heads)
        self.max_seq_length = config.max_seq_length or int(
            getattr(backbone, "max_seq_length", None) or DEFAULT_MAX_SEQ_LENGTH
        )
        self.vocabulary: ItemVocabulary | None = None
        self.item_features: ItemFeatures | None = None
        self.item_encoder: nn.Module | None = None
        self.backbones: SourceBackbones | None = None
        self._template = (backbone,)  # in a tuple, so that it is no sub-module
        self._catalogue = CatalogueCache()

    def set_items(
        self,
        item_features: ItemFeatures | None = None,
        *,
        vocabulary: ItemVocabulary | Iterable[Hashable] | None = None,
    ) -> Self:
        """Give the catalogue to a model made without one.

        Args:
            item_features: content tokens and item ids.
            vocabulary: the item ids, for a model of IDs alone; with features it selects and orders
                the items wanted among them.

        Returns:
            The model itself.

        Raises:
            ValueError: if nothing is given, the catalogue is set already, or an id of
                `vocabulary` has no features.
        """
        if self.item_encoder is not None:
            raise ValueError("the items of this model are set already; make a new model")
        if vocabulary is not None and not isinstance(vocabulary, ItemVocabulary):
            vocabulary = ItemVocabulary(vocabulary)
        if item_features is not None and vocabulary not in (None, item_features.vocabulary):
            item_features = item_features.select(vocabulary)
        if item_features is not None:
            vocabulary = item_features.vocabulary
        if vocabulary is None:
            raise ValueError("nothing given: pass item_features=, or vocabulary= for IDs alone")
        self._build(vocabulary, item_features.widths if item_features is not None else {})
        self.item_features = item_features
        return self

    def _build(self, vocabulary: ItemVocabulary, widths: Mapping[str, int]) -> None:
        """Make item encoder and backbones, on the device and with the type of the user's model."""
        (backbone,) = self._template
        like = next(backbone.parameters(), torch.empty(0))
        like = like if like.is_floating_point() else like.float()
        encoder = build_item_encoder(self.config, len(vocabulary), self.hidden_size, widths)
        self.vocabulary, self._widths = vocabulary, dict(widths)
        self.item_encoder = encoder.to(device=like.device, dtype=like.dtype)
        self.backbones = SourceBackbones(backbone, self.sources, share=self.config.share_backbone)
        self.register_buffer(
            "item_log_probability", torch.zeros(len(vocabulary) + 1, device=like.device)
        )

    def _items(self) -> tuple[ItemVocabulary, ItemEmbedder, SourceBackbones]:
        if self.vocabulary is None or self.item_encoder is None or self.backbones is None:
            raise ValueError(
                "this model has no items yet: pass item_features= to ODMTWrapper, or call "
                "model.set_items(ItemFeatures.from_tensors(text=..., image=...)); for IDs alone, "
                "vocabulary= with the item ids"
            )
        return self.vocabulary, cast(ItemEmbedder, self.item_encoder), self.backbones

    @property
    def num_items(self) -> int:
        """N, the size of the catalogue."""
        return len(self._items()[0])

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources, "id" and the modalities."""
        if self.item_encoder is None:
            self._items()
        return cast(ItemEmbedder, self.item_encoder).sources

    def encode_items(self, item_ids: torch.Tensor) -> dict[str, torch.Tensor]:
        """Encode items from their IDs and content.

        Args:
            item_ids: (U,) rows in 0..N.

        Returns:
            Source -> (U, D).

        Raises:
            ValueError: if the model has no items, or their features were not loaded.
        """
        _, encoder, _ = self._items()
        if not encoder.modalities:
            return encoder(item_ids)
        if self.item_features is None:
            raise ValueError(
                f"the features of {list(encoder.modalities)} are not loaded: pass item_features= "
                "to from_pretrained to train this adapter or encode its items anew"
            )
        return encoder(item_ids, self.item_features.gather(item_ids))

    def encode_catalogue(self) -> dict[str, torch.Tensor]:
        """Encode every item, in eval mode and without gradients.

        The result is kept until a weight of the item encoder changes.

        Returns:
            Source -> (N + 1, D), row 0 = padding.
        """
        self._items()
        encoder = cast(nn.Module, self.item_encoder)
        return self._catalogue.get(
            encoder, lambda: encode_in_batches(encoder, self.encode_items, self.num_items)
        )

    def encode_sequences(
        self,
        item_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        item_embeddings: Mapping[str, torch.Tensor] | None = None,
    ) -> dict[str, torch.Tensor]:
        """Encode sequences as seen at their last item.

        Args:
            item_ids: (B, L) rows, padded with 0; longer ones are cut to the latest
                `max_seq_length`.
            attention_mask: (B, L), 1 = real; None = where `item_ids` is not 0.
            item_embeddings: source -> (N + 1, D) from `encode_catalogue`; None encodes the items
                of the batch.

        Returns:
            Source -> (B, D).

        Raises:
            ValueError: if the model has no items, a row is outside 0..N or a sequence is empty.
        """
        _, encoder, backbones = self._items()
        item_ids, mask = self._check_sequences(item_ids, attention_mask, self.max_seq_length)
        if not bool(mask.any(1).all()):
            empty = int((~mask.any(1)).nonzero()[0])
            raise ValueError(f"sequence {empty} of the batch is empty: it needs at least one item")
        columns = item_ids
        if item_embeddings is None:
            distinct, columns = torch.unique(item_ids, return_inverse=True)
            item_embeddings = self.encode_items(distinct)
        positions = torch.arange(item_ids.shape[1], device=item_ids.device)
        last = (positions * mask).argmax(1)  # (B, L) -> (B,)
        users = torch.arange(len(item_ids), device=item_ids.device)
        encoded = {}
        for source in encoder.sources:
            inputs = item_embeddings[source][columns] * mask[..., None]  # (B, L, D)
            encoded[source] = backbones(inputs, mask.long(), source)[users, last]
        return encoded

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def _check_sequences(
        self, item_ids: torch.Tensor, attention_mask: torch.Tensor | None, longest: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The latest `longest` slots, with a boolean mask."""
        if item_ids.ndim != 2 or item_ids.is_floating_point():
            raise ValueError(
                f"item_ids must be integers of shape (B, L), got {tuple(item_ids.shape)} "
                f"{item_ids.dtype}"
            )
        mask = item_ids != 0 if attention_mask is None else attention_mask.bool()
        if mask.shape != item_ids.shape:
            raise ValueError(
                f"attention_mask has shape {tuple(mask.shape)}, item_ids "
                f"{tuple(item_ids.shape)}; they must agree"
            )
        if item_ids.device.type == "cpu" and item_ids.numel():  # elsewhere it would wait
            low, high = int(item_ids.min()), int(item_ids.max())
            if low < 0 or high > self.num_items:
                raise ValueError(
                    f"item_ids hold row {low if low < 0 else high}, outside 0..{self.num_items}; "
                    "rows come from model.vocabulary.rows(item ids), 0 is padding"
                )
        return item_ids[:, -longest:], mask[:, -longest:]
