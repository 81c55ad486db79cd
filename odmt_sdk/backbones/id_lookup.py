"""Models that take item ids and look them up in a table of their own, fed from the item encoder.

Letters: B users, L positions, F positions the model is given, U distinct items, P real positions,
D hidden size.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, cast, get_args

import torch
from torch import nn
from torch.nn import functional as F

from odmt_sdk.backbones.adapter import BackboneAdapter
from odmt_sdk.backbones.alignment import restore
from odmt_sdk.backbones.id_lookup_call import IdCall, Role, read_roles
from odmt_sdk.backbones.id_lookup_find import (
    TRIED_LENGTHS,
    WatchedModel,
    find_item_table,
    find_lengths,
    find_max_length,
    takes_item_ids_only,
)
from odmt_sdk.backbones.id_lookup_table import FedTable, replace_table, restore_table
from odmt_sdk.backbones.registry import register_adapter
from odmt_sdk.backbones.returned import describe, find_hidden_states, take
from odmt_sdk.backbones.trial import copy_module, differs, other_shape, seeded, summary

PaddingSide = Literal["right", "left"]


class IdLookupBackbone(BackboneAdapter):
    """Lets a model that only takes item ids read embeddings, without editing it.

    The model is copied, and the `nn.Embedding` in which it looks items up is replaced in the copy:
    lookups return the given embeddings, however often and in whatever order the model makes them,
    also for ids that it derives, such as the nodes of a session graph, and for reads of the table's
    `weight`. The table itself is neither trained nor saved. Ids are handed over as numbers that
    are new in every batch: the same item has the same id, and nothing else may be read from them.

    What is not stated is found out by running a copy of the model on tiny batches.

    Args:
        module: the user's model, for instance with `forward(self, item_seq, item_seq_len)`, that
            returns hidden states (B, L, D), or (B, D) at the last item; D is the width of its
            table.
        item_embedding: name of the table, such as "item_embedding" or "encoder.items".
        method: which method to call, such as "log2feats".
        arguments: parameter name -> what it gets: "item_ids" (B, F) int64, "lengths" (B,) int64,
            "attention_mask" (B, F) int64, 1 = real, or "padding_mask" (B, F) boolean, True =
            padding. Usual names need not be stated.
        padding_side: where the model wants padding; found out as the right where the model takes
            lengths or needs a fixed length, else the side where padding changes nothing.
        padding_id: the id of padding; None = the table's `padding_idx`, else 0.
        fixed_length: pad every batch to this many positions.
        last_only: whether (B, D) at the last item is returned; True reads it from a model that
            returns (B, L, D), for models that are not causal.

    Attributes:
        module: the copy.
        hidden_size: D.
        max_seq_length: the longest sequence the model reads, or None.

    Raises:
        TypeError: if `module` is no `nn.Module`.
        ValueError: if the model cannot be fed; the message says why and what to do.

    Examples:
        >>> class Mine(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.item_embedding = nn.Embedding(100, 8, padding_idx=0)
        ...         self.gru = nn.GRU(8, 8, batch_first=True)
        ...
        ...     def forward(self, item_seq, item_seq_len):
        ...         hidden, _ = self.gru(self.item_embedding(item_seq))
        ...         return hidden[torch.arange(len(hidden)), item_seq_len - 1]
        >>> backbone = IdLookupBackbone(Mine())
        >>> backbone(torch.randn(2, 5, 8), torch.ones(2, 5)).shape, backbone.last_only
        (torch.Size([2, 8]), True)
    """

    reads_item_ids = True
    way_out_of_the_future = (
        "read its last state only, with IdLookupBackbone(model, last_only=True), or make it causal"
    )

    def __init__(
        self,
        module: nn.Module,
        *,
        item_embedding: str | None = None,
        method: str = "forward",
        arguments: Mapping[str, Role] | None = None,
        padding_side: PaddingSide | None = None,
        padding_id: int | None = None,
        fixed_length: int | None = None,
        last_only: bool | None = None,
    ) -> None:
        if not isinstance(module, nn.Module):
            raise TypeError(f"module must be a torch.nn.Module, got {type(module).__name__}")
        owner = f"{type(module).__name__}.{method}"
        if not callable(getattr(module, method, None)):
            raise ValueError(f"method={method!r}: there is no {owner}")
        if padding_side not in (None, *get_args(PaddingSide)):
            raise ValueError(
                f"padding_side={padding_side!r} must be one of {get_args(PaddingSide)}"
            )
        if fixed_length is not None and fixed_length < 1:
            raise ValueError(f"fixed_length={fixed_length} must be at least 1, or None for any")
        roles = read_roles(getattr(module, method), arguments or {}, owner)
        watched = WatchedModel(module)
        call = IdCall(method, roles, padding_id or 0, fixed_length=fixed_length)
        call = find_lengths(watched, call)
        path = find_item_table(watched, call, item_embedding)
        table = watched.tables[path]
        if padding_id is None and table.padding_idx:
            call = dataclasses.replace(call, padding_id=table.padding_idx)
        super().__init__(
            replace_table(module, path),
            hidden_size=table.embedding_dim,
            max_seq_length=find_max_length(watched, call, path),
        )
        self.call = call
        self.item_embedding = path
        self.padding_side: PaddingSide = padding_side or "right"
        self._returns_all = self._find_output(table.weight)
        self.last_only = not self._returns_all if last_only is None else last_only
        if not (self.last_only or self._returns_all):
            raise ValueError(
                f"last_only=False, but {owner} returns (B, D), the state at the last item only"
            )
        self.padding_side = self._find_padding_side(padding_side, table.weight)

    def forward(
        self,
        inputs_embeds: torch.Tensor,
        attention_mask: torch.Tensor,
        item_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Read sequences.

        Args:
            inputs_embeds: (B, L, D); slots of the same item have equal embeddings.
            attention_mask: (B, L), 1 = real, 0 = padding.
            item_ids: (B, L) rows; None = slots with equal embeddings hold the same item, which
                takes longer to find out.

        Returns:
            (B, D) states at the last item if `last_only`, else (B, L, D); zeros at padding.

        Raises:
            ValueError: if L exceeds `max_seq_length`, or the model returns another shape.
        """
        length = inputs_embeds.shape[1]
        if self.max_seq_length is not None and length > self.max_seq_length:
            raise ValueError(
                f"sequences of {length} positions exceed the {self.max_seq_length} that "
                f"{type(self.module).__name__} reads: cut them to the latest, or build the model "
                "for longer ones"
            )
        mask = attention_mask.bool()
        users = mask.any(1).nonzero().squeeze(1)
        if len(users) == len(mask):
            return self._read(inputs_embeds, mask, item_ids)
        # rows without any item stay out of the model, which nobody builds for them
        shape = (len(mask),) if self.last_only else (len(mask), length)
        states = inputs_embeds.new_zeros(*shape, cast(int, self.output_size))
        if len(users):
            ids = None if item_ids is None else item_ids[users]
            read = self._read(inputs_embeds[users], mask[users], ids)
            states = states.to(read.dtype).index_copy(0, users, read)
        return states

    def unwrap(self, item_embeddings: torch.Tensor) -> nn.Module:
        """Give the trained model back with a table of its own.

        Args:
            item_embeddings: (N + 1, D), row 0 = padding, such as
                `model.encode_catalogue()["text"]`.

        Returns:
            A copy of the model as the user wrote it, in which the item of row r has the id r; where
            the model pads with an id p other than 0, it is r - 1 below p, and r from there on.

        Raises:
            ValueError: if the shape of the embeddings is wrong.
        """
        if item_embeddings.ndim != 2 or item_embeddings.shape[1] != self.hidden_size:
            raise ValueError(
                f"item_embeddings have shape {tuple(item_embeddings.shape)}, "
                f"{type(self.module).__name__} needs (N + 1, {self.hidden_size})"
            )
        rows = self._by_id(item_embeddings.detach().clone())
        return restore_table(self.module, self.item_embedding, rows)

    def _read(
        self, inputs_embeds: torch.Tensor, mask: torch.Tensor, item_ids: torch.Tensor | None
    ) -> torch.Tensor:
        """`forward` for rows that hold at least one item each."""
        numbers, rows = _number_items(inputs_embeds, mask, item_ids)
        right = self.padding_side == "right"
        order = (~mask if right else mask).long().argsort(dim=1, stable=True)  # padding to its side
        aligned = mask.gather(1, order)
        returned = self._run(numbers.gather(1, order), aligned, rows)
        states = take(returned, self.call.key)  # (B, D) or (B, F, D)
        batch, length = mask.shape
        given = self.call.fixed_length or length
        if right and self._returns_all and 0 < given - states.shape[1] < given:
            # packing cut the padding that all rows share
            states = F.pad(states, (0, 0, 0, given - states.shape[1]))
        expected = ((batch, given) if self._returns_all else (batch,)) + (self.output_size,)
        if states.shape != expected:
            raise ValueError(
                f"{type(self.module).__name__} returned {describe(returned)}, expected {expected} "
                "as on the batch that it was tried with"
            )
        if not self._returns_all:
            return states
        states = states[:, :length] if right else states[:, -length:]  # (B, F, D) -> (B, L, D)
        if self.last_only:
            last = aligned.sum(1) - 1 if right else -1
            return states[torch.arange(batch, device=states.device), last]  # (B, L, D) -> (B, D)
        return restore(states, order.argsort(1)).masked_fill(~mask.unsqueeze(-1), 0.0)

    def _run(self, numbers: torch.Tensor, mask: torch.Tensor, rows: torch.Tensor) -> Any:
        """Call the model on aligned item numbers (B, L), its table fed with rows (U + 1, D)."""
        more = (self.call.fixed_length or numbers.shape[1]) - numbers.shape[1]
        padding = (0, more) if self.padding_side == "right" else (more, 0)
        ids = self.call.ids(F.pad(numbers, padding))  # (B, L) -> (B, F)
        with self._table.fed(self._by_id(rows), self.call.padding_id):
            return self.call.run(self.module, ids, F.pad(mask, padding))

    @property
    def _table(self) -> FedTable:
        return cast(FedTable, self.module.get_submodule(self.item_embedding))

    def _by_id(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows in the order of item numbers, padding first, to rows in the order of ids."""
        if not self.call.padding_id:
            return rows
        ids = self.call.ids(torch.arange(len(rows), device=rows.device))
        size = max(len(rows), self.call.padding_id + 1)
        return rows.new_zeros(size, rows.shape[1]).index_copy(0, ids, rows)

    def _find_output(self, like: torch.Tensor) -> bool:
        """Run a copy to see where its hidden states are, how wide, and whether at all positions."""
        name, width = f"{type(self.module).__name__}.{self.call.method}", like.shape[1]
        items = 3 if width != 4 else 4  # so that a score per item is not as wide as a state
        length = self.call.fixed_length or max(TRIED_LENGTHS)
        numbers = (torch.arange(2)[:, None] + torch.arange(length)) % items + 1
        numbers = numbers.to(like.device)  # (2, L)
        twin = copy_module(self)
        try:
            with torch.no_grad(), seeded(self):
                returned = twin._run(numbers, numbers > 0, _random_rows(items, like))
            key = find_hidden_states(returned, batch=2, length=length, hidden_size=width)
        except Exception as error:
            tied = [".".join(names) for names in self._table.tied]
            gone = f" ({', '.join(tied)} shared its weight and went with it)" if tied else ""
            raise ValueError(
                f"{name} does not work with its item table {self.item_embedding!r} fed from "
                f"outside{gone}: {summary(error)}. It must return hidden states, not scores; "
                "another method that does can be named with method="
            ) from error
        states = take(returned, key)
        if states.shape[-1] != width and states.shape[-1] in (
            items + 1,
            self._table.num_embeddings,
        ):
            raise ValueError(
                f"{name} returned {describe(returned)}: a score for every item of its table, it "
                "seems. Say with method= which method returns the hidden states before scoring"
            )
        self.call = dataclasses.replace(self.call, key=key)
        self.output_size = states.shape[-1]
        return states.ndim == 3

    def _find_padding_side(self, stated: PaddingSide | None, like: torch.Tensor) -> PaddingSide:
        """Run copies to see on which side padding leaves the state at the last item alone."""
        rows = _random_rows(4, like)
        length = min(self.call.fixed_length or 2, 2)
        takes_lengths = "lengths" in self.call.roles.values()
        sides: tuple[PaddingSide, ...] = ("right",) if takes_lengths else ("right", "left")
        sides = (stated,) if stated else sides
        readers: list[PaddingSide] = []
        for side in sides:
            twin = copy_module(self)
            twin.padding_side = side
            state = twin._last_state(rows, [[1, 2], [3, 1]], length)
            if torch.equal(state, twin._last_state(rows, [[1, 3], [3, 2]], length)):
                continue
            readers.append(side)
            if stated or takes_lengths or self.call.fixed_length is not None:
                return side
            padded = twin._last_state(rows, [[1, 2], [3, 1]], length, padding=1)
            if not differs(state, padded, other_shape(state)):
                return side
        name = f"{type(self.module).__name__}.{self.call.method}"
        if not readers:
            raise ValueError(
                f"what {name} returns for the last item does not depend on that item, with padding "
                f"on the {' or the '.join(sides)}: check which position it reads, or say where it "
                "wants padding with padding_side="
            )
        raise ValueError(
            f"what {name} returns changes with the number of padding positions, on either side: "
            "let it take lengths or mask its padding; or say with padding_side= where it wants "
            "padding, and with fixed_length= how long sequences shall always be"
        )

    def _last_state(
        self, rows: torch.Tensor, items: list[list[int]], length: int, padding: int = 0
    ) -> torch.Tensor:
        """The states (2, D) at the last item of two sequences, padded on the left."""
        numbers = torch.tensor(items, device=rows.device)[:, -length:]
        numbers = F.pad(numbers, (padding, 0))
        with torch.no_grad(), seeded(self):
            states: torch.Tensor = self(rows[numbers], numbers > 0, numbers)
        return states if self.last_only else states[:, -1]


def _number_items(
    inputs_embeds: torch.Tensor, mask: torch.Tensor, item_ids: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Number the U items of a batch from 1, and take for each the embedding of its first slot.

    Returns:
        Numbers (B, L), 0 = padding, and embeddings (U + 1, D), zeros for padding.
    """
    slots = mask.flatten().nonzero().squeeze(1)  # (P,)
    embeds = inputs_embeds.flatten(0, 1)  # (B, L, D) -> (B * L, D)
    if item_ids is None:
        distinct, item_of = torch.unique(embeds.detach()[slots], return_inverse=True, dim=0)
    else:
        distinct, item_of = torch.unique(item_ids.flatten()[slots], return_inverse=True)
    numbers = torch.zeros_like(mask, dtype=torch.long)
    numbers[mask] = item_of + 1  # (P,) -> (B, L)
    order = torch.arange(len(slots), device=slots.device)
    first = order.new_empty(len(distinct)).scatter_reduce_(
        0, item_of, order, "amin", include_self=False
    )
    return numbers, F.pad(embeds[slots[first]], (0, 0, 1, 0))


def _random_rows(items: int, like: torch.Tensor) -> torch.Tensor:
    """Embeddings (items + 1, D) to try a model with, of the kind of its own table (_, D)."""
    rows = torch.randn(items, like.shape[1], generator=torch.Generator().manual_seed(0))
    return F.pad(rows, (0, 0, 1, 0)).to(like)


@register_adapter("id-lookup", matches=takes_item_ids_only, priority=-20)
def _build(backbone: nn.Module, hidden_size: int | None) -> nn.Module:
    try:
        return IdLookupBackbone(backbone)
    except ValueError as error:
        raise ValueError(
            f"{error}. What is named with = goes to IdLookupBackbone({type(backbone).__name__}(...)"
            ", ...), which is then passed as the backbone"
        ) from (error.__cause__ or error)
