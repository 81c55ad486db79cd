"""How to call a model that takes item ids: which parameter receives what.

Letters: B users, L positions.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import nn

from odmt_sdk.backbones.signature.returned import Key
from odmt_sdk.backbones.signature.roles import LENGTH_WORDS

Role = Literal["item_ids", "lengths", "attention_mask", "padding_mask"]

ID_NAMES = ("item_seq", "item_seqs", "item_ids", "item_id_list", "input_ids", "log_seqs")
"""Parameter names that always mean item ids."""
SEQUENCE_NAMES = ("seq", "seqs", "sequence", "sequences", "items", "session", "sessions", "history")
MASK_NAMES: dict[str, Role] = {
    "attention_mask": "attention_mask",
    "key_padding_mask": "padding_mask",
    "src_key_padding_mask": "padding_mask",
}


@dataclass(frozen=True)
class IdCall:
    """The way to call a model that takes item ids.

    Args:
        method: name of the method to call, usually "forward".
        roles: parameter name -> the kind of value that it receives.
        padding_id: the id of padding.
        as_numpy: whether to pass NumPy arrays instead of tensors.
        fixed_length: the only length L that the model can read; None = any length.
        key: where the hidden states are in the return value.
    """

    method: str
    roles: Mapping[str, Role]
    padding_id: int = 0
    as_numpy: bool = False
    fixed_length: int | None = None
    key: Key = None

    def ids(self, numbers: torch.Tensor) -> torch.Tensor:
        """Convert item numbers (1, 2, ..., with 0 = padding) to ids."""
        if not self.padding_id:
            return numbers
        items = numbers - 1 + (numbers > self.padding_id)  # counts from 0, skips the padding id
        return items.masked_fill(numbers == 0, self.padding_id)

    def run(self, module: nn.Module, ids: torch.Tensor, mask: torch.Tensor) -> Any:
        """Call the model.

        Args:
            module: the model.
            ids: (B, L).
            mask: boolean (B, L), True = real.

        Returns:
            The return value of the model.
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
    """Determine the role of each parameter from a signature.

    Item ids go to the parameter with a common name for them, or else to the only required
    parameter. Lengths go to names that contain a word for length, such as `item_seq_len`. Masks go
    to the names that transformers and torch use. Other optional parameters keep their defaults.

    Args:
        function: the method of the model.
        stated: roles given by the user, which take precedence.
        owner: name of the method in error messages.

    Returns:
        Parameter name -> role.

    Raises:
        ValueError: if no parameter is recognized as the item ids, or a required parameter has no
            known role.
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
                f"{list(parameters)}, and each can receive one of {get_args(Role)}"
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
                f"{list(parameters)}: pass arguments={{name: 'item_ids'}}"
            )
        roles[found[0]] = "item_ids"
    missing = [name for name in needed if name not in roles]
    if missing:
        raise ValueError(
            f"{owner} requires {missing}, but only item ids, lengths and masks can be passed: name "
            "another method with method=, or give these parameters defaults. If one of them takes "
            f"ids, lengths or a mask, pass arguments={{{missing[0]!r}: one of {get_args(Role)}}}; "
            "in attention_mask 1 = real, in padding_mask True = padding"
        )
    return roles
