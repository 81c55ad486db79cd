"""The stand-in for a user's item table: an embedding whose rows are given anew with every batch.

Letters: R rows of the table, D hidden size.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional as F


class FedTable(nn.Module):
    """Looks ids up like the `nn.Embedding` it replaces, in rows that are lent to it for one call.

    It has no parameters: nothing of it is trained or saved.

    Args:
        table: the embedding it stands for.
        path: where that embedding is in the user's model, for messages.
        tied: (module, parameter) names that shared the table's weight, such as an output layer.

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
        """Lend rows to the table.

        Args:
            rows: (R, D), row i belongs to id i.
            padding_id: the row that gets no gradient.
        """
        self._rows, self._padding_id = rows, padding_id
        try:
            yield
        finally:
            self._rows = None

    @property
    def weight(self) -> torch.Tensor:
        """The rows at hand, (R, D).

        Raises:
            RuntimeError: outside of a call of the adapter, where there are none.
        """
        if self._rows is None:
            raise RuntimeError(
                f"the item table {self.path!r} was read outside of a call of its adapter: its rows "
                "come from the item encoder and are there for one batch only. Read it within the "
                "model's forward, and keep it out of activation checkpoints"
            )
        return self._rows

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Look ids up.

        Args:
            input: ids of any shape.

        Returns:
            Rows, one per id; the last dimension is D.

        Raises:
            IndexError: if an id is none of the batch's; noticed on CPU only.
        """
        rows = self.weight
        if input.device.type == "cpu" and input.numel():  # elsewhere it would wait
            low, high = int(input.min()), int(input.max())
            if low < 0 or high >= len(rows):
                raise IndexError(
                    f"id {low if low < 0 else high} was looked up in {self.path!r}, but it is no "
                    f"item of the batch, whose ids are 0..{len(rows) - 1}: ids that the model "
                    "makes up, such as a mask token's, have no embedding in the item encoder"
                )
        return F.embedding(input, rows, padding_idx=self._padding_id)

    def extra_repr(self) -> str:
        """The size, as `nn.Embedding` shows it."""
        return f"{self.num_embeddings}, {self.embedding_dim}, fed by the item encoder"


def replace_table(module: nn.Module, path: str) -> nn.Module:
    """Copy a model with a `FedTable` in place of its item table.

    The copy holds nothing of the table's weight, whether under one name or several; parameters of
    other layers that are the same tensor become None.

    Args:
        module: the user's model; not changed.
        path: name of the table in it.

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
    copied = copy.deepcopy(module, {id(table): FedTable(table, path, tied)})
    for owner, name in tied:
        setattr(copied.get_submodule(owner), name, None)
    return copied


def restore_table(module: nn.Module, path: str, rows: torch.Tensor) -> nn.Module:
    """Copy a model with an `nn.Embedding` in place of its `FedTable`.

    Args:
        module: made by `replace_table`; not changed.
        path: name of its `FedTable`.
        rows: (R, D) the weight of the embedding.

    Returns:
        The copy; layers that were tied to the table are tied to the embedding.

    Raises:
        TypeError: if there is no `FedTable` at `path`.
    """
    fed = module.get_submodule(path)
    if not isinstance(fed, FedTable):
        raise TypeError(f"{path!r} is a {type(fed).__name__}, expected a FedTable")
    table = nn.Embedding.from_pretrained(rows, freeze=False, padding_idx=fed.padding_idx)
    copied = copy.deepcopy(module, {id(fed): table})
    for owner, name in fed.tied:
        setattr(copied.get_submodule(owner), name, table.weight)
    return copied
