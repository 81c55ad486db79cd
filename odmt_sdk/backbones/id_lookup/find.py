"""Discovery of a model's item table, position table and lengths, by recording its lookups.

Letters: L positions.
"""

import dataclasses
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from odmt_sdk.backbones.id_lookup.call import ID_NAMES, IdCall, read_roles
from odmt_sdk.backbones.signature.roles import EMBEDDING_WORDS
from odmt_sdk.backbones.signature.trial import seeded, summary
from odmt_sdk.backbones.undisturbed import tried

LENGTH_ATTRIBUTES = (
    "max_seq_length",
    "max_seq_len",
    "max_length",
    "max_len",
    "maxlen",
    "seq_length",
    "seq_len",
)
TRIED_LENGTHS = (3, 2, 1)  # a model that runs at all of these runs at any length up to its limit
MOST_CANDIDATES = 32


class WatchedModel:
    """Records the ids that a model looks up in each embedding table; created by `watching`.

    An id outside a table raises `IndexError` on every device. Without this check, such an id would
    make a GPU unusable for the whole process.

    Args:
        model: the user's model; hooks are added to it.
    """

    def __init__(self, model: nn.Module) -> None:
        self.name = type(model).__name__
        self.model = model
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
        """Run the model on two full sequences in which two items alternate.

        Args:
            call: how to call the model.
            length: L.
            items: numbers of the two items.

        Returns:
            Name of the table -> the ids looked up, concatenated, on the CPU.
        """
        self._seen = {table: [torch.empty(0, dtype=torch.long)] for table in self.tables.values()}
        device = next(self.model.parameters(), torch.empty(0)).device
        turns = (torch.arange(2)[:, None] + torch.arange(length)) % 2  # (2, L)
        ids = call.ids(torch.tensor(items)[turns].to(device))
        with torch.no_grad(), seeded(self.model):
            call.run(self.model, ids, torch.ones_like(ids, dtype=torch.bool))
        return {path: torch.cat(self._seen[table]) for path, table in self.tables.items()}

    def stated_lengths(self) -> list[int]:
        """The lengths in attributes such as `max_seq_length`."""
        values: list[Any] = [getattr(self.model, name, None) for name in LENGTH_ATTRIBUTES]
        return [v for v in values if isinstance(v, int) and not isinstance(v, bool) and v > 0]

    def _note(self, table: nn.Embedding, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        (ids,) = args or kwargs.values()
        seen = ids.detach().flatten().long().cpu()
        if len(seen) and not 0 <= int(seen.min()) <= int(seen.max()) < table.num_embeddings:
            raise IndexError(f"ids {int(seen.min())} to {int(seen.max())} looked up in {table}")
        self._seen[table].append(seen)


@contextmanager
def watching(model: nn.Module) -> Iterator[WatchedModel]:
    """Put a model into eval mode and record its lookups; the model is restored on exit.

    Args:
        model: the user's model.

    Yields:
        The model with recording hooks.
    """
    with tried(model):
        yield WatchedModel(model)


def find_lengths(watched: WatchedModel, call: IdCall) -> IdCall:
    """Determine the lengths at which a model runs, and whether it takes NumPy arrays.

    A model that does not run at 1, 2 and 3 positions needs a fixed length. This is the length in an
    attribute such as `max_seq_length`, or else the only size among its parameters that works.

    Args:
        watched: the model.
        call: how to call the model, with `fixed_length` if the user gave it.

    Returns:
        The call with `as_numpy` and `fixed_length` set.

    Raises:
        ValueError: if the model runs at no length, or at several fixed lengths.
    """
    failures: list[Exception] = []

    def runs(attempt: IdCall, length: int) -> bool:
        try:
            watched.lookups(attempt, length)
        except Exception as error:  # a user's model may raise anything
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
                f"{watched.name} reads sequences of {found} positions, but not of all lengths "
                f"{sorted(TRIED_LENGTHS)}: pass fixed_length=, the length to which to pad"
            ) from failures[0]
    tried = call.fixed_length or sorted(TRIED_LENGTHS)
    raise ValueError(
        f"{watched.name}.{call.method} does not run on item ids (2, L) with L = {tried}, given as "
        f"{dict(call.roles)}: {summary(failures[0])}. If it reads only one "
        "length, pass fixed_length=; if its parameters take other values, pass arguments="
    ) from failures[0]


