"""`ODMTWrapper`: any sequence backbone, multi-modal items, online distillation.

Letters: B users, L slots of a sequence, P valid positions, U distinct items of a batch, N items,
S sources, D hidden size.
"""

import dataclasses
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, Self, cast

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from odmt_sdk.backbones.adapt import BridgeBuilder, unwrap_backbone
from odmt_sdk.backbones.id_lookup.backbone import IdLookupBackbone
from odmt_sdk.backbones.per_source import SourceBackbones
from odmt_sdk.backbones.template import BackboneTemplate
from odmt_sdk.config import LIVE_SETTINGS, ODMTConfig, check_heads
from odmt_sdk.deprecation import renamed_argument
from odmt_sdk.features.feature_set import FeatureSet, check_feature_set
from odmt_sdk.features.features import ItemFeatures
from odmt_sdk.features.joined import JoinedFeatures
from odmt_sdk.features.modality import ModalityTokens
from odmt_sdk.features.preparation import Preparation, prepare_like
from odmt_sdk.features.trainable.encoded import encoded_features
from odmt_sdk.features.trainable.encoder import TrainableEncoder
from odmt_sdk.features.trainable.in_place import (
    attach_encoders,
    check_encoders,
    with_trained,
)
from odmt_sdk.hub.download import HubOptions, locate
from odmt_sdk.hub.push import make_repository, push_folder
from odmt_sdk.item_neighbours import ItemNeighbours
from odmt_sdk.items.embedder import (
    GrowingItemEmbedder,
    ItemEmbedder,
    build_item_encoder,
    check_fusion,
)
from odmt_sdk.items.growth import check_new_items
from odmt_sdk.items.length_groups import encode_by_length
from odmt_sdk.items.rows import check_none_empty, check_rows, left_padded
from odmt_sdk.losses.gathering import share_candidates
from odmt_sdk.losses.in_batch import InBatchCandidates, in_batch_candidates
from odmt_sdk.losses.in_chunks import loss_in_chunks
from odmt_sdk.losses.online_distillation import LossParts, OnlineDistillationMixin
from odmt_sdk.losses.popularity import log_probability
from odmt_sdk.losses.teaching import check_teaching_graph, teaching_edges
from odmt_sdk.modes import evaluating
from odmt_sdk.number_types import added_dtype, keeping_complex
from odmt_sdk.outputs import ODMTOutput, Recommendations
from odmt_sdk.processes import is_distributed
from odmt_sdk.retrieval.catalogue import CatalogueCache, encode_in_batches
from odmt_sdk.retrieval.popularity_prior import Popularity
from odmt_sdk.retrieval.recommend import (
    Choice,
    Histories,
    recommend,
    recommend_iter,
    similar_items,
)
from odmt_sdk.retrieval.rerank import Reranker
from odmt_sdk.retrieval.vectors import history_vectors, item_vectors, score_items
from odmt_sdk.saving.card_details import CardDetails
from odmt_sdk.saving.load import load_adapter
from odmt_sdk.saving.save import save_adapter
from odmt_sdk.saving.state_dicts import describe_items
from odmt_sdk.saving.transfer import TransferReport
from odmt_sdk.scoring import check_source_weights
from odmt_sdk.vocabulary import ItemVocabulary

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo

    from odmt_sdk.indexes.item_index import ItemIndex

DEFAULT_MAX_SEQ_LENGTH = 50


def _setting(name: str) -> Any:
    """A setting of the mixin, read from the model's `config` and written there."""

    def read(self: "ODMTWrapper") -> Any:
        return getattr(self.config, name)

    def write(self: "ODMTWrapper", value: Any) -> None:
        setattr(self.config, name, value)

    return property(read, write)


