"""`IdLookupBackbone`: bridge for models that look up item ids in an embedding table of their own.

Letters: B users, L positions, F positions that the model receives, U distinct items, P real
positions, D hidden size.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, cast, get_args

import torch
from torch import nn
from torch.nn import functional as F

from odmt_sdk.backbones.adapt import register_bridge
from odmt_sdk.backbones.bridge import BackboneBridge
from odmt_sdk.backbones.bridges.right_padding import restore
from odmt_sdk.backbones.id_lookup.call import IdCall, Role, read_roles
from odmt_sdk.backbones.id_lookup.find import (
    TRIED_LENGTHS,
    find_item_table,
    find_lengths,
    find_max_length,
    takes_item_ids_only,
    watching,
)
from odmt_sdk.backbones.id_lookup.table import FedTable, replace_table, restore_table
from odmt_sdk.backbones.signature.returned import describe, find_hidden_states, take
from odmt_sdk.backbones.signature.trial import differs, other_shape, seeded, summary
from odmt_sdk.backbones.undisturbed import tried

PaddingSide = Literal["right", "left"]


class IdLookupBackbone(BackboneBridge):
    """Lets a model that takes only item ids read item embeddings, without changes to its code.

    The bridge copies the model and replaces the `nn.Embedding` for items in the copy. Every lookup
    then returns the given embeddings, no matter how often or in which order the model looks ids up.
    This also holds for ids that the model derives, such as the nodes of a session graph, and for
    direct reads of the table's `weight`. The original table is neither trained nor saved. The model
    receives ids that are numbered anew in every batch: within a batch, equal ids mean equal items,
    but the values of the ids have no other meaning.

    Anything that is not specified is determined by running the model on tiny batches.

    Args:
        module: the user's model, for example with `forward(self, item_seq, item_seq_len)`. It must
            return hidden states (B, L, D), or (B, D) at the last item, where D is the width of its
            item table.
        item_embedding: name of the item table, such as "item_embedding" or "encoder.items"; None =
            find it.
        method: name of the method to call, such as "log2feats".
        arguments: parameter name -> value to pass: "item_ids" (B, F) int64, "lengths" (B,) int64,
            "attention_mask" (B, F) int64 with 1 = real, or "padding_mask" (B, F) boolean with
            True = padding. Common parameter names are recognized automatically.
        padding_side: the side on which the model expects padding. None = the right if the model
            takes lengths or needs a fixed length, else the side on which padding does not change
            the results.
        padding_id: the id of padding; None = the table's `padding_idx`, or 0 if it has none.
        fixed_length: pad every batch to this number of positions; None = any length, or the only
            length at which the model runs.
        last_only: whether to return only the state (B, D) at the last item. None = depends on the
            output of the model. Use True for models that return (B, L, D) but are not causal.

    Attributes:
        module: the copy of the model.
        hidden_size: D.
        max_seq_length: longest sequence that the model can read; None = any length.

    Raises:
        TypeError: if `module` is not a `torch.nn.Module`.
        ValueError: if the model cannot be used this way; the message explains why and what to do.

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
    output_size: int  # of the model's own table; never None
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
        call = IdCall(method, roles, padding_id or 0, fixed_length=fixed_length)
        with watching(module) as model:
            call = find_lengths(model, call)
            path = find_item_table(model, call, item_embedding)
            table = model.tables[path]
            if padding_id is None and table.padding_idx:
                call = dataclasses.replace(call, padding_id=table.padding_idx)
            max_seq_length = find_max_length(model, call, path)
        super().__init__(
            replace_table(module, path),
            hidden_size=table.embedding_dim,
            max_seq_length=max_seq_length,
        )
        self.call = call
        self.item_embedding = path
        self.padding_side: PaddingSide = padding_side or "right"
        with tried(self):
            found = self._find_output(table.weight)
        self.call, self.output_size, self._returns_all = found
        self.last_only = not self._returns_all if last_only is None else last_only
        if not (self.last_only or self._returns_all):
            raise ValueError(
                f"last_only=False, but {owner} returns (B, D), the state at the last item only"
            )
        with tried(self):
            side = self._find_padding_side(padding_side, table.weight)
        self.padding_side = side

    def forward(
        self,
        inputs_embeds: torch.Tensor,
        attention_mask: torch.Tensor,
        item_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Run the model on a batch of sequences.

        Args:
            inputs_embeds: (B, L, D); positions with the same item must have equal embeddings.
            attention_mask: (B, L), 1 = real, 0 = padding.
            item_ids: (B, L) rows. None = positions with equal embeddings are taken to hold the same
                item, which is slower.

        Returns:
            (B, D) states at the last item if `last_only`, else (B, L, D) with zeros at padding.

        Raises:
            ValueError: if L exceeds `max_seq_length`, or the model returns an unexpected shape.
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
        # rows without items are not passed to the model, since few models support them
        shape = (len(mask),) if self.last_only else (len(mask), length)
        states = inputs_embeds.new_zeros(*shape, self.output_size)
        if len(users):
            ids = None if item_ids is None else item_ids[users]
            read = self._read(inputs_embeds[users], mask[users], ids)
            states = states.to(read.dtype).index_copy(0, users, read)
        return states

    def unwrap(self, item_embeddings: torch.Tensor) -> nn.Module:
        """Return a copy of the trained model with an item table of its own.

        Args:
            item_embeddings: (N + 1, D), row 0 = padding, such as
                `model.encode_catalogue()["text"]`.

        Returns:
            A copy of the user's original model with the embeddings as its item table. The item of
            row r has the id r. If the padding id p is not 0, the rows 1..p have the ids 0..p - 1,
            and the later rows have the id r.

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
        """Run `forward` for rows that contain at least one item each."""
        numbers, rows = _number_items(inputs_embeds, mask, item_ids)
        right = self.padding_side == "right"
        order = (~mask if right else mask).long().argsort(dim=1, stable=True)  # moves the padding
        aligned = mask.gather(1, order)
        returned = self._run(numbers.gather(1, order), aligned, rows)
        states = take(returned, self.call.key)  # (B, D) or (B, F, D)
        batch, length = mask.shape
        given = self.call.fixed_length or length
        if right and self._returns_all and 0 < given - states.shape[1] < given:
            # the model packed its input, which dropped the padding common to all rows
            states = F.pad(states, (0, 0, 0, given - states.shape[1]))
        expected = ((batch, given) if self._returns_all else (batch,)) + (self.output_size,)
        if states.shape != expected:
            raise ValueError(
                f"{type(self.module).__name__} returned {describe(returned)}, expected {expected} "
                "as in its trial run"
            )
        if not self._returns_all:
            return states
        states = states[:, :length] if right else states[:, -length:]  # (B, F, D) -> (B, L, D)
        if self.last_only:
            last = aligned.sum(1) - 1 if right else -1
            return states[torch.arange(batch, device=states.device), last]  # (B, L, D) -> (B, D)
        return restore(states, order.argsort(1)).masked_fill(~mask.unsqueeze(-1), 0.0)

    def _run(self, numbers: torch.Tensor, mask: torch.Tensor, rows: torch.Tensor) -> Any:
        """Call the model on aligned item numbers (B, L), with the rows (U + 1, D) as its table."""
        more = (self.call.fixed_length or numbers.shape[1]) - numbers.shape[1]
        padding = (0, more) if self.padding_side == "right" else (more, 0)
        ids = self.call.ids(F.pad(numbers, padding))  # (B, L) -> (B, F)
        with self._table.fed(self._by_id(rows), self.call.padding_id):
            return self.call.run(self.module, ids, F.pad(mask, padding))

    @property
    def _table(self) -> FedTable:
        # `replace_table` put it there
        return cast(FedTable, self.module.get_submodule(self.item_embedding))

    def _by_id(self, rows: torch.Tensor) -> torch.Tensor:
        """Reorder rows from item numbers (padding first) to ids."""
        if not self.call.padding_id:
            return rows
        ids = self.call.ids(torch.arange(len(rows), device=rows.device))
        size = max(len(rows), self.call.padding_id + 1)
        return rows.new_zeros(size, rows.shape[1]).index_copy(0, ids, rows)

    def _find_output(self, like: torch.Tensor) -> tuple[IdCall, int, bool]:
        """Run the model to find its hidden states and their shape.

        Returns:
            The call with the key of the hidden states, the width, and whether states are returned
            for all positions.
        """
        name, width = f"{type(self.module).__name__}.{self.call.method}", like.shape[1]
        items = 3 if width != 4 else 4  # scores per item must not be as wide as a state
        length = self.call.fixed_length or max(TRIED_LENGTHS)
        numbers = (torch.arange(2)[:, None] + torch.arange(length)) % items + 1
        numbers = numbers.to(like.device)  # (2, L)
        try:
            with torch.no_grad(), seeded(self):
                returned = self._run(numbers, numbers > 0, _random_rows(items, like))
            key = find_hidden_states(returned, batch=2, length=length, hidden_size=width)
        except Exception as error:
            tied = [".".join(names) for names in self._table.tied]
            gone = f" ({', '.join(tied)} shared its weight and was removed too)" if tied else ""
            raise ValueError(
                f"{name} does not run with its item table {self.item_embedding!r} replaced by "
                f"the item encoder{gone}: {summary(error)}. It must return hidden states, not "
                "scores; if another method does, pass its name as method="
            ) from error
        states = take(returned, key)
        if states.shape[-1] != width and states.shape[-1] in (
            items + 1,
            self._table.num_embeddings,
        ):
            raise ValueError(
                f"{name} returned {describe(returned)}, which looks like a score for every item of "
                "its table: pass method=, the name of the method that returns the hidden states"
            )
        return dataclasses.replace(self.call, key=key), states.shape[-1], states.ndim == 3

    def _find_padding_side(self, stated: PaddingSide | None, like: torch.Tensor) -> PaddingSide:
        """Find the side on which padding does not change the state at the last item."""
        rows = _random_rows(4, like)
        length = min(self.call.fixed_length or 2, 2)
        takes_lengths = "lengths" in self.call.roles.values()
        sides: tuple[PaddingSide, ...] = ("right",) if takes_lengths else ("right", "left")
        sides = (stated,) if stated else sides
        readers: list[PaddingSide] = []
        for side in sides:
            self.padding_side = side
            state = self._last_state(rows, [[1, 2], [3, 1]], length)
            if torch.equal(state, self._last_state(rows, [[1, 3], [3, 2]], length)):
                continue
            readers.append(side)
            if stated or takes_lengths or self.call.fixed_length is not None:
                return side
            padded = self._last_state(rows, [[1, 2], [3, 1]], length, padding=1)
            if not differs(state, padded, other_shape(state)):
                return side
        name = f"{type(self.module).__name__}.{self.call.method}"
        if not readers:
            raise ValueError(
                f"with padding on the {' or the '.join(sides)}, the state that {name} returns for "
                "the last item does not depend on that item: check which position it reads, or "
                "pass padding_side= for the side on which it expects padding"
            )
        raise ValueError(
            f"the state that {name} returns depends on the number of padding positions, on either "
            "side: let it take lengths or mask its padding; or pass padding_side=, the side on "
            "which it expects padding, and fixed_length=, the length to which all sequences are "
            "padded"
        )

    def _last_state(
        self, rows: torch.Tensor, items: list[list[int]], length: int, padding: int = 0
    ) -> torch.Tensor:
        """The states (2, D) at the last item of two sequences with left padding."""
        numbers = torch.tensor(items, device=rows.device)[:, -length:]
        numbers = F.pad(numbers, (padding, 0))
        with torch.no_grad(), seeded(self):
            states: torch.Tensor = self(rows[numbers], numbers > 0, numbers)
        return states if self.last_only else states[:, -1]


def _number_items(
    inputs_embeds: torch.Tensor, mask: torch.Tensor, item_ids: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Number the U items of a batch from 1 and take the embedding at each item's first position.

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
    """Random embeddings (items + 1, D) for trial runs, with the device and dtype of the table."""
    rows = torch.randn(items, like.shape[1], generator=torch.Generator().manual_seed(0))
    return F.pad(rows, (0, 0, 1, 0)).to(like)


@register_bridge("id-lookup", matches=takes_item_ids_only, priority=-20)
def _build(backbone: nn.Module, hidden_size: int | None) -> nn.Module:
    try:
        adapted = IdLookupBackbone(backbone)
        adapted.holds_copy = True
        return adapted
    except ValueError as error:
        raise ValueError(
            f"{error}. To set these arguments, pass "
            f"IdLookupBackbone({type(backbone).__name__}(...), ...) as the backbone"
        ) from (error.__cause__ or error)
