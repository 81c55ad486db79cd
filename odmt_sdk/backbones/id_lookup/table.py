"""`FedTable`: replaces the item table of a model; its rows are set anew for every batch.

Letters: R rows of the table, D hidden size.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional as F

from odmt_sdk.backbones.signature.trial import copy_module


class FedTable(nn.Module):
    """Replaces an `nn.Embedding` and looks ids up in rows that are set for a single call.

    It has no parameters, so nothing in it is trained or saved.

    Args:
        table: the embedding that it replaces.
        path: name of that embedding in the user's model, for error messages.
        tied: (module, parameter) names that shared the weight of the table, such as an output
            layer with tied weights.

    Examples:
        >>> table = FedTable(nn.Embedding(100, 2), "item_embedding")
        >>> with table.fed(torch.tensor([[0.0, 0.0], [1.0, 2.0]])):
        ...     table(torch.tensor([1, 0]))
        tensor([[1., 2.],
                [0., 0.]])
    """

    def __init__(
        self, table: nn.Embedding, path: str, tied: tuple[tuple[str, str], ...] = ()
    ) -> None:
        super().__init__()
        self.num_embeddings = table.num_embeddings
        self.embedding_dim = table.embedding_dim
        self.padding_idx = table.padding_idx
        self.path = path
        self.tied = tied
        self._rows: torch.Tensor | None = None
        self._padding_id = 0

    @contextmanager
    def fed(self, rows: torch.Tensor, padding_id: int = 0) -> Iterator[None]:
        """Set the rows of the table for the duration of the context.

        Args:
            rows: (R, D), row i belongs to id i.
            padding_id: the row that receives no gradient.
        """
        self._rows, self._padding_id = rows, padding_id
        try:
            yield
        finally:
            self._rows = None

    @property
    def weight(self) -> torch.Tensor:
        """The current rows, (R, D).

        Raises:
            RuntimeError: if it is read outside a call of the bridge.
        """
        if self._rows is None:
            raise RuntimeError(
                f"the item table {self.path!r} was read outside a call of its bridge: its rows "
                "come from the item encoder and exist for one batch only. Read the table within "
                "the model's forward, and not within activation checkpointing"
            )
        return self._rows

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Look ids up.

        Args:
            input: ids, of any shape.

        Returns:
            One row per id; the last dimension is D.

        Raises:
            IndexError: if an id does not belong to the batch. It is checked on the CPU only.
        """
        rows = self.weight
        if input.device.type == "cpu" and input.numel():  # on a GPU the check would synchronize
            low, high = int(input.min()), int(input.max())
            if low < 0 or high >= len(rows):
                raise IndexError(
                    f"id {low if low < 0 else high} was looked up in {self.path!r}, but it is not "
                    f"an item of the batch, whose ids are 0..{len(rows) - 1}. Other ids, such as "
                    "a mask token, have no embedding in the item encoder: keep them in a separate "
                    "table"
                )
        return F.embedding(input, rows, padding_idx=self._padding_id)

    def extra_repr(self) -> str:
        """Show the size, as `nn.Embedding` does."""
        return f"{self.num_embeddings}, {self.embedding_dim}, fed by the item encoder"


def replace_table(module: nn.Module, path: str) -> nn.Module:
    """Copy a model and replace its item table by a `FedTable`.

    The copy does not contain the weight of the table under any name: parameters of other layers
    that are tied to it become None.

    Args:
        module: the user's model; it is not changed.
        path: name of the item table in the model.

    Returns:
        The copy.

    Raises:
        TypeError: if there is no `nn.Embedding` at `path`.
    """
    table = module.get_submodule(path)
    if not isinstance(table, nn.Embedding):
        raise TypeError(f"{path!r} is a {type(table).__name__}, expected an nn.Embedding")
    tied = tuple(
        (owner, name)
        for owner, part in module.named_modules()
        for name, parameter in part.named_parameters(recurse=False)
        if parameter is table.weight and part is not table
    )
    copied = copy_module(module, {id(table): FedTable(table, path, tied)})
    for owner, name in tied:
        setattr(copied.get_submodule(owner), name, None)
    return copied


def restore_table(module: nn.Module, path: str, rows: torch.Tensor) -> nn.Module:
    """Copy a model and replace its `FedTable` by an `nn.Embedding`.

    Args:
        module: a model from `replace_table`; it is not changed.
        path: name of the `FedTable`.
        rows: (R, D) weight of the embedding.

    Returns:
        The copy. Layers that were tied to the original table are tied to the new embedding.

    Raises:
        TypeError: if there is no `FedTable` at `path`.
    """
    fed = module.get_submodule(path)
    if not isinstance(fed, FedTable):
        raise TypeError(f"{path!r} is a {type(fed).__name__}, expected a FedTable")
    table = nn.Embedding.from_pretrained(rows, freeze=False, padding_idx=fed.padding_idx)
    copied = copy_module(module, {id(fed): table})
    for owner, name in fed.tied:
        setattr(copied.get_submodule(owner), name, table.weight)
    return copied
