"""Finding a model's item table, position table and lengths by running it and watching its lookups.

Letters: L positions.
"""

import dataclasses
import inspect
from typing import Any

import torch
from torch import nn

from odmt_sdk.backbones.id_lookup_call import ID_NAMES, IdCall, read_roles
from odmt_sdk.backbones.signatures import EMBEDDING_WORDS
from odmt_sdk.backbones.trial import copy_module, seeded, summary

LENGTH_ATTRIBUTES = (
    "max_seq_length",
    "max_seq_len",
    "max_length",
    "max_len",
    "maxlen",
    "seq_length",
    "seq_len",
)
TRIED_LENGTHS = (3, 2, 1)  # a model that reads each of these reads any up to its limit
MOST_CANDIDATES = 32


class WatchedModel:
    """A copy of a model, in eval mode, that notes which ids it looks up in which table.

    An id beyond the end of a table raises `IndexError` on every device; without that it would
    break the device for the whole process.

    Args:
        model: the user's model; not changed.
    """

    def __init__(self, model: nn.Module) -> None:
        self.name = type(model).__name__
        self.model = copy_module(model)
        self.tables: dict[str, nn.Embedding] = {
            path: part
            for path, part in self.model.named_modules()
            if isinstance(part, nn.Embedding)
        }
        self._seen: dict[nn.Module, list[torch.Tensor]] = {}
        for table in self.tables.values():
            table.register_forward_pre_hook(self._note, with_kwargs=True)

    def lookups(
        self, call: IdCall, length: int, items: tuple[int, int] = (1, 2)
    ) -> dict[str, torch.Tensor]:
        """Run the model on two full sequences in which two items take turns.

        Args:
            call: how it is called.
            length: L.
            items: their numbers.

        Returns:
            Name of table -> the ids looked up, one after the other, on CPU.
        """
        self._seen = {table: [torch.empty(0, dtype=torch.long)] for table in self.tables.values()}
        device = next(self.model.parameters(), torch.empty(0)).device
        turns = (torch.arange(2)[:, None] + torch.arange(length)) % 2  # (2, L)
        ids = call.ids(torch.tensor(items)[turns].to(device))
        with torch.no_grad(), seeded(self.model):
            call.run(self.model, ids, torch.ones_like(ids, dtype=torch.bool))
        return {path: torch.cat(self._seen[table]) for path, table in self.tables.items()}

    def stated_lengths(self) -> list[int]:
        """The lengths that attributes such as `max_seq_length` state."""
        values: list[Any] = [getattr(self.model, name, None) for name in LENGTH_ATTRIBUTES]
        return [v for v in values if isinstance(v, int) and not isinstance(v, bool) and v > 0]

    def _note(self, table: nn.Embedding, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        (ids,) = args or kwargs.values()
        seen = ids.detach().flatten().long().cpu()
        if len(seen) and not 0 <= int(seen.min()) <= int(seen.max()) < table.num_embeddings:
            raise IndexError(f"ids {int(seen.min())} to {int(seen.max())} looked up in {table}")
        self._seen[table].append(seen)


def find_lengths(watched: WatchedModel, call: IdCall) -> IdCall:
    """Find out at which lengths a model runs, and whether it takes NumPy arrays.

    A model that cannot read 1, 2 and 3 positions needs one fixed length: the one it states in an
    attribute such as `max_seq_length`, else the only one among its parameters' sizes that works.

    Args:
        watched: the model.
        call: how it is called, with `fixed_length` if the user said it.

    Returns:
        The call, with `as_numpy` and `fixed_length`.

    Raises:
        ValueError: if it runs at no length, or at some but not at any.
    """
    failures: list[Exception] = []

    def runs(attempt: IdCall, length: int) -> bool:
        try:
            watched.lookups(attempt, length)
        except Exception as error:  # whatever the user's model raises
            failures.append(error)
            return False
        return True

    for as_numpy in (False, True):
        attempt = dataclasses.replace(call, as_numpy=as_numpy)
        if call.fixed_length is not None:
            if runs(attempt, call.fixed_length):
                return attempt
            continue
        if all(runs(attempt, length) for length in TRIED_LENGTHS):
            return attempt
        sizes = {size for parameter in watched.model.parameters() for size in parameter.shape}
        found = [length for length in watched.stated_lengths() if runs(attempt, length)][:1]
        found = found or [n for n in sorted(sizes - {1})[:MOST_CANDIDATES] if runs(attempt, n)]
        if len(found) == 1:
            return dataclasses.replace(attempt, fixed_length=found[0])
        if found:
            raise ValueError(
                f"{watched.name} reads sequences of {found} positions, but not of each of "
                f"{sorted(TRIED_LENGTHS)}: say with fixed_length= to which length to pad"
            ) from failures[0]
    tried = call.fixed_length or sorted(TRIED_LENGTHS)
    raise ValueError(
        f"{watched.name}.{call.method} does not run on item ids (2, L) with L = {tried}, given as "
        f"{dict(call.roles)}: {summary(failures[0])}. If it reads one length "
        "only, say it with fixed_length=; if its parameters take something else, with arguments="
    ) from failures[0]


def find_item_table(watched: WatchedModel, call: IdCall, name: str | None) -> str:
    """Find the `nn.Embedding` that a model looks item ids up in.

    The model reads two batches of the same lengths and repetitions but of other items. The table
    whose lookups differ is the item table; those of positions or of session-graph slots do not.

    Args:
        watched: the model.
        call: how it is called.
        name: of the table, if the user said it.

    Returns:
        Its name.

    Raises:
        ValueError: if there is none, several tables are looked up by item, the table makes more of
            an id than a lookup, or the model looks up ids that stand for no item.
    """
    model, tables = watched.name, watched.tables
    if name is not None:
        named = dict(watched.model.named_modules(remove_duplicate=False)).get(name)
        found_names = [path for path, table in tables.items() if table is named]
        if not found_names:
            raise ValueError(
                f"item_embedding={name!r} is no nn.Embedding of {model}; it has {list(tables)}"
            )
        (name,) = found_names
    try:
        seen, by_item = _lookups_by_item(watched, call)
    except Exception as error:
        raise ValueError(
            f"{model}.{call.method} does not run on four items: {summary(error)}. "
            "Its item table needs at least 5 rows"
        ) from error
    found = [path for path in tables if path == name or path in by_item]
    if not found:
        raise ValueError(
            f"{model} looks its item ids up in none of its nn.Embedding modules ({list(tables)}). "
            "If it reads the weight of one directly, say which with item_embedding=; a table held "
            "as a bare nn.Parameter cannot be fed, make it an nn.Embedding"
        )
    if len(found) > 1:
        raise ValueError(
            f"{model} looks items up in {len(found)} tables, {found}, and only one can be fed from "
            "the item encoder; the rows of another would not belong to its items. Remove the "
            "lookups of all but one"
        )
    (path,) = found
    if type(tables[path]).forward is not nn.Embedding.forward:
        raise ValueError(
            f"the item table {path!r} is a {type(tables[path]).__name__} with a forward of its "
            "own, which would be left out: use an nn.Embedding, and do the rest after the lookup"
        )
    items = call.ids(torch.arange(3)).tolist()  # of the first batch, and padding
    strange = sorted(set(seen[path].tolist()) - set(items))
    if strange:
        raise ValueError(
            f"{model} looks the ids {strange} up in its item table {path!r}, which are no items of "
            "the batch (a mask or start token?) and have no embedding in the item encoder: keep "
            "them in a table of their own. If it is padding, say so with padding_id="
        )
    return path


def find_max_length(watched: WatchedModel, call: IdCall, item_table: str) -> int | None:
    """Find the longest sequence that a model reads.

    A table is a position table if one more position makes it look up one further row, and if the
    model fails where it ends. A length stated in an attribute such as `max_seq_length` counts too.

    Args:
        watched: the model.
        call: how it is called.
        item_table: name of the table that holds items, not positions.

    Returns:
        The longest L, or None if nothing says it.
    """
    if call.fixed_length is not None:
        return call.fixed_length
    length = max(TRIED_LENGTHS)
    shorter, longer = (watched.lookups(call, n) for n in (length - 1, length))
    limits = watched.stated_lengths()
    for path, table in watched.tables.items():
        if path == item_table or not len(shorter[path]):
            continue
        last = int(longer[path].max())
        if last != int(shorter[path].max()) + 1:
            continue
        limit = length + table.num_embeddings - 1 - last
        try:
            watched.lookups(call, limit + 1)
        except Exception:  # whatever the user's model raises beyond its last position
            limits.append(limit)
    return min(limits, default=None)


def takes_item_ids_only(backbone: object) -> bool:
    """Whether a backbone takes item ids, and no embeddings.

    A usual name among its parameters says it; where the names say nothing, a run on ids does.
    """
    if not isinstance(backbone, nn.Module):
        return False
    if not any(isinstance(part, nn.Embedding) for part in backbone.modules()):
        return False
    try:
        parameters = inspect.signature(backbone.forward).parameters
    except (TypeError, ValueError):  # not written in Python
        return False
    if any(EMBEDDING_WORDS & set(name.lower().split("_")) for name in parameters):
        return False
    if any(name in ID_NAMES for name in parameters):
        return True
    try:
        call = IdCall("forward", read_roles(backbone.forward, {}, type(backbone).__name__))
        watched = WatchedModel(backbone)
        _, by_item = _lookups_by_item(watched, find_lengths(watched, call))
    except Exception:  # a model of another kind, to which this is no input
        return False
    return bool(by_item)


def _lookups_by_item(
    watched: WatchedModel, call: IdCall
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """What is looked up for one batch, and in which tables it is something else for another."""
    length = call.fixed_length or max(TRIED_LENGTHS)
    first, second = (watched.lookups(call, length, items) for items in ((1, 2), (3, 4)))
    return first, [path for path in first if not torch.equal(first[path], second[path])]