def find_item_table(watched: WatchedModel, call: IdCall, name: str | None) -> str:
    """Find the `nn.Embedding` that a model looks item ids up in.

    The model runs on two batches with the same lengths and repetitions but with different items.
    The table whose lookups differ is the item table. Lookups of positions or of slots in a session
    graph do not differ.

    Args:
        watched: the model.
        call: how to call the model.
        name: name of the table if the user gave it, else None.

    Returns:
        The name of the item table.

    Raises:
        ValueError: if no table is found, several tables are looked up by item, the table does more
            than a lookup, or the model looks up ids that are not items of the batch.
    """
    model, tables = watched.name, watched.tables
    if name is not None:
        named = dict(watched.model.named_modules(remove_duplicate=False)).get(name)
        found_names = [path for path, table in tables.items() if table is named]
        if not found_names:
            raise ValueError(
                f"item_embedding={name!r} is not an nn.Embedding of {model}; it has {list(tables)}"
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
            f"{model} does not look up item ids in any of its nn.Embedding modules "
            f"({list(tables)}). If it reads the weight of one directly, name it with "
            "item_embedding=. A bare nn.Parameter cannot be replaced: make it an nn.Embedding"
        )
    if len(found) > 1:
        raise ValueError(
            f"{model} looks up items in {len(found)} tables, {found}, but the item encoder can "
            "replace only one; the rows of the others would not belong to the items. Remove the "
            "lookups in all but one"
        )
    (path,) = found
    if type(tables[path]).forward is not nn.Embedding.forward:
        raise ValueError(
            f"the item table {path!r} is a {type(tables[path]).__name__} with its own forward, "
            "which would not run: use an nn.Embedding, and do the rest after the lookup"
        )
    items = call.ids(torch.arange(3)).tolist()  # of the first batch, and padding
    strange = sorted(set(seen[path].tolist()) - set(items))
    if strange:
        raise ValueError(
            f"{model} looks up the ids {strange} in its item table {path!r}. They are not items of "
            "the batch (a mask or start token?) and have no embedding in the item encoder: keep "
            "them in a separate table. If the id is padding, pass padding_id="
        )
    return path


def find_max_length(watched: WatchedModel, call: IdCall, item_table: str) -> int | None:
    """Find the longest sequence that a model can read.

    A table is a position table if one more position makes the model look up the next row, and if
    the model fails beyond the last row. A length in an attribute such as `max_seq_length` counts,
    too.

    Args:
        watched: the model.
        call: how to call the model.
        item_table: name of the item table, which is not a position table.

    Returns:
        The longest L; None if no limit is found.
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
        except Exception:  # a model may raise anything beyond its last position
            limits.append(limit)
    return min(limits, default=None)


def takes_item_ids_only(backbone: object) -> bool:
    """Whether a backbone takes item ids and no embeddings.

    The names of its parameters decide. If they are inconclusive, a trial run on ids decides.
    """
    if not isinstance(backbone, nn.Module):
        return False
    if not any(isinstance(part, nn.Embedding) for part in backbone.modules()):
        return False
    try:
        parameters = inspect.signature(backbone.forward).parameters
    except (TypeError, ValueError):  # not implemented in Python
        return False
    if any(EMBEDDING_WORDS & set(name.lower().split("_")) for name in parameters):
        return False
    if any(name in ID_NAMES for name in parameters):
        return True
    try:
        call = IdCall("forward", read_roles(backbone.forward, {}, type(backbone).__name__))
        with watching(backbone) as model:
            _, by_item = _lookups_by_item(model, find_lengths(model, call))
    except Exception:  # a model of another kind, for which this is not a valid input
        return False
    return bool(by_item)


def _lookups_by_item(
    watched: WatchedModel, call: IdCall
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The lookups of a batch, and the tables whose lookups differ for a batch of other items."""
    length = call.fixed_length or max(TRIED_LENGTHS)
    first, second = (watched.lookups(call, length, items) for items in ((1, 2), (3, 4)))
    return first, [path for path in first if not torch.equal(first[path], second[path])]
