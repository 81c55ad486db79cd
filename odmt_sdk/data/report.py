"""What filters and splits left of the interactions, and why."""

from dataclasses import dataclass
from typing import NamedTuple

from odmt_sdk.markdown import markdown_table


class Step(NamedTuple):
    """What one step left.

    Args:
        what: the step, and the rule that it follows.
        dropped: how many interactions broke the rule.
        interactions: how many are left.
        users: of so many users.
        items: with so many items.
    """

    what: str
    dropped: int
    interactions: int
    users: int
    items: int


@dataclass(frozen=True)
class Report:
    """The steps from the input to some interactions or to a split; printed, they are a table.

    Args:
        steps: first to last.

    Examples:
        >>> print(Report((Step("read", 0, 10, 3, 4), Step("last(3)", 1, 9, 3, 4))))
        | step    | dropped | interactions | users | items |
        |---------|--------:|-------------:|------:|------:|
        | read    |       0 |           10 |     3 |     4 |
        | last(3) |       1 |            9 |     3 |     4 |
    """

    steps: tuple[Step, ...] = ()

    def then(self, *steps: Step) -> "Report":
        """These steps, and further ones after them."""
        return Report((*self.steps, *steps))

    def __str__(self) -> str:
        rows = [[what, *(f"{number:,}" for number in numbers)] for what, *numbers in self.steps]
        return markdown_table([["step", *Step._fields[1:]], *rows])