class ODMTWrapper(OnlineDistillationMixin, nn.Module):
    """Turns a sequence backbone into an ODMT recommender.

    Every item gets one embedding per source: its ID and each modality. One copy of the backbone per
    source reads the sequences. During training, the predictions of the sources teach one another;
    for recommendations, their scores are averaged. The backbone passed in is copied, never changed:
    with three sources there are three copies in memory, in addition to your own object.
    `ODMTConfig(share_backbone=True)` uses one copy for all sources.

    Without `item_features` (or `vocabulary` for a model that uses only IDs), call `set_items`
    before you create an optimizer.

    Args:
        backbone: a causal sequence model with almost any interface, see "Bring your backbone" in
            the documentation; a function without arguments that creates a model; or a mapping from
            each source to its backbone.
        item_features: content tokens of the catalogue, and its item ids.
        config: settings; None = `ODMTConfig()`. The model keeps a copy, `model.config`. Changes to
            the `LIVE_SETTINGS` of this copy take effect immediately; other changes raise an error.
        vocabulary: the item ids, if there are no features.
        encoders: modality -> `TrainableText` or `TrainableImages`, encoders to train with the
            model. Their tokens replace the frozen tokens of `item_features`.
        hidden_size: D; None = `config.hidden_size`, or the backbone's width if that is None.
        bridge: name of a registered bridge, or a function `(backbone, hidden_size) -> module`;
            None = choose the bridge automatically.
        forward_fn: a function `(backbone, inputs_embeds (B, L, D), attention_mask (B, L)) ->
            (B, L, D)` that calls the backbone.
        fresh_copies: whether every copy of the backbone gets newly initialized weights. False =
            the copies start with the weights of the backbone.
        dtype: floating-point type of the added weights, such as those of the item encoder. None =
            float32, because small optimizer steps are lost in 16 bits, or float64 if the backbone
            has it. The backbones keep their own type.
        check: whether to check the backbone on tiny batches first, as `check_backbone` does. Errors
            of the check are raised, and its warnings are issued as warnings.

    Attributes:
        card: details for the model card that cannot be read from the model; set them before saving.
        transfer_report: the weights that were taken from an adapter of another catalogue.

    Raises:
        TypeError: if the backbone is not callable, or `item_features` are no features.
        ValueError: if it is unclear how to call the backbone, `check` finds an error, the hidden
            size cannot be determined or does not fit, or inference mode is enabled.

    Source: https://arxiv.org/abs/2308.04067.

    Examples:
        >>> from odmt_sdk import ItemFeatures, SASRec
        >>> features = ItemFeatures.from_tensors(text=torch.randn(10, 7, 16))
        >>> model = ODMTWrapper(backbone=SASRec(hidden_size=8), item_features=features)
        >>> model(torch.tensor([[0, 3, 1, 2], [4, 5, 6, 7]])).loss.backward()
        >>> model.recommend([[3, 1], [4]], k=2).item_ids        # doctest: +SKIP
        [[2, 7], [5, 6]]
    """

    @renamed_argument("adapter", "bridge")
    def __init__(
        self,
        backbone: Any,
        item_features: FeatureSet | None = None,
        config: ODMTConfig | None = None,
        *,
        vocabulary: ItemVocabulary | Iterable[Hashable] | None = None,
        encoders: Mapping[str, TrainableEncoder] | None = None,
        hidden_size: int | None = None,
        bridge: str | BridgeBuilder | None = None,
        forward_fn: Callable[..., Any] | None = None,
        fresh_copies: bool = False,
        dtype: torch.dtype | None = None,
        check: bool = True,
    ) -> None:
        if torch.is_inference_mode_enabled():
            raise ValueError(
                "weights that are made in torch.inference_mode() cannot be trained: create the "
                "model outside of it, or load a trained one with from_pretrained"
            )
        config = config or ODMTConfig()
        check_fusion(config.fusion)
        check_feature_set(item_features)
        # an adapter can be loaded for recommending even if its teaching graph is not registered
        if isinstance(config.teaching_graph, str) and (
            check or item_features is not None or vocabulary is not None
        ):
            check_teaching_graph(config.teaching_graph)
        template = BackboneTemplate(
            backbone,
            hidden_size=hidden_size or config.hidden_size,
            bridge=bridge,
            forward_fn=forward_fn,
            project=config.project_backbone,
            fresh_copies=fresh_copies,
        )
        super().__init__()
        self._config = config.for_model()
        self.hidden_size = template.hidden_size
        if config.fusion == "odmt":
            check_heads(self.hidden_size, config.num_heads)
        self._backbone_length = template.max_seq_length or DEFAULT_MAX_SEQ_LENGTH
        self._added_dtype = added_dtype(dtype, template.like.dtype)
        self.backbone_name = template.name
        self.vocabulary: ItemVocabulary | None = None
        self._item_features: FeatureSet | None = None
        self.item_encoder: ItemEmbedder | None = None
        self.backbones: SourceBackbones | None = None
        self.encoders = nn.ModuleDict()  # content encoders that are trained
        self._template: BackboneTemplate | None = template
        # of the features that a saved model was trained on
        self.feature_widths: dict[str, int] = {}
        self._provenance: Mapping[str, Mapping[str, Any]] = {}
        self._moments: Mapping[str, torch.Tensor] = {}
        self._catalogue = CatalogueCache()
        self.popularity_is_set = False  # by hand
        self._item_to_item: ItemNeighbours | None = None
        self.recomputes_items = False
        self.card = CardDetails()
        self.transfer_report: TransferReport | None = None
        self.own_call = template.own_call
        describe_items(self)
        if check:
            template.check(
                max_seq_length=self.max_seq_length, allow_future=config.allow_future, stacklevel=3
            )
        if item_features is not None or vocabulary is not None or encoders:
            self.set_items(item_features, vocabulary=vocabulary, encoders=encoders)
            if self.distillation_weight > 0:
                teaching_edges(self.teaching_graph, self.sources)  # refused before training

    teaching_graph: Any = _setting("teaching_graph")
    distillation_temperature: Any = _setting("distillation_temperature")
    distillation_weight: Any = _setting("distillation_weight")
    distillation_warmup_epochs: Any = _setting("distillation_warmup_epochs")
    detach_teacher: Any = _setting("detach_teacher")

    # The name of the input that `transformers.Trainer` counts tokens of.
    main_input_name = "item_ids"

    item_log_probability: torch.Tensor

    @property
    def config(self) -> ODMTConfig:
        """The current settings, which are also saved.

        The settings in `LIVE_SETTINGS` can be changed at any time; changing others raises
        `ValueError`. Assigning another configuration copies its settings one by one.
        """
        return self._config

    @config.setter
    def config(self, config: ODMTConfig) -> None:
        names = [field.name for field in dataclasses.fields(config)]
        for name in sorted(names, key=LIVE_SETTINGS.__contains__):  # those that may raise first
            setattr(self._config, name, getattr(config, name))

    @property
    def max_seq_length(self) -> int:
        """Longest history in items: `config.max_seq_length`, or the limit of the backbone."""
        return self._config.max_seq_length or self._backbone_length

    @max_seq_length.setter
    def max_seq_length(self, length: int) -> None:
        self._config.max_seq_length = length

    @property
    def item_features(self) -> FeatureSet | None:
        """The features of the catalogue; None if the model uses only IDs or has none loaded.

        Assign other features of the same items, with the same modalities and widths, to replace
        them. They are joined by item id, and the catalogue is encoded again when it is needed.
        """
        return self._item_features

    @item_features.setter
    def item_features(self, item_features: FeatureSet | None) -> None:
        if self.vocabulary is None:
            raise ValueError(
                "this model has no items yet: call model.set_items(item_features) instead of "
                "setting model.item_features"
            )
        check_feature_set(item_features)
        if item_features is not None:
            item_features = self._fitting(item_features, self.vocabulary)
            attach_encoders(self.encoders, item_features, self.device)
            self._catalogue.forget()
        self._item_features = item_features

    @property
    def num_items(self) -> int:
        """N, the size of the catalogue."""
        return len(self._items()[0])

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources, "id" and the modalities."""
        return self._items()[1].sources

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.parameters()).device

    @property
    def source_weights(self) -> dict[str, float]:
        """Source -> its weight in the score of an item, a weighted mean over the sources.

        All weights are 1 unless `config.source_weights` says otherwise, which `fit` and
        `choose_source_weights` set. `recommend`, `score`, `evaluate` and exports use them, and they
        are saved with the adapter. Losses do not use them.
        """
        return check_source_weights(self.sources, dict(self.config.source_weights or ()))

    @source_weights.setter
    def source_weights(self, weights: Mapping[str, float] | None) -> None:
        check_source_weights(self.sources, weights)
        self.config.source_weights = weights

    @property
    def item_to_item(self) -> ItemNeighbours | None:
        """Item-to-item counts, an additional source of scores; None = the model has no counts.

        `fit` and `add_item_to_item` create them. `recommend`, `score` and `evaluate` include them,
        and they are saved with the adapter.
        """
        return self._item_to_item

    @item_to_item.setter
    def item_to_item(self, neighbours: ItemNeighbours | None) -> None:
        if neighbours is not None and len(neighbours) != self.num_items + 1:
            raise ValueError(
                f"the item-to-item counts are for {len(neighbours) - 1} items, but the model has "
                f"{self.num_items}: count them in a split with vocabulary=model.vocabulary"
            )
        self._item_to_item = neighbours

    @property
    def item_to_item_weight(self) -> float:
        """Factor of the item-to-item counts in the score of an item; 0 turns them off."""
        return 0.0 if self._item_to_item is None else self._item_to_item.weight

    @item_to_item_weight.setter
    def item_to_item_weight(self, weight: float) -> None:
        if self._item_to_item is not None:
            self._item_to_item.weight = weight
        elif weight != 0:
            raise ValueError(
                f"item_to_item_weight={weight} has no effect without counts: count items first, "
                "with add_item_to_item(model, split)"
            )

    @property
    def feature_provenance(self) -> Mapping[str, Mapping[str, Any]]:
        """Modality -> how its features were made: encoder, weights, pooling and so on.

        This is the provenance of the current features or, if none are loaded, of the features that
        the saved model was trained on. "trained" describes the training of an encoder.
        """
        made = getattr(self._item_features, "provenance", None) or self._provenance
        trained: Any = self.encoders.items()
        return {**made, **{n: {**made.get(n, {}), "trained": e.trained} for n, e in trained}}

    @property
    def feature_moments(self) -> dict[str, torch.Tensor]:
        """Modality -> mean and standard deviation (2, d) used to standardize its features."""
        return dict(getattr(self.item_features, "moments", None) or self._moments)

    def set_items(
        self,
        item_features: FeatureSet | None = None,
        *,
        vocabulary: ItemVocabulary | Iterable[Hashable] | None = None,
        encoders: Mapping[str, TrainableEncoder] | None = None,
    ) -> Self:
        """Set the catalogue of a model that was created without items.

        Args:
            item_features: content tokens and item ids.
            vocabulary: the item ids, for a model that uses only IDs. Together with features, it
                selects and orders the items.
            encoders: modality -> encoder to train with the model.

        Returns:
            The model itself.

        Raises:
            ValueError: if nothing is given, the catalogue is already set, an id of `vocabulary` has
                no features, or an encoder does not fit the features.
        """
        if self.item_encoder is not None:
            raise ValueError("the items of this model are already set: create a new model")
        check_feature_set(item_features)
        check_encoders(encoders or {}, item_features)
        if vocabulary is not None and not isinstance(vocabulary, ItemVocabulary):
            vocabulary = ItemVocabulary(vocabulary)
        if item_features is not None and vocabulary not in (None, item_features.vocabulary):
            item_features = item_features.select(vocabulary)
        if item_features is not None:
            vocabulary = item_features.vocabulary
        if vocabulary is None:
            raise ValueError("nothing given: pass item_features=, or vocabulary= for IDs alone")
        self._build(vocabulary, item_features.widths if item_features is not None else {})
        self.encoders.update(encoders or {})
        if item_features is not None:
            attach_encoders(self.encoders, item_features, self.device)
        self._item_features = item_features
        return self

    def add_items(self, item_features: FeatureSet) -> Self:
        """Add items to the catalogue of a trained model, so that they can be recommended.

        Nothing is trained. A new item is represented by its content and by the unknown-ID vector,
        which replaces its ID. Training with `ODMTConfig(id_dropout=...)` trains this vector and
        teaches the content to represent an item alone; otherwise the vector is zero. The model may
        have been loaded without features. `save_pretrained` saves the new items.

        The table of IDs becomes a new parameter: create a new optimizer before further training.
        Items with a count in `set_item_popularity`, or in the training data of `fit`, then get
        their own ID.

        Args:
            item_features: content tokens and ids of the new items, with the modalities and widths
                of the model, extracted in the same way as in training. Raw features are
                standardized with the moments of the model, if it has moments. If an encoder is
                trained with the model, call `model.encoders["text"].add_items(table)` first.

        Returns:
            The model itself. The rows of the new items follow the existing ones.

        Raises:
            ValueError: if the model has no items or represents them only by IDs, its fusion cannot
                grow, an id is already in the catalogue, modalities or widths differ, or the
                features were prepared in another way.
        """
        check_feature_set(item_features)
        vocabulary, encoder, _ = self._items()
        growing = check_new_items(item_features, vocabulary, self.feature_widths, encoder)
        item_features = prepare_like(
            item_features, self._preparation(), reader="the model", stacklevel=3
        )
        kept = self._catalogue.kept(self._item_modules(), self._item_features)
        if kept is None and self._item_features is None:
            kept = self.encode_catalogue()  # cannot be made: says why
        joined = None
        if self._item_features is not None:
            joined = JoinedFeatures.of_prepared(self._item_features, item_features)
            attach_encoders(self.encoders, joined, self.device)
        old, new = len(vocabulary), len(item_features.vocabulary)
        growing.add_items(new)
        self.vocabulary = ItemVocabulary([*vocabulary, *item_features.vocabulary])
        log_q = self.item_log_probability
        self.item_log_probability = torch.cat([log_q, log_q[1:].min().expand(new)])
        self.popularity_is_set = False  # it was that of fewer items
        self._item_features = joined
        if self._item_to_item is not None:
            self._item_to_item = self._item_to_item.with_new_items(new)
        if kept is not None:
            added = encode_in_batches(
                self._item_modules(),
                lambda rows: encoder(
                    rows + old, with_trained(self.encoders, item_features.gather(rows), rows + old)
                ),
                new,
            )
            grown = {source: torch.cat([kept[source], added[source][1:]]) for source in kept}
            self._catalogue.keep(self._item_modules(), self._item_features, grown)
        return self

    def set_item_popularity(self, popularity: torch.Tensor) -> Self:
        """Set how often items occur in the training data.

        Frequent items are candidates more often, so the log of their probability is subtracted from
        their logits in training (logQ correction). Items that do not occur are cold: except in
        training, the unknown-ID vector replaces their IDs, see `add_items`. `fit` and `ODMTTrainer`
        count their training data, unless this method was called before; counts that you set are
        kept. Without counts, all items are equally popular and none is cold.

        Args:
            popularity: (N + 1,) counts or probabilities; entry 0 is ignored. An item with 0 counts
                as the rarest item above 0.

        Returns:
            The model itself.

        Raises:
            ValueError: if the shape is wrong, a value is negative or not finite, or all are zero.

        Source: Yi et al. 2019, https://doi.org/10.1145/3298689.3346996.
        """
        log_q = log_probability(popularity, self.num_items)
        self.item_log_probability.copy_(log_q)
        self._set_unseen(torch.as_tensor(popularity) == 0)
        self.popularity_is_set = True
        return self

    def forward(
        self,
        item_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        epoch: float | None = None,
    ) -> ODMTOutput:
        """Compute the training loss of a batch of sequences.

        Every item except the first of a sequence is the label of the position before it, and all
        items of the batch are candidates. Sequences longer than `max_seq_length + 1` are cut to
        the latest items. Padding is ignored on either side and between items.

        Args:
            item_ids: (B, L) rows in 0..N, of any integer type, padded with 0.
            attention_mask: (B, L), 1 = real; None = 1 where `item_ids` is not 0. Row 0 is always
                padding.
            epoch: epochs completed, as a fraction; 0 is the start of training, when the
                distillation warm-up gives distillation its smallest weight. None = full weight.

        Returns:
            The loss, its parts and the logits.

        Raises:
            ValueError: if the model has no items or no features, a row is outside 0..N, the mask
                holds other values than 0 and 1, or `epoch` is negative.
            TypeError: if `item_ids` is not a tensor.
        """
        _, encoder, backbones = self._items()
        item_ids, mask = left_padded(
            item_ids,
            attention_mask,
            num_items=self.num_items,
            longest=self.max_seq_length + 1,
        )
        last_only = backbones.last_only and not self.config.prefix_augmentation
        scale: float | torch.Tensor = 1.0
        if self.config.gather_candidates and is_distributed():
            shared = share_candidates(item_ids, mask, last_only=last_only)
            item_ids, mask, candidates = shared.item_ids, shared.attention_mask, shared.candidates
            items, scale = shared.gather(self.encode_items(shared.own_item_ids)), shared.scale
        else:
            candidates = in_batch_candidates(item_ids, mask, last_only=last_only)
            items = self.encode_items(candidates.item_ids)
        hidden = {}
        for source in encoder.sources:
            inputs = items[source][candidates.columns[:, :-1]] * mask[:, :-1, None]  # (B, L - 1, D)
            hidden[source] = backbones(  # (P, D)
                inputs,
                mask[:, :-1].long(),
                source,
                item_ids=item_ids[:, :-1],
                positions=candidates.positions,
            )
        chunk = self.config.loss_chunk_size
        if chunk is None or len(candidates.labels) <= chunk:
            found, logits = self._loss(hidden, items, candidates, epoch)
        else:
            found = loss_in_chunks(
                lambda states, part: self._loss(states, items, part, epoch)[0],
                hidden,
                candidates,
                chunk,
            )
            logits = {}
        return ODMTOutput(
            loss=found.loss * scale,
            losses=found.parts,
            logits=logits,
            labels=candidates.labels,
            candidate_ids=candidates.item_ids,
        )

    def _loss(
        self,
        states: Mapping[str, torch.Tensor],
        items: Mapping[str, torch.Tensor],
        candidates: InBatchCandidates,
        epoch: float | None,
    ) -> tuple[LossParts, dict[str, torch.Tensor]]:
        """Loss with its parts, and logits (P, U), of states (P, D) against items (U, D)."""
        logits = {source: values @ items[source].T for source, values in states.items()}
        if self.config.logq_correction:
            log_q = self.item_log_probability[candidates.item_ids]
            logits = {source: values - log_q for source, values in logits.items()}
        found = self.online_distillation_loss(
            logits,
            candidates.labels,
            epoch=epoch,
            log_multiplicity=candidates.log_multiplicity,
            ignore_index=None,
        )
        return found, logits

    def encode_items(self, item_ids: torch.Tensor) -> dict[str, torch.Tensor]:
        """Encode items from their IDs and content.

        Args:
            item_ids: (U,) rows in 0..N.

        Returns:
            Source -> (U, D).

        Raises:
            ValueError: if the model has no items, a row is outside 0..N, or the features were not
                loaded.
        """
        check_rows(item_ids, self.num_items)
        chunk = self.config.item_chunk_size or max(1, len(item_ids))
        recomputed = len(item_ids) > chunk or (self.recomputes_items and self.training)
        if not recomputed or not torch.is_grad_enabled():
            return self._encode_items(item_ids)
        parts = [
            checkpoint(self._encode_items, ids, use_reentrant=False)
            for ids in item_ids.split(chunk)
        ]
        return {source: torch.cat([part[source] for part in parts]) for source in parts[0]}

    def encode_catalogue(self) -> dict[str, torch.Tensor]:
        """Encode every item, in eval mode and without gradients.

        The result is cached until a weight of the item encoder or of a trained content encoder, or
        a feature tensor, changes, or the features are replaced. Changes to a feature tensor through
        `.data`, or through a NumPy array that shares its memory, are not detected.

        Returns:
            Source -> (N + 1, D), row 0 = padding.
        """
        self._items()
        encoders = self._item_modules()
        return self._catalogue.get(
            encoders,
            self._item_features,
            lambda: encode_in_batches(
                encoders, self.encode_items, self.num_items, progress=len(encoders) > 1
            ),
        )

    def content_tokens(self, item_ids: torch.Tensor) -> dict[str, ModalityTokens]:
        """Return the content tokens of items, as the item encoder reads them.

        Args:
            item_ids: (U,) rows in 0..N.

        Returns:
            Modality -> tokens (U, T, d) and lengths (U,): the tokens of `item_features` or, for an
            encoder that is trained, its current tokens, with gradients.

        Raises:
            ValueError: if the model has no items, or the features were not loaded.
        """
        _, encoder, _ = self._items()
        if self._item_features is None:
            raise ValueError(
                f"the features of {list(encoder.modalities)} are not loaded: pass item_features= "
                "to from_pretrained to train this adapter or to encode its items again"
            )
        return with_trained(self.encoders, self._item_features.gather(item_ids), item_ids)

    def encoded_features(self, dtype: torch.dtype = torch.float16) -> ItemFeatures:
        """Encode the content tokens of the whole catalogue as plain features in memory.

        Pass them to `from_pretrained(..., item_features=...)` if a trained encoder is not
        available: the model can then be trained further on the current tokens of the encoder.

        Args:
            dtype: dtype of the tokens.

        Returns:
            Frozen features, standardized as the model reads them.

        Raises:
            ValueError: if the model has no items, or the features were not loaded.
        """
        vocabulary, _, _ = self._items()
        with evaluating(*self._item_modules()):
            return encoded_features(
                vocabulary,
                self.content_tokens,
                self.feature_provenance,
                self.feature_moments,
                device=self.device,
                dtype=dtype,
            )

    def encode_sequences(
        self,
        item_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        item_embeddings: Mapping[str, torch.Tensor] | None = None,
    ) -> dict[str, torch.Tensor]:
        """Encode sequences by the state at their last item.

        With `item_embeddings`, the method can be exported by `torch.export`, for batches of any
        size. Rows and masks are not checked then.

        Args:
            item_ids: (B, L) rows, of any integer type, padded with 0 anywhere; longer sequences are
                cut to their latest `max_seq_length` items.
            attention_mask: (B, L), 1 = real; None = 1 where `item_ids` is not 0. Row 0 is always
                padding.
            item_embeddings: source -> (N + 1, D) from `encode_catalogue`; None = encode the items
                of the batch.

        Returns:
            Source -> (B, D).

        Raises:
            ValueError: if the model has no items, a row is outside 0..N, the mask holds other
                values than 0 and 1, or a sequence is empty.
            TypeError: if `item_ids` is not a tensor.
        """
        _, encoder, backbones = self._items()
        item_ids, mask = left_padded(
            item_ids, attention_mask, num_items=self.num_items, longest=self.max_seq_length
        )
        check_none_empty(mask)
        columns = item_ids
        if item_embeddings is None:
            distinct, columns = torch.unique(item_ids, return_inverse=True)
            item_embeddings = self.encode_items(distinct)
        users, slots = item_ids.shape
        # sequences end with their last item
        positions = torch.arange(1, users + 1, device=item_ids.device) * slots - 1
        encoded = {}
        for source in encoder.sources:
            inputs = item_embeddings[source][columns] * mask[..., None]  # (B, L, D)
            encoded[source] = backbones(
                inputs,
                mask.long(),
                source,
                item_ids=item_ids,
                positions=positions,
                one_each=True,
            )
        return encoded

    def recommend(
        self,
        histories: Histories,
        k: int = 10,
        *,
        items: Choice | None = None,
        exclude: Choice | None = None,
        exclude_seen: bool = True,
        unknown: Literal["error", "skip"] = "error",
        popularity: Popularity | None = None,
        popularity_weight: float = 4.0,
        rerank: Reranker | None = None,
        candidates: int = 100,
        source_weights: Mapping[str, float] | None = None,
        batch_size: int = 256,
    ) -> Recommendations:
        """Recommend the next items for histories.

        The score of an item is the weighted mean over sources of the inner products of the
        history's state and the item's embedding, plus the score of `item_to_item`, if the model has
        it. Higher is better; a score is not a probability. Items with equal scores come in the
        order of the catalogue.

        Args:
            histories: item ids of each user, oldest first, as a list, tensor, array or series; only
                the latest `max_seq_length` are read.
            k: number of items to recommend.
            items: candidate items: item ids for all users, or a list, set or array per user. None =
                the whole catalogue. `exclude_seen` applies to them too.
            exclude: items to exclude: item ids for all users, or a list per user.
            exclude_seen: whether to exclude all items of the history.
            unknown: what to do with item ids that are not in the vocabulary: "skip" ignores them,
                "error" raises.
            popularity: counts of the items, for an adapter that was not trained on this catalogue:
                (N + 1,) counts by row, or item id -> count. They replace the popularity that the
                adapter has learned: the mean score of an item over random histories of similar
                length is subtracted, and the log of its count is added. Scores are then in standard
                deviations of a user's scores.
            popularity_weight: weight of one standard deviation of log(1 + count), in standard
                deviations of a user's scores.
            rerank: re-ranks the best `candidates` items of each history, for example
                `MaximalMarginalRelevance`: `(rows (B, M), scores (B, M)) -> indices (B, M)`.
            candidates: number of items to re-rank.
            source_weights: source -> weight in the mean over sources, at least 0, such as
                `{"id": 0.0}` to recommend without the source "id"; sources that are not named have
                the weight of the model. None = the weights of the model, `model.source_weights`.
            batch_size: histories scored at once.

        Returns:
            Item ids and scores, best first; fewer than k if not enough items are left.

        Raises:
            ValueError: if k or `batch_size` is below 1, a history is empty, an item id is unknown,
                `items` is empty, or `source_weights` has an unknown source, a negative weight or
                only zeros.
            TypeError: if k or `batch_size` is not an integer, or a weight is not a number.

        Examples:
            >>> model.recommend([["mug"]], k=5, items=["lamp", "vase"])         # doctest: +SKIP
            >>> model.recommend([["mug"], ["lamp"]], exclude=[["vase"], []])    # doctest: +SKIP
            >>> model.recommend([["mug"]], source_weights={"id": 0, "image": 2})    # doctest: +SKIP
        """
        vocabulary, _, _ = self._items()
        return recommend(
            self,
            vocabulary,
            histories,
            k=k,
            items=items,
            exclude=exclude,
            exclude_seen=exclude_seen,
            unknown=unknown,
            popularity=popularity,
            popularity_weight=popularity_weight,
            rerank=rerank,
            candidates=candidates,
            source_weights=source_weights,
            batch_size=batch_size,
        )

    def recommend_iter(
        self, histories: Histories, k: int = 10, **settings: Any
    ) -> Iterator[tuple[list[Hashable], list[float]]]:
        """Recommend items for a stream of histories, which is read one batch at a time.

        Args:
            histories: any iterable of histories, such as a generator over a file.
            k: number of items to recommend.
            **settings: as for `recommend`; `items` and `exclude` apply to all histories.

        Yields:
            Item ids and scores of each history, best first.

        Raises:
            ValueError: as `recommend`, when the history is reached.

        Examples:
            >>> for item_ids, scores in model.recommend_iter(stream, k=5):      # doctest: +SKIP
            ...     save(item_ids)
        """
        vocabulary, _, _ = self._items()
        return recommend_iter(self, vocabulary, histories, k=k, **settings)

    def score(
        self,
        histories: Histories,
        items: Iterable[Hashable],
        *,
        unknown: Literal["error", "skip"] = "error",
        source_weights: Mapping[str, float] | None = None,
        batch_size: int = 256,
    ) -> torch.Tensor:
        """Score given items for histories.

        Args:
            histories: item ids of each user, oldest first.
            items: M item ids, the same for all users.
            unknown: what to do with unknown ids in the histories, as for `recommend`; unknown ids
                in `items` always raise.
            source_weights: source -> weight in the mean over sources, as for `recommend`.
            batch_size: histories scored at once.

        Returns:
            (B, M) scores on the CPU, as in `recommend`.

        Raises:
            ValueError: if a history is empty, an item id is unknown, or `source_weights` does not
                fit.
        """
        vocabulary, _, _ = self._items()
        return score_items(
            self,
            vocabulary,
            histories,
            items,
            unknown=unknown,
            source_weights=source_weights,
            batch_size=batch_size,
        )

    def similar_items(
        self, item_ids: Iterable[Hashable], k: int = 10, source: str | None = None
    ) -> Recommendations:
        """Find the items with the most similar embeddings, by cosine similarity.

        Args:
            item_ids: items of the catalogue.
            k: number of items to find for each item; the item itself is not among them.
            source: the source whose embeddings are compared; None = all sources, concatenated.

        Returns:
            Item ids and cosine similarities for each item, best first.

        Raises:
            ValueError: if k is below 1, or an id or the source is unknown.

        Examples:
            >>> model.similar_items(["mug"], k=3, source="text").item_ids       # doctest: +SKIP
            [['cup', 'teapot', 'bowl']]
        """
        vocabulary, _, _ = self._items()
        return similar_items(self, vocabulary, item_ids, k=k, source=source)

    def item_vectors(self) -> torch.Tensor:
        """The concatenated item embeddings of all sources, as in an index.

        Returns:
            (N + 1, S * D) float32 on the CPU, row 0 = padding.
        """
        return item_vectors(self)

    def encode_histories(
        self,
        histories: Histories,
        *,
        unknown: Literal["error", "skip"] = "error",
        source_weights: Mapping[str, float] | None = None,
        batch_size: int = 256,
    ) -> torch.Tensor:
        """Encode histories as query vectors for an index of `item_vectors`.

        Args:
            histories: item ids of each user, oldest first.
            unknown: what to do with item ids that are not in the vocabulary: "skip" ignores them,
                "error" raises.
            source_weights: source -> weight in the mean over sources, as for `recommend`.
            batch_size: histories encoded at once.

        Returns:
            (B, S * D) float32 on the CPU. The inner product with a row of `item_vectors` is the
            score of `recommend`, without item-to-item counts.

        Raises:
            ValueError: if a history is empty, an item id is unknown, or `source_weights` does not
                fit.
        """
        vocabulary, _, _ = self._items()
        return history_vectors(
            self,
            vocabulary,
            histories,
            unknown=unknown,
            source_weights=source_weights,
            batch_size=batch_size,
        )

    def export_index(
        self,
        path: str | Path,
        *,
        library: Literal["faiss", "usearch", "hnswlib"] = "faiss",
        approximate: bool = False,
        settings: dict[str, int] | None = None,
    ) -> "ItemIndex":
        """Write the catalogue as a nearest-neighbour index, which can be opened without torch.

        The index ranks only by inner products of embeddings. It does not contain item-to-item
        counts; a warning is given if the model has them.

        Args:
            path: the folder to create, or a folder with an index, which is replaced.
            library: the index library to use; each is an extra of the package.
            approximate: whether to build an approximate index (an HNSW graph), for large
                catalogues.
            settings: settings of the graph: "links" per item, and the number of candidates at
                "construction" and at "search".

        Returns:
            The index; `ItemIndex.open(path)` opens it again.

        Raises:
            ImportError: if the library is not installed.
            TypeError: if an item id is neither a string nor an integer.
            ValueError: if a setting is unknown, or the folder contains something else.

        Examples:
            >>> index = model.export_index("my-index")                          # doctest: +SKIP
            >>> vectors = model.encode_histories(histories)                     # doctest: +SKIP
            >>> index.search(vectors, k=10, exclude=histories)                  # doctest: +SKIP
        """
        from odmt_sdk.indexes.build import build_index

        if self.item_to_item_weight:
            warnings.warn(
                "an index ranks only by embeddings, so it lacks the item-to-item counts of this "
                f"model (item_to_item_weight={self.item_to_item_weight:.3g}): use model.recommend "
                "or export_user_encoder for them, or set model.item_to_item_weight = 0",
                UserWarning,
                stacklevel=2,
            )
        vocabulary, _, _ = self._items()
        return build_index(
            path,
            list(vocabulary),
            self.item_vectors()[1:].numpy(),
            library=library,
            approximate=approximate,
            settings=settings,
        )

    def catalogue_fingerprint(self) -> str:
        """A fingerprint of the item vectors, for `ItemIndex.open(fingerprint=)`."""
        from odmt_sdk.indexes.build import fingerprint

        return fingerprint(self.item_vectors()[1:].numpy())

    def unwrap_backbone(self, source: str = "id") -> nn.Module:
        """Return the trained backbone of a source, without its bridge.

        Args:
            source: one of `sources`.

        Returns:
            A module of the user's own class. A model that looks up item ids in its own table is a
            copy, whose table holds the item embeddings of this source by rows of `vocabulary`. All
            other backbones are the modules of this model, not copies; transformers models have no
            token embedding and head.

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
        """Freeze the weights of the user's modules.

        Call it before you create an optimizer. Linear layers of `project_backbone` stay trainable.

        Args:
            frozen: True freezes the weights, False unfreezes them.

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
        self,
        *,
        learning_rate: float,
        backbone_learning_rate: float,
        encoder_learning_rate: float | None = None,
    ) -> list[dict[str, Any]]:
        """Return parameter groups for an optimizer, with a separate learning rate for backbones.

        Args:
            learning_rate: learning rate of the item encoder.
            backbone_learning_rate: learning rate of the backbones.
            encoder_learning_rate: learning rate of trained content encoders; None =
                `learning_rate`.

        Returns:
            Two groups, and a third one if content encoders are trained. Frozen parameters are left
            out.

        Raises:
            ValueError: if the model has no items.

        Examples:
            >>> groups = model.parameter_groups(                                # doctest: +SKIP
            ...     learning_rate=1e-3, backbone_learning_rate=1e-5)
            >>> torch.optim.AdamW(groups)                                       # doctest: +SKIP
        """
        _, encoder, backbones = self._items()
        parts: list[tuple[nn.Module, float]] = [
            (encoder, learning_rate),
            (backbones, backbone_learning_rate),
        ]
        if len(self.encoders):
            rate = learning_rate if encoder_learning_rate is None else encoder_learning_rate
            parts.append((self.encoders, rate))
        return [
            {"params": [p for p in part.parameters() if p.requires_grad], "lr": rate}
            for part, rate in parts
        ]

    def activation_checkpointing_enable(
        self,
        activation_checkpointing_kwargs: Mapping[str, Any] | None = None,
        every_n_layers: int = 1,
        offload: bool = False,
    ) -> None:
        """Enable activation checkpointing: less memory, but slower training.

        The results do not change. The item encoder recomputes its activations as a whole, or in
        chunks of `item_chunk_size`. Backbones that support it, such as transformers models,
        recompute layer by layer; others recompute as a whole. `transformers.Trainer` calls this
        method for `activation_checkpointing=True` or `gradient_checkpointing=True` in its
        arguments.

        Args:
            activation_checkpointing_kwargs: only `{"use_reentrant": False}`, which is the default.
            every_n_layers: only 1.
            offload: only False.

        Raises:
            ValueError: if the model has no items, or an argument has another value.
        """
        asked = dict(activation_checkpointing_kwargs or {})
        if asked.pop("use_reentrant", False) or asked or every_n_layers != 1 or offload:
            raise ValueError(
                "gradient checkpointing supports only use_reentrant=False here: leave out "
                f"{dict(activation_checkpointing_kwargs or {})}, every_n_layers and offload"
            )
        self._items()[2].recompute(True)
        self.recomputes_items = True

    def activation_checkpointing_disable(self) -> None:
        """Disable activation checkpointing."""
        self._items()[2].recompute(False)
        self.recomputes_items = False

    def gradient_checkpointing_enable(
        self, gradient_checkpointing_kwargs: Mapping[str, Any] | None = None
    ) -> None:
        """The older name of `activation_checkpointing_enable` in transformers.

        Args:
            gradient_checkpointing_kwargs: `activation_checkpointing_kwargs` of that method.
        """
        self.activation_checkpointing_enable(gradient_checkpointing_kwargs)

    def gradient_checkpointing_disable(self) -> None:
        """The older name of `activation_checkpointing_disable` in transformers."""
        self.activation_checkpointing_disable()

    def save_pretrained(
        self,
        path: str | Path,
        *,
        content_only: bool = False,
        item_embeddings: bool = True,
        backbone_weights: bool = True,
        max_shard_size: int | str = "5GB",
        is_main_process: bool = True,
        state_dict: Mapping[str, torch.Tensor] | None = None,
        repo_id: str | None = None,
    ) -> Path:
        """Save the adapter: configuration, weights, item ids, item embeddings and a model card.

        An adapter in the folder is replaced; other files are kept. If the process is killed, the
        folder contains the complete old adapter or the complete new one.

        Args:
            path: the folder to write to; it is created if needed.
            content_only: whether to leave out everything that belongs to single items, including
                their ids, for `from_pretrained(..., transfer=True)` into another catalogue.
            item_embeddings: whether to save the embeddings of all items, which a model without
                features needs to recommend. They are not saved with `content_only` or `state_dict`,
                or if the weights are spread over processes.
            backbone_weights: whether to save the weights of the user's own modules. Without them,
                loading needs a backbone with its trained weights.
            max_shard_size: larger weights are split into files of this size.
            is_main_process: whether this process writes. If the weights are spread over processes
                (FSDP), all processes must call this method, and one of them writes.
            state_dict: weights that were collected elsewhere, such as by
                `accelerator.get_state_dict`.
            repo_id: repository in the loading code of the model card; None = the folder.

        Returns:
            The folder.

        Raises:
            AdapterError: if the model has no items, an item id is neither a string nor an integer,
                `path` contains something other than an adapter, or writing fails.
        """
        return save_adapter(
            self,
            path,
            content_only=content_only,
            item_embeddings=item_embeddings,
            backbone_weights=backbone_weights,
            max_shard_size=max_shard_size,
            is_main_process=is_main_process,
            state_dict=state_dict,
            repo_id=repo_id,
        )

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | bool | None = None,
        commit_message: str = "Upload adapter",
        commit_description: str | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        subfolder: str = "",
        **saving: Any,
    ) -> "CommitInfo":
        """Save the adapter and push it to the Hugging Face Hub, as one commit.

        Files of the previous adapter in the repository are removed. Other files are kept, including
        a model card that was written by hand.

        Args:
            repo_id: name such as "me/my-adapter", or "my-adapter" for the account's namespace. The
                repository is created if it does not exist.
            private: whether a new repository is private.
            token: access token; None = the token of the account that is logged in.
            commit_message: first line of the commit message, or title of the pull request.
            commit_description: rest of the commit message.
            revision: branch, which is created if it does not exist; None = the main branch.
            create_pr: whether to open a pull request instead of committing to the branch.
            subfolder: path of the adapter in the repository; "" = its top level.
            **saving: as for `save_pretrained`.

        Returns:
            The commit, with `commit_url`, and `pr_url` for a pull request.

        Raises:
            AdapterError: if the model cannot be saved, or the Hub rejects the push or cannot be
                reached.
        """
        with TemporaryDirectory() as folder:
            # saved before anything is created on the Hub, and again with the full repository name
            self.save_pretrained(folder, repo_id=repo_id, **saving)
            full_name = make_repository(repo_id, private=private, token=token)
            if full_name != repo_id:
                self.save_pretrained(folder, repo_id=full_name, **saving)
            return push_folder(
                Path(folder),
                full_name,
                token=token,
                commit_message=commit_message,
                commit_description=commit_description,
                revision=revision,
                create_pr=create_pr,
                subfolder=subfolder,
            )

    @classmethod
    @renamed_argument("adapter", "bridge")
    def from_pretrained(
        cls,
        path: str | Path,
        backbone: Any = None,
        item_features: FeatureSet | None = None,
        *,
        bridge: str | BridgeBuilder | None = None,
        forward_fn: Callable[..., Any] | None = None,
        encoders: Mapping[str, TrainableEncoder] | None = None,
        transfer: bool = False,
        freeze: bool = False,
        training_settings: Mapping[str, Any] | None = None,
        map_location: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        allow_non_finite: bool = False,
        subfolder: str = "",
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
    ) -> Self:
        """Load an adapter. Nothing in it is executed.

        Args:
            path: a folder written by `save_pretrained`, a repository on the Hugging Face Hub, or
                "shipped:..." for an adapter that comes with the package (`shipped_adapters`).
            backbone: a backbone built like the one that was wrapped; its weights come from the
                adapter. None = create it, if it is a built-in backbone.
            item_features: content tokens, joined to the saved items by id. Without them, the model
                recommends from its saved item embeddings but cannot be trained. They must come from
                the same encoders with the same pooling as in training. Raw features are
                standardized with the saved moments, if the model was trained on standardized ones.
            bridge: as when the backbone was wrapped.
            forward_fn: as when the backbone was wrapped.
            encoders: modality -> encoder to train further. It must have the same base encoder and
                LoRA settings as in training, and receives the saved LoRA weights. Without it, the
                model recommends from its saved item embeddings.
            transfer: whether to take only the weights that do not belong to single items, for the
                catalogue of `item_features`. IDs start from scratch, at the unknown-ID vector if it
                was trained. So do the parts that read modalities or feature widths that the adapter
                does not have. `transfer_report` lists the weights that were taken. If the adapter
                was trained on standardized features, standardize yours with the moments of their
                own catalogue (`item_features.standardize()`).
            freeze: with `transfer`, whether to freeze the transferred weights.
            training_settings: settings of `ODMTConfig` for further training that replace the saved
                ones, such as `{"id_dropout": 0.0}`. The weights must not depend on them.
            map_location: device of the model; None = the device of the backbone.
            dtype: floating-point type of the weights; None = as saved.
            allow_non_finite: whether to accept weights that are NaN or infinite.
            subfolder: path of the adapter in the folder or repository.
            revision: branch, tag or commit of the repository.
            token: access token for a private repository; None = the token of the account that is
                logged in.
            cache_dir: folder for downloads; None = the default cache of huggingface_hub.
            local_files_only: whether to use only files that were downloaded before.
            force_download: whether to download files again that were downloaded before.

        Returns:
            The model, in eval mode.

        Raises:
            AdapterError: if there is no adapter, the adapter is damaged, it does not fit the
                backbone or the features, the features were prepared in another way, or the Hub
                rejects the request.
            ValueError: if `transfer` is given without features, `freeze` without `transfer`, or a
                training setting is unknown or invalid.
        """
        if freeze and not transfer:
            raise ValueError("freeze=True needs transfer=True: it freezes the transferred weights")
        check_feature_set(item_features)
        check_encoders(encoders or {}, item_features)
        if transfer and item_features is None:
            raise ValueError("transfer=True needs item_features= of the other catalogue")
        ODMTConfig().trained_with(training_settings or {})  # refused before anything is downloaded
        options = HubOptions(
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            force_download=force_download,
        )
        return load_adapter(
            cls,
            locate(path, subfolder, options, item_embeddings=item_features is None),
            name=str(path),
            backbone=backbone,
            item_features=item_features,
            calling={"bridge": bridge, "forward_fn": forward_fn},
            encoders=encoders or {},
            transfer=transfer,
            freeze=freeze,
            training_settings=training_settings or {},
            map_location=map_location,
            dtype=dtype,
            allow_non_finite=allow_non_finite,
        )

    def _fitting(self, item_features: FeatureSet, vocabulary: ItemVocabulary) -> FeatureSet:
        """Select features by the model's rows, and check their modalities and widths."""
        widths = getattr(item_features, "widths", self.feature_widths)
        if widths != self.feature_widths:
            raise ValueError(
                f"the model reads features {self.feature_widths} (values per token), got {widths}: "
                "extract them with the encoders of the old features"
            )
        if getattr(item_features, "vocabulary", vocabulary) == vocabulary:
            return item_features
        return item_features.select(vocabulary)

    def _preparation(self) -> Preparation:
        """The preparation of the features that the model was trained on."""
        provenance = getattr(self.item_features, "provenance", None) or self._provenance
        known = hasattr(self.item_features, "moments")
        return Preparation(provenance, self.feature_moments, self.feature_widths, known)

    def _set_unseen(self, unseen: torch.Tensor) -> None:
        """Mark the cold items (N + 1,), if the item encoder can represent them."""
        encoder = self.item_encoder
        if isinstance(encoder, GrowingItemEmbedder):
            unseen = unseen.to(encoder.unseen.device)
            unseen[0] = False  # padding
            if not torch.equal(unseen, encoder.unseen):
                encoder.set_unseen(unseen)
                self._catalogue.forget()

    def _build(self, vocabulary: ItemVocabulary, widths: Mapping[str, int]) -> None:
        """Create item encoder and backbones, on the device of the user's model."""
        template = cast(BackboneTemplate, self._template)  # there until the items are set
        encoder = build_item_encoder(self.config, len(vocabulary), self.hidden_size, widths)
        sources = encoder.sources
        check_source_weights(sources, dict(self.config.source_weights or ()))
        made = template.make(sources, share=self.config.share_backbone)
        self._template = None  # the user's own object is needed no more
        scale = self.hidden_size**0.5 if self.config.scale_inputs else 1.0
        self.backbones = SourceBackbones(made, input_scale=scale)
        self.vocabulary, self.feature_widths = vocabulary, dict(widths)
        self.item_encoder = encoder.to(device=template.like.device, dtype=self._added_dtype)
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
        return self.vocabulary, self.item_encoder, self.backbones

    def _encode_items(self, item_ids: torch.Tensor) -> dict[str, torch.Tensor]:
        _, encoder, _ = self._items()
        if not encoder.modalities:
            return encoder(item_ids)
        return encode_by_length(encoder, item_ids, self.content_tokens(item_ids))

    def _item_modules(self) -> list[nn.Module]:
        """The modules that item embeddings depend on, the item encoder first."""
        return [self._items()[1], *self.encoders.values()]

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        """What `to`, `half`, `cuda` and the like call; complex numbers stay complex."""
        # torch does not type it
        moved: Self = super()._apply(keeping_complex(fn), recurse)  # type: ignore[no-untyped-call]
        return moved

    def _replicate_for_data_parallel(self) -> Self:
        raise ValueError(
            "nn.DataParallel would split the batch, but all items of a batch are candidates: start "
            "one process for each GPU (torchrun, accelerate launch) and use "
            "DistributedDataParallel, with ODMTConfig(gather_candidates=True) for shared "
            "candidates. The model itself is .module of the DataParallel"
        )
