"""`ODMTWrapper`: any sequence backbone, multi-modal items, online distillation.

Letters: B users, L slots of a sequence, P valid positions, U distinct items of a batch, N items,
S sources, D hidden size.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, cast

import torch
from torch import nn

from odmt_sdk.backbones.hidden_size import infer_hidden_size
from odmt_sdk.backbones.per_source import SourceBackbones
from odmt_sdk.config import ODMTConfig, check_heads
from odmt_sdk.errors import AdapterError
from odmt_sdk.hub.adapter_folder import AdapterFiles, read_adapter, write_adapter
from odmt_sdk.hub.weights import check_weights
from odmt_sdk.items.features import ItemFeatures
from odmt_sdk.items.fusion import ItemEmbedder, build_item_encoder
from odmt_sdk.losses.in_batch import in_batch_candidates
from odmt_sdk.losses.mixin import OnlineDistillationMixin
from odmt_sdk.outputs import ODMTOutput, Recommendations
from odmt_sdk.retrieval.catalogue import CatalogueCache, encode_in_batches
from odmt_sdk.retrieval.recommend import recommend
from odmt_sdk.vocabulary import ItemVocabulary

DEFAULT_MAX_SEQ_LENGTH = 50


class ODMTWrapper(OnlineDistillationMixin, nn.Module):
    """Turns a sequence backbone into an ODMT recommender.

    Every item gets one embedding per source (its ID and each modality), one copy of the backbone
    per source reads the sequences, the sources' predictions teach one another while training, and
    their scores are averaged when recommending. The backbone passed in is copied, never changed.

    Without `item_features` (and without `vocabulary` for a model of IDs alone) the wrapper waits
    for `set_items`; call it before making an optimizer.

    Args:
        backbone: module `(inputs_embeds (B, L, D), attention_mask (B, L)) -> (B, L, D)`, causal.
        item_features: content tokens of the catalogue, and its item ids.
        config: settings; None = `ODMTConfig()`.
        vocabulary: the item ids, where there are no features.
        hidden_size: D; None = `config.hidden_size`, else the backbone's own.

    Raises:
        TypeError: if the backbone is no `nn.Module`.
        ValueError: if the hidden size cannot be told, or does not fit.

    Source: https://arxiv.org/abs/2308.04067.

    Example:
        >>> from odmt_sdk import ItemFeatures, SASRec
        >>> features = ItemFeatures.from_tensors(text=torch.randn(10, 7, 16))
        >>> model = ODMTWrapper(backbone=SASRec(hidden_size=8), item_features=features)
        >>> model(torch.tensor([[0, 3, 1, 2], [4, 5, 6, 7]])).loss.backward()
        >>> model.recommend([[3, 1], [4]], k=2).item_ids        # doctest: +SKIP
        [[2, 7], [5, 6]]
    """

    item_log_probability: torch.Tensor

    def __init__(
        self,
        backbone: nn.Module,
        item_features: ItemFeatures | None = None,
        config: ODMTConfig | None = None,
        *,
        vocabulary: ItemVocabulary | Iterable[Hashable] | None = None,
        hidden_size: int | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(backbone, nn.Module):
            raise TypeError(
                f"backbone must be a torch.nn.Module, got {type(backbone).__name__}: pass an "
                "instance, such as SASRec(hidden_size=64)"
            )
        self.config = config or ODMTConfig()
        self.hidden_size = hidden_size or self.config.hidden_size or infer_hidden_size(backbone)
        if self.config.fusion == "odmt":
            check_heads(self.hidden_size, self.config.num_heads)
        self.max_seq_length = self.config.max_seq_length or int(
            getattr(backbone, "max_seq_length", None) or DEFAULT_MAX_SEQ_LENGTH
        )
        self.teaching_graph = self.config.teaching_graph
        self.distillation_temperature = self.config.distillation_temperature
        self.distillation_weight = self.config.distillation_weight
        self.distillation_warmup_epochs = self.config.distillation_warmup_epochs
        self.detach_teacher = self.config.detach_teacher

        self.vocabulary: ItemVocabulary | None = None
        self.item_features: ItemFeatures | None = None
        self.item_encoder: nn.Module | None = None
        self.backbones: SourceBackbones | None = None
        self._template = (backbone,)  # in a tuple, so that it is no sub-module
        self._catalogue = CatalogueCache()
        if item_features is not None or vocabulary is not None:
            self.set_items(item_features, vocabulary=vocabulary)

    # ---------------------------------------------------------------- the catalogue

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

    def set_item_popularity(self, popularity: torch.Tensor) -> Self:
        """Tell how often items occur in the training data, for the logQ correction.

        Frequent items stand among the candidates of a batch more often; the log of their
        probability is subtracted from their logits while training. Without this call all items
        count as equally popular.

        Args:
            popularity: (N + 1,) counts or probabilities, entry 0 ignored; an item never seen counts
                as the rarest one seen.

        Returns:
            The model itself.

        Raises:
            ValueError: if the shape is wrong, a value is negative or not finite, or all are zero.

        Source: Yi et al. 2019, https://doi.org/10.1145/3298689.3346996.
        """
        counts = torch.as_tensor(popularity).detach().to("cpu", torch.float64)
        if counts.shape != (self.num_items + 1,):
            raise ValueError(
                f"popularity has shape {tuple(counts.shape)}, {self.num_items} items need "
                f"({self.num_items + 1},): one value per row, row 0 is padding"
            )
        counts = counts[1:]
        if not bool(counts.isfinite().all()) or bool((counts < 0).any()) or not bool(counts.any()):
            raise ValueError("popularity must be finite, not negative, and not zero everywhere")
        counts = counts.clamp(min=float(counts[counts > 0].min()))
        log_probability = (counts / counts.sum()).log()
        self.item_log_probability[1:] = log_probability.to(self.item_log_probability)
        return self

    # ---------------------------------------------------------------- training

    def forward(
        self,
        item_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        epoch: float = 0.0,
    ) -> ODMTOutput:
        """Compute the training loss of a batch of sequences.

        Every item but the first of a sequence is the label of the position before it, and all
        items of the batch are candidates. Sequences longer than `max_seq_length + 1` are cut to
        the latest items.

        Args:
            item_ids: (B, L) rows in 0..N, left-padded with 0.
            attention_mask: (B, L), 1 = real; None = where `item_ids` is not 0.
            epoch: epochs done, with a fraction; sets how far the distillation warm-up has come.

        Returns:
            The loss, its parts and the logits.

        Raises:
            ValueError: if the model has no items or no features, or a row is outside 0..N.
        """
        _, encoder, backbones = self._items()
        if self.training and self.item_features is not None:
            self._catalogue.clear()  # weights are about to change
        item_ids, mask = self._check_sequences(item_ids, attention_mask, self.max_seq_length + 1)
        candidates = in_batch_candidates(item_ids, mask)
        items = self.encode_items(candidates.item_ids)
        logits = {}
        for source in encoder.sources:
            inputs = items[source][candidates.columns[:, :-1]] * mask[:, :-1, None]  # (B, L - 1, D)
            hidden = backbones(inputs, mask[:, :-1].long(), source)[candidates.valid]  # (P, D)
            logits[source] = hidden @ items[source].T  # (P, U)
            if self.config.logq_correction:
                logits[source] = logits[source] - self.item_log_probability[candidates.item_ids]
        loss, parts = self.online_distillation_loss(
            logits, candidates.labels, epoch=epoch, log_multiplicity=candidates.log_multiplicity
        )
        return ODMTOutput(
            loss=loss,
            losses=parts,
            logits=logits,
            labels=candidates.labels,
            candidate_ids=candidates.item_ids,
        )

    # ---------------------------------------------------------------- inference

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

        The result is kept until a weight of the item encoder changes or a training step is made.
        Writing through `parameter.data` outside of a training step is not noticed.

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

    def recommend(
        self,
        histories: Sequence[Sequence[Hashable]],
        k: int = 10,
        *,
        exclude_seen: bool = True,
        unknown: Literal["error", "skip"] = "error",
        batch_size: int = 256,
    ) -> Recommendations:
        """Recommend the next items of some histories.

        Args:
            histories: for each user the item ids, oldest first; only the latest `max_seq_length`
                are read.
            k: how many items to recommend.
            exclude_seen: leave out the items of the history, all of it.
            unknown: "skip" leaves item ids out that are not in the vocabulary, "error" raises.
            batch_size: histories scored at once.

        Returns:
            Item ids and scores, best first; fewer than k where the catalogue has no more.

        Raises:
            ValueError: if k is out of range, a history is empty, or an item id is unknown.
        """
        vocabulary, _, _ = self._items()
        return recommend(
            self,
            vocabulary,
            histories,
            k=k,
            exclude_seen=exclude_seen,
            unknown=unknown,
            batch_size=batch_size,
        )

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

    # ---------------------------------------------------------------- saving and loading

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
        resolved = {"hidden_size": self.hidden_size, "max_seq_length": self.max_seq_length}
        description = {
            "model": {**self.config.to_dict(), **resolved},
            "modalities": self._widths,
            "backbone": type(self._template[0]).__name__,
        }
        files = AdapterFiles(
            description, self.state_dict(), self.vocabulary, self.encode_catalogue()
        )
        return write_adapter(Path(path), files)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        backbone: nn.Module,
        item_features: ItemFeatures | None = None,
    ) -> Self:
        """Load an adapter.

        Args:
            path: a folder written by `save_pretrained`.
            backbone: a module like the one that was wrapped; its weights are taken from the folder.
            item_features: content tokens, joined to the saved items by id; without them the model
                recommends from its saved item embeddings, but cannot be trained.

        Returns:
            The model, in eval mode.

        Raises:
            AdapterError: if the folder is no adapter or damaged, or does not fit the backbone or
                the features.
        """
        files = read_adapter(Path(path))
        description: dict[str, Any] = files.description
        try:
            config = ODMTConfig.from_dict(description["model"])
            widths = dict(description["modalities"])
            if item_features is not None:
                if item_features.widths != widths:
                    raise AdapterError(
                        f"the adapter reads features {widths} (values per token), got "
                        f"{item_features.widths}: extract them with the encoders it was trained "
                        "with"
                    )
                item_features = item_features.select(files.vocabulary)
            model = cls(backbone, config=config)
            model._build(files.vocabulary, widths)
        except (KeyError, TypeError, ValueError) as error:
            raise AdapterError(f"cannot load the adapter in {str(path)!r}: {error}") from error
        check_weights(
            files.weights,
            model.state_dict(),
            saved_backbone=description["backbone"],
            backbone=type(backbone).__name__,
        )
        model.load_state_dict(files.weights)
        model.item_features = item_features
        model.eval()
        if item_features is None:
            catalogue = {s: e.to(model.device) for s, e in files.item_embeddings.items()}
            model._catalogue.get(cast(nn.Module, model.item_encoder), lambda: catalogue)
        return model
