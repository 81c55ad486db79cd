"""Calling a model that takes item ids: what its parameters get.

Letters: B users, L positions.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import nn

from odmt_sdk.backbones.returned import Key
from odmt_sdk.backbones.signatures import LENGTH_WORDS

Role = Literal["item_ids", "lengths", "attention_mask", "padding_mask"]

ID_NAMES = ("item_seq", "item_seqs", "item_ids", "item_id_list", "input_ids", "log_seqs")
"""Names that cannot mean anything but item ids."""
SEQUENCE_NAMES = ("seq", "seqs", "sequence", "sequences", "items", "session", "sessions", "history")
MASK_NAMES: dict[str, Role] = {
    "attention_mask": "attention_mask",
    "key_padding_mask": "padding_mask",
    "src_key_padding_mask": "padding_mask",
}


@dataclass(frozen=True)
class IdCall:
    """How a model that takes item ids is called.

    Args:
        method: its name, usually "forward".
        roles: parameter name -> what it gets.
        padding_id: the id of padding.
        as_numpy: whether it takes NumPy arrays in place of tensors.
        fixed_length: the one L it reads, or None for any.
        key: where in the returned value the hidden states are.
    """

    method: str
    roles: Mapping[str, Role]
    padding_id: int = 0
    as_numpy: bool = False
    fixed_length: int | None = None
    key: Key = None

    def ids(self, numbers: torch.Tensor) -> torch.Tensor:
        """Ids for items numbered 1, 2, ..., and for padding, 0."""
        if not self.padding_id:
            return numbers
        items = numbers - 1 + (numbers > self.padding_id)  # from 0 on, leaving out the padding id
        return items.masked_fill(numbers == 0, self.padding_id)

    def run(self, module: nn.Module, ids: torch.Tensor, mask: torch.Tensor) -> Any:
        """Call the model.

        Args:
            module: the model.
            ids: (B, L).
            mask: boolean (B, L), True = real.

        Returns:
            Whatever it returns.
        """
        given: dict[Role, torch.Tensor] = {
            "item_ids": ids,
            "lengths": mask.sum(1),
            "attention_mask": mask.long(),
            "padding_mask": ~mask,
        }
        values: dict[str, Any] = {name: given[role] for name, role in self.roles.items()}
        if self.as_numpy:
            values = {name: value.cpu().numpy() for name, value in values.items()}
        called = module if self.method == "forward" else getattr(module, self.method)
        return called(**values)


def read_roles(
    function: Callable[..., object], stated: Mapping[str, Role], owner: str
) -> dict[str, Role]:
    """Tell from a signature which parameter takes what.

    Item ids go to the parameter with a usual name for them, else to the only one that must be
    given; lengths to names with a word for them, such as `item_seq_len`; masks to the names that
    transformers and torch use. Optional parameters of other names keep their defaults.

    Args:
        function: the model's forward.
        stated: what the user says; it goes first.
        owner: name for messages.

    Returns:
        Parameter name -> role.

    Raises:
        ValueError: if no parameter can be told to take item ids, or one must be given that cannot
            be.
    """
    parameters = {
        name: parameter
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }
    for name, role in stated.items():
        if name not in parameters or role not in get_args(Role):
            raise ValueError(
                f"arguments={{{name!r}: {role!r}}} does not fit {owner}: its parameters are "
                f"{list(parameters)}, and each can get one of {get_args(Role)}"
            )
    roles = dict(stated)
    for name in [name for name in parameters if name not in roles]:
        words = set(name.lower().split("_"))
        is_number = isinstance(parameters[name].default, int)
        if words & LENGTH_WORDS and "max" not in words and not is_number:
            roles[name] = "lengths"
        elif name in MASK_NAMES:
            roles[name] = MASK_NAMES[name]
    free = [name for name in parameters if name not in roles]
    needed = [name for name in free if parameters[name].default is inspect.Parameter.empty]
    if "item_ids" not in roles.values():
        named = [name for name in free if name in ID_NAMES + SEQUENCE_NAMES]
        found = named or (needed if len(needed) == 1 else [])
        if not found:
            raise ValueError(
                f"cannot tell which parameter of {owner} takes the item ids, it has "
                f"{list(parameters)}: say it with arguments={{name: 'item_ids'}}"
            )
        roles[found[0]] = "item_ids"
    missing = [name for name in needed if name not in roles]
    if missing:
        raise ValueError(
            f"{owner} must be given {missing}, and only item ids, lengths and masks can be: name "
            "another method with method=, or give the parameters defaults. For one that takes "
            f"these, say arguments={{{missing[0]!r}: one of {get_args(Role)}}}; in attention_mask "
            "1 = real, in padding_mask True = padding"
        )
    return roles
