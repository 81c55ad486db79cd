"""`Answer`: what a command prints on standard output."""

from typing import Any, NamedTuple


class Answer(NamedTuple):
    """The result of a command.

    Args:
        text: the result as text; empty = print nothing.
        data: the result as JSON values, for `--json`.
        code: exit code.
    """

    text: str
    data: Any
    code: int = 0
