"""Plain implementation of the paper: encodes every slot, with all tokens through all layers.

It is slow and simple on purpose. It is the baseline of the speed benchmarks and the reference for
the tests of `ODMTWrapper`: `PlainODMT.like(wrapper)` has the weights of the wrapper and must give
the same loss, gradients and ranks.

Letters: B users, L inputs, S = B (L + 1) slots of a batch, T tokens of one item, D hidden size,
N items.

Source: https://arxiv.org/abs/2308.04067, sections 3.2 to 3.4.
"""

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

HIDDEN = -1e4
"""Value that the authors' program adds to the scores of masked tokens and candidates."""


class PlainAttention(nn.Module):
    def __init__(self, hidden_size: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query, self.key, self.value, self.output = (
            nn.Linear(hidden_size, hidden_size, bias=False) for _ in range(4)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        rows, tokens, width = x.shape

        def heads(layer: nn.Linear) -> torch.Tensor:
            return layer(x).view(rows, tokens, self.num_heads, -1).transpose(1, 2)

        query, key, value = heads(self.query), heads(self.key), heads(self.value)
        scores = query @ key.transpose(2, 3) / math.sqrt(width // self.num_heads)
        scores = scores + (~mask).unsqueeze(1) * HIDDEN
        attended = self.dropout(scores.softmax(-1)) @ value
        return self.output(attended.transpose(1, 2).reshape(rows, tokens, width))


class PlainBlock(nn.Module):
    def __init__(self, hidden_size: int, num_heads: int, dropout: float, eps: float) -> None:
        super().__init__()
        self.attention = PlainAttention(hidden_size, num_heads, dropout)
        self.attention_norm = nn.LayerNorm(hidden_size, eps=eps)
        self.feed_forward = nn.Sequential(
            nn.Linear(hidden_size, 4 * hidden_size),
            nn.ReLU(),
            nn.Linear(4 * hidden_size, hidden_size),
        )
        self.feed_forward_norm = nn.LayerNorm(hidden_size, eps=eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = self.attention_norm(x + self.dropout(self.attention(x, mask)))
        return self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))


class PlainItemEncoder(nn.Module):
    """ID-aware multi-modal transformer; `tokens` (N + 1, T_m, d_m) and `lengths` (N + 1,)."""

    def __init__(
        self,
        widths: dict[str, int],
        *,
        num_items: int,
        hidden_size: int,
        num_layers: int,
        num_heads: int,
        one_way: bool,
        dropout: float,
        eps: float,
    ) -> None:
        super().__init__()
        self.modalities, self.one_way = tuple(widths), one_way
        self.id_embedding = nn.Embedding(num_items + 1, hidden_size, padding_idx=0)
        sources = {"id": hidden_size, **widths}
        self.projections = nn.ModuleDict(
            {source: nn.Linear(width, hidden_size) for source, width in sources.items()}
        )
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            PlainBlock(hidden_size, num_heads, dropout, eps) for _ in range(num_layers)
        )
        self.heads = nn.ModuleDict(
            {
                source: nn.Sequential(
                    nn.Linear(hidden_size, hidden_size),
                    nn.LeakyReLU(),
                    nn.Linear(hidden_size, hidden_size),
                )
                for source in sources
            }
        )

    def forward(
        self, ids: torch.Tensor, features: dict[str, tuple[torch.Tensor, torch.Tensor]]
    ) -> dict[str, torch.Tensor]:
        """Encode items (S,) with their tokens: source -> (S, D)."""
        parts, real, first = [], [], {}
        for name in self.modalities:
            tokens, lengths = features[name]
            first[name] = sum(part.shape[1] for part in parts)
            parts.append(self.projections[name](tokens))
            real.append(torch.arange(tokens.shape[1]) < lengths.unsqueeze(1))
        first["id"] = sum(part.shape[1] for part in parts)
        parts.append(self.projections["id"](self.id_embedding(ids)).unsqueeze(1))
        real.append(torch.ones(len(ids), 1, dtype=torch.bool))
        hidden, valid = self.dropout(torch.cat(parts, 1)), torch.cat(real, 1)
        mask = valid.unsqueeze(1).repeat(1, valid.shape[1], 1)  # (S, T, T)
        if self.one_way:
            mask[:, :-1, -1] = False  # content tokens do not attend to the ID token
        for block in self.blocks:
            hidden = block(hidden, mask)
        return {source: self.heads[source](hidden[:, at]) for source, at in first.items()}


class PlainSASRec(nn.Module):
    def __init__(
        self,
        hidden_size: int,
        *,
        num_layers: int,
        num_heads: int,
        max_seq_length: int,
        dropout: float,
        eps: float,
    ) -> None:
        super().__init__()
        self.position_embedding = nn.Embedding(max_seq_length, hidden_size)
        self.layer_norm = nn.LayerNorm(hidden_size, eps=eps)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            PlainBlock(hidden_size, num_heads, dropout, eps) for _ in range(num_layers)
        )

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        length = x.shape[1]
        positions = torch.arange(length) + self.position_embedding.num_embeddings - length
        x = self.dropout(self.layer_norm(x + self.position_embedding(positions)))
        visible = torch.ones(length, length, dtype=torch.bool).tril() & mask.unsqueeze(1)
        for block in self.blocks:
            x = block(x, visible)
        return x


