"""`ODMTWrapper`: any sequence backbone, multi-modal items, online distillation.

Letters: B users, L slots of a sequence, P valid positions, U distinct items of a batch, N items,
S sources, D hidden size.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, Literal, Self

import torch
from torch.utils.checkpoint import checkpoint

from odmt_sdk.backbones.registry import AdapterBuilder
from odmt_sdk.backbones.template import BackboneTemplate
from odmt_sdk.config import ODMTConfig
from odmt_sdk.items.feature_set import FeatureSet
from odmt_sdk.losses.gathering import share_candidates
from odmt_sdk.losses.in_batch import InBatchCandidates, in_batch_candidates
from odmt_sdk.losses.mixin import OnlineDistillationMixin
from odmt_sdk.losses.popularity import log_probability
from odmt_sdk.outputs import ODMTOutput, Recommendations
from odmt_sdk.processes import is_distributed
from odmt_sdk.retrieval.recommend import recommend
from odmt_sdk.saving.saved_towers import SavedTowers
from odmt_sdk.vocabulary import ItemVocabulary


class ODMTWrapper(OnlineDistillationMixin, SavedTowers):
    """Turns a sequence backbone into an ODMT recommender.

    Every item gets one embedding per source (its ID and each modality), one copy of the backbone
    per source reads the sequences, the sources' predictions teach one another while training, and
    their scores are averaged when recommending. The backbone passed in is copied, never changed.

    Without `item_features` (and without `vocabulary` for a model of IDs alone) the wrapper waits
    for `set_items`; call it before making an optimizer.

    Args:
        backbone: a causal sequence model of almost any interface, see "Bring your backbone" in the
            documentation; a function without arguments that makes one; or a mapping from each
            source to its own.
        item_features: content tokens of the catalogue, and its item ids.
        config: settings; None = `ODMTConfig()`.
        vocabulary: the item ids, where there are no features.
        hidden_size: D; None = `config.hidden_size`, else the backbone's own.
        adapter: name of a registered adapter, or a function `(backbone, hidden_size) -> module`,
            in place of the one found by itself.
        forward_fn: `(backbone, inputs_embeds (B, L, D), attention_mask (B, L)) -> (B, L, D)`, which
            calls the backbone as it wants to be called.
        fresh_copies: every source's copy of the backbone draws new weights in place of starting
            from those passed in.
        check: whether to try the backbone on a tiny batch first, as `check_backbone` does; what
            makes it useless is raised, the rest are warnings.

    Raises:
        TypeError: if the backbone cannot be called.
        ValueError: if it cannot be told how to call it, or `check` finds an error, or the hidden
            size cannot be told or does not fit.

    Source: https://arxiv.org/abs/2308.04067.

    Examples:
        >>> from odmt_sdk import ItemFeatures, SASRec
        >>> features = ItemFeatures.from_tensors(text=torch.randn(10, 7, 16))
        >>> model = ODMTWrapper(backbone=SASRec(hidden_size=8), item_features=features)
        >>> model(torch.tensor([[0, 3, 1, 2], [4, 5, 6, 7]])).loss.backward()
        >>> model.recommend([[3, 1], [4]], k=2).item_ids        # doctest: +SKIP
        [[2, 7], [5, 6]]
    """

    def __init__(
        self,
        backbone: Any,
        item_features: FeatureSet | None = None,
        config: ODMTConfig | None = None,
        *,
        vocabulary: ItemVocabulary | Iterable[Hashable] | None = None,
        hidden_size: int | None = None,
        adapter: str | AdapterBuilder | None = None,
        forward_fn: Callable[..., Any] | None = None,
        fresh_copies: bool = False,
        check: bool = True,
    ) -> None:
        config = config or ODMTConfig()
        template = BackboneTemplate(
            backbone,
            hidden_size=hidden_size or config.hidden_size,
            adapter=adapter,
            forward_fn=forward_fn,
            project=config.project_backbone,
            fresh_copies=fresh_copies,
        )
        super().__init__(template, config)
        if check:
            template.check(
                max_seq_length=self.max_seq_length, allow_future=config.allow_future, stacklevel=2
            )
        self.teaching_graph = self.config.teaching_graph
        self.distillation_temperature = self.config.distillation_temperature
        self.distillation_weight = self.config.distillation_weight
        self.distillation_warmup_epochs = self.config.distillation_warmup_epochs
        self.detach_teacher = self.config.detach_teacher
        if item_features is not None or vocabulary is not None:
            self.set_items(item_features, vocabulary=vocabulary)

    def set_item_popularity(self, popularity: torch.Tensor) -> Self:
        """Tell how often items occur in the training data.

        Frequent items stand among the candidates of a batch more often; the log of their
        probability is subtracted from their logits while training (logQ correction). Items that
        occur nowhere are cold: outside training the learned vector of unknown IDs takes the place
        of theirs, see `add_items`. Without this call all items count as equally popular, and none
        as cold.

        Args:
            popularity: (N + 1,) counts or probabilities, entry 0 ignored; an item never seen counts
                as the rarest one seen.

        Returns:
            The model itself.

        Raises:
            ValueError: if the shape is wrong, a value is negative or not finite, or all are zero.

        Source: Yi et al. 2019, https://doi.org/10.1145/3298689.3346996.
        """
        log_q = log_probability(popularity, self.num_items)
        self.item_log_probability.copy_(log_q)
        self._set_unseen(torch.as_tensor(popularity) == 0)
        return self

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
        item_ids, mask = self._check_sequences(item_ids, attention_mask, self.max_seq_length + 1)
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
                item_ids=item_ids[:, :-1] * mask[:, :-1],
                positions=candidates.positions,
            )
        chunk = self.config.loss_chunk_size
        if chunk is None or len(candidates.labels) <= chunk:
            loss, parts, logits = self._loss(hidden, items, candidates, epoch)
        else:
            loss, parts = self._loss_in_chunks(hidden, items, candidates, epoch, chunk)
            logits = {}
        return ODMTOutput(
            loss=loss * scale,
            losses=parts,
            logits=logits,
            labels=candidates.labels,
            candidate_ids=candidates.item_ids,
        )

    def _loss(
        self,
        hidden: Mapping[str, torch.Tensor],
        items: Mapping[str, torch.Tensor],
        candidates: InBatchCandidates,
        epoch: float,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Loss, its parts and the logits (P, U) of states (P, D) against items (U, D)."""
        logits = {source: states @ items[source].T for source, states in hidden.items()}
        if self.config.logq_correction:
            log_q = self.item_log_probability[candidates.item_ids]
            logits = {source: values - log_q for source, values in logits.items()}
        loss, parts = self.online_distillation_loss(
            logits,
            candidates.labels,
            epoch=epoch,
            log_multiplicity=candidates.log_multiplicity,
            ignore_index=None,
        )
        return loss, parts, logits

    def _loss_in_chunks(
        self,
        hidden: Mapping[str, torch.Tensor],
        items: Mapping[str, torch.Tensor],
        candidates: InBatchCandidates,
        epoch: float,
        size: int,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """`_loss` of so many positions at a time, whose logits are computed again for gradients."""

        def of_chunk(start: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            rows = slice(start, start + size)
            chunk = candidates._replace(
                labels=candidates.labels[rows], log_multiplicity=candidates.log_multiplicity[rows]
            )
            states = {source: values[rows] for source, values in hidden.items()}
            loss, parts, _ = self._loss(states, items, chunk, epoch)
            share = len(chunk.labels) / len(candidates.labels)
            return loss * share, {name: value.detach() * share for name, value in parts.items()}

        found = [
            checkpoint(of_chunk, start, use_reentrant=False)
            for start in range(0, len(candidates.labels), size)
        ]
        losses, parts = zip(*found, strict=True)
        names = parts[0]
        return torch.stack(losses).sum(), {
            name: torch.stack([part[name] for part in parts]).sum() for name in names
        }

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
