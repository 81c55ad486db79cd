"""The towers: every item and every sequence as one embedding per source.

Letters: B users, L slots of a sequence, U distinct items, N items, D hidden size.
"""

from collections.abc import Hashable, Iterable, Mapping
from typing import Any, Self, cast

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from odmt_sdk.backbones.id_lookup import IdLookupBackbone
from odmt_sdk.backbones.per_source import SourceBackbones
from odmt_sdk.backbones.registry import unwrap_backbone
from odmt_sdk.backbones.template import BackboneTemplate
from odmt_sdk.config import ODMTConfig, check_heads
from odmt_sdk.items.feature_set import FeatureSet
from odmt_sdk.items.fusion import GrowingItemEmbedder, ItemEmbedder, build_item_encoder
from odmt_sdk.items.grouping import encode_by_length
from odmt_sdk.items.growth import check_new_items
from odmt_sdk.items.joined import JoinedFeatures
from odmt_sdk.retrieval.catalogue import CatalogueCache, encode_in_batches
from odmt_sdk.vocabulary import ItemVocabulary

DEFAULT_MAX_SEQ_LENGTH = 50


class SourceTowers(nn.Module):
    """An item encoder and one backbone per source, for one catalogue.

    `SavedTowers` adds saving, `ODMTWrapper` the training loss and recommending.

    Args:
        template: makes the backbones.
        config: settings.

    Raises:
        ValueError: if the hidden size does not fit.
    """

    item_log_probability: torch.Tensor

    def __init__(self, template: BackboneTemplate, config: ODMTConfig) -> None:
        super().__init__()
        self.config = config
        self.hidden_size = template.hidden_size
        if config.fusion == "odmt":
            check_heads(self.hidden_size, config.num_heads)
        self.max_seq_length = (
            config.max_seq_length or template.max_seq_length or DEFAULT_MAX_SEQ_LENGTH
        )
        self.backbone_name = template.name
        self.vocabulary: ItemVocabulary | None = None
        self.item_features: FeatureSet | None = None
        self.item_encoder: nn.Module | None = None
        self.backbones: SourceBackbones | None = None
        self._template: BackboneTemplate | None = template
        self._catalogue = CatalogueCache()

    def set_items(
        self,
        item_features: FeatureSet | None = None,
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

    def add_items(self, item_features: FeatureSet) -> Self:
        """Add items to the catalogue of a trained model; they can be recommended at once.

        Nothing is trained: a new item is represented by its content, and by the learned vector of
        unknown IDs in place of an ID of its own. That vector learns if the model is trained with
        `ODMTConfig(id_dropout=...)`, and so does the content to stand alone; else it says nothing.
        Works on a model loaded without features too. `save_pretrained` saves the new items.

        The table of IDs becomes a new parameter: make a new optimizer to train on. What is given
        to `set_item_popularity` then (`fit` does it) decides which items have an ID of their own.

        Args:
            item_features: content tokens and ids of the new items, in the modalities and widths of
                the model, extracted and prepared like those it was trained with.

        Returns:
            The model itself. The new items' rows follow the old ones.

        Raises:
            ValueError: if the model has no items or knows them by their IDs alone, its fusion
                cannot grow, an id is known already, or modalities or widths differ.
        """
        vocabulary, encoder, _ = self._items()
        growing = check_new_items(item_features, vocabulary, self._widths, encoder)
        kept = self._catalogue.kept(cast(nn.Module, encoder))
        if kept is None and self.item_features is None:
            kept = self.encode_catalogue()  # cannot be made: says why
        old, new = len(vocabulary), len(item_features.vocabulary)
        growing.add_items(new)
        self.vocabulary = ItemVocabulary([*vocabulary, *item_features.vocabulary])
        log_q = self.item_log_probability
        self.item_log_probability = torch.cat([log_q, log_q[1:].min().expand(new)])
        if self.item_features is not None:
            self.item_features = JoinedFeatures(self.item_features, item_features)
        if kept is not None:
            added = encode_in_batches(
                cast(nn.Module, encoder),
                lambda rows: encoder(rows + old, item_features.gather(rows)),
                new,
            )
            grown = {source: torch.cat([kept[source], added[source][1:]]) for source in kept}
            self._catalogue.keep(cast(nn.Module, encoder), grown)
        return self

    def _set_unseen(self, unseen: torch.Tensor) -> None:
        """Mark the cold items (N + 1,), where the item encoder can represent such."""
        encoder = self.item_encoder
        if isinstance(encoder, GrowingItemEmbedder):
            unseen = unseen.to(encoder.unseen.device)
            unseen[0] = False  # padding
            if not torch.equal(unseen, encoder.unseen):
                encoder.set_unseen(unseen)
                self._catalogue.forget()

    def _build(self, vocabulary: ItemVocabulary, widths: Mapping[str, int]) -> None:
        """Make item encoder and backbones, on the device and with the type of the user's model."""
        template = cast(BackboneTemplate, self._template)
        encoder = build_item_encoder(self.config, len(vocabulary), self.hidden_size, widths)
        sources = cast(ItemEmbedder, encoder).sources
        made = template.make(sources, share=self.config.share_backbone)
        self._template = None  # the user's own object is needed no more
        self.backbones = SourceBackbones(made)
        self.vocabulary, self._widths = vocabulary, dict(widths)
        if self.config.sparse_id_gradients:
            for module in encoder.modules():
                if isinstance(module, nn.Embedding):
                    module.sparse = True
        self.item_encoder = encoder.to(device=template.like.device, dtype=template.like.dtype)
        self.register_buffer(
            "item_log_probability", torch.zeros(len(vocabulary) + 1, device=template.like.device)
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

    def unwrap_backbone(self, source: str = "id") -> nn.Module:
        """Take the backbone of a source out again, trained.

        Args:
            source: one of `sources`.

        Returns:
            A module of the user's own class, without any adapter. A model that looks item ids up in
            a table of its own gets this source's item embeddings as that table, by rows of
            `vocabulary`. All others are the very modules of this model, not copies; models of
            transformers are without their token embedding and head.

        Raises:
            ValueError: if the model has no items, or the source is unknown.
        """
        _, _, backbones = self._items()
        if source not in self.sources:
            raise ValueError(f"source={source!r} is unknown; known are {list(self.sources)}")
        backbone = backbones.of(source)
        if isinstance(backbone, IdLookupBackbone):
            return backbone.unwrap(self.encode_catalogue()[source])
        return unwrap_backbone(backbone)

    def freeze_backbones(self, frozen: bool = True) -> Self:
        """Keep the weights of the user's modules as they are while training.

        Call it before making an optimizer. Linear layers of `project_backbone` stay trained.

        Args:
            frozen: False lets them be trained again.

        Returns:
            The model itself.

        Raises:
            ValueError: if the model has no items.
        """
        _, _, backbones = self._items()
        for backbone in backbones.by_source.values():
            unwrap_backbone(backbone).requires_grad_(not frozen)
        return self

    def parameter_groups(
        self, *, learning_rate: float, backbone_learning_rate: float
    ) -> list[dict[str, Any]]:
        """Parameters for an optimizer, with a learning rate of their own for the backbones.

        Args:
            learning_rate: of the item encoder.
            backbone_learning_rate: of the backbones.

        Returns:
            Two groups, without parameters that are frozen.

        Raises:
            ValueError: if the model has no items.

        Examples:
            >>> groups = model.parameter_groups(                                # doctest: +SKIP
            ...     learning_rate=1e-3, backbone_learning_rate=1e-5)
            >>> torch.optim.AdamW(groups)                                       # doctest: +SKIP
        """
        _, encoder, backbones = self._items()
        parts = ((cast(nn.Module, encoder), learning_rate), (backbones, backbone_learning_rate))
        return [
            {"params": [p for p in part.parameters() if p.requires_grad], "lr": rate}
            for part, rate in parts
        ]

    def encode_items(self, item_ids: torch.Tensor) -> dict[str, torch.Tensor]:
        """Encode items from their IDs and content.

        Args:
            item_ids: (U,) rows in 0..N.

        Returns:
            Source -> (U, D).

        Raises:
            ValueError: if the model has no items, or their features were not loaded.
        """
        chunk = self.config.item_chunk_size
        if chunk is None or len(item_ids) <= chunk or not torch.is_grad_enabled():
            return self._encode_items(item_ids)
        parts = [
            checkpoint(self._encode_items, ids, use_reentrant=False)
            for ids in item_ids.split(chunk)
        ]
        return {source: torch.cat([part[source] for part in parts]) for source in parts[0]}

    def _encode_items(self, item_ids: torch.Tensor) -> dict[str, torch.Tensor]:
        _, encoder, _ = self._items()
        if not encoder.modalities:
            return encoder(item_ids)
        if self.item_features is None:
            raise ValueError(
                f"the features of {list(encoder.modalities)} are not loaded: pass item_features= "
                "to from_pretrained to train this adapter or encode its items anew"
            )
        return encode_by_length(encoder, item_ids, self.item_features.gather(item_ids))

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
        users, slots = item_ids.shape
        last = (torch.arange(slots, device=item_ids.device) * mask).argmax(1)  # (B, L) -> (B,)
        positions = torch.arange(users, device=item_ids.device) * slots + last
        encoded = {}
        for source in encoder.sources:
            inputs = item_embeddings[source][columns] * mask[..., None]  # (B, L, D)
            encoded[source] = backbones(
                inputs,
                mask.long(),
                source,
                item_ids=item_ids * mask,
                positions=positions,
                one_each=True,
            )
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