class PlainODMT(nn.Module):
    """The complete model; its weights have the same names as in `ODMTWrapper`."""

    def __init__(
        self, item_encoder: PlainItemEncoder, backbones: dict[str, PlainSASRec], config: Any
    ) -> None:
        super().__init__()
        self.item_encoder = item_encoder
        self.backbones = nn.ModuleDict({"by_source": nn.ModuleDict(backbones)})
        self.config = config
        self.tokens: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        self.item_log_probability = torch.zeros(item_encoder.id_embedding.num_embeddings)

    @classmethod
    def like(cls, wrapper: Any, *, dropout: float = 0.0) -> "PlainODMT":
        """Create the plain counterpart of an `ODMTWrapper` around `SASRec`, with its weights."""
        config, width = wrapper.config, wrapper.hidden_size
        encoder = PlainItemEncoder(
            wrapper.item_features.widths,
            num_items=wrapper.num_items,
            hidden_size=width,
            num_layers=config.num_layers,
            num_heads=config.num_heads,
            one_way=config.id_visibility == "one_way",
            dropout=dropout,
            eps=config.layer_norm_eps,
        )
        sasrec = wrapper.unwrap_backbone("id")
        backbones = {
            source: PlainSASRec(
                width,
                num_layers=len(sasrec.blocks),
                num_heads=sasrec.blocks[0].attention.num_heads,
                max_seq_length=sasrec.max_seq_length,
                dropout=dropout,
                eps=sasrec.layer_norm.eps,
            )
            for source in wrapper.sources
        }
        twin = cls(encoder, backbones, config)
        missing = twin.load_state_dict(wrapper.state_dict(), strict=False).missing_keys
        if missing:
            raise ValueError(f"the wrapper has no weights {missing}: wrap a SASRec")
        rows = torch.arange(wrapper.num_items + 1)
        for name, (tokens, lengths) in wrapper.item_features.gather(rows).items():
            twin.tokens[name] = tokens, lengths
        twin.item_log_probability = wrapper.item_log_probability.clone()
        return twin

    def encode(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        """Encode items (S,), each with all its tokens: source -> (S, D)."""
        tokens = {name: (x[ids], lengths[ids]) for name, (x, lengths) in self.tokens.items()}
        return self.item_encoder(ids, tokens)

    def forward(self, item_ids: torch.Tensor, epoch: float = 0.0) -> torch.Tensor:
        """Training loss of sequences (B, L + 1), left-padded with 0."""
        users, slots = item_ids.shape
        real = item_ids != 0
        items = self.encode(item_ids.flatten())
        position = torch.arange(slots - 1).repeat(users)
        user = torch.arange(users).repeat_interleave(slots - 1)
        label = user * slots + position + 1  # slot of the next item of every input
        own = (item_ids.unsqueeze(2) == item_ids.flatten()).any(1)  # (B, S): the user's own items
        hidden = ~real.flatten() | own[user]  # (B L, S)
        hidden[torch.arange(len(label)), label] = False
        kept = (real[:, :-1] & real[:, 1:]).flatten()
        logits = {}
        for source, embeddings in items.items():
            inputs = embeddings.view(users, slots, -1)[:, :-1] * real[:, :-1].unsqueeze(2)
            states = self.backbones["by_source"][source](inputs, real[:, :-1]).flatten(0, 1)
            scores = states @ embeddings.T - self.item_log_probability[item_ids.flatten()]
            logits[source] = scores.float()[kept]
        hidden, label = hidden[kept], label[kept]
        loss = torch.zeros(())
        for scores in logits.values():
            loss = loss + F.cross_entropy(scores + hidden * HIDDEN, label)
        weight = self._distillation_weight(epoch)
        if weight > 0:
            teachers = [(name, logits["id"]) for name in logits if name != "id"]
            teachers.append(("id", torch.stack(list(logits.values())).mean(0)))
            for student, teacher in teachers:
                loss = loss + weight * self._distil(logits[student], teacher, hidden)
        return loss

    def _distil(
        self, student: torch.Tensor, teacher: torch.Tensor, hidden: torch.Tensor
    ) -> torch.Tensor:
        tau = self.config.distillation_temperature
        if self.config.detach_teacher:
            teacher = teacher.detach()
        taught = (teacher / tau + hidden * HIDDEN).softmax(-1)
        learnt = (student / tau + hidden * HIDDEN).log_softmax(-1)
        return -(taught * learnt).sum(-1).mean() * tau**2

    def _distillation_weight(self, epoch: float) -> float:
        warmup = self.config.distillation_warmup_epochs
        if not warmup:
            return self.config.distillation_weight
        remaining = 1 - min(epoch, warmup) / warmup
        return self.config.distillation_weight * math.exp(-5 * remaining**2)

    @torch.no_grad()
    def rank(
        self, sequences: list[torch.Tensor], targets: list[int], seen: list[torch.Tensor]
    ) -> list[int]:
        """Rank each user's target among all items, user by user; seen items are excluded."""
        rows = torch.arange(len(self.item_log_probability))
        batches = [self.encode(batch) for batch in rows.split(256)]
        items = {source: torch.cat([b[source] for b in batches]) for source in batches[0]}
        ranks = []
        for sequence, target, others in zip(sequences, targets, seen, strict=True):
            mask = torch.ones(1, len(sequence), dtype=torch.bool)
            scores = torch.zeros(len(rows))
            for source, embeddings in items.items():
                states = self.backbones["by_source"][source](embeddings[sequence][None], mask)
                scores = scores + states[0, -1] @ embeddings.T
            scores[0] = -torch.inf
            scores[others[others != target]] = -torch.inf
            order = scores.argsort(descending=True)
            ranks.append(int((order == target).nonzero()) + 1)
        return ranks
