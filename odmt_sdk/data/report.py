"""Reports how many interactions each filter and split kept."""

from dataclasses import dataclass
from typing import NamedTuple

from odmt_sdk.markdown import markdown_table


class Step(NamedTuple):
    """The result of one filter or split.

    Args:
        what: the step and its rule.
        dropped: number of interactions dropped.
        interactions: number of interactions left.
        users: number of users left.
        items: number of items left.
    """

    what: str
    dropped: int
    interactions: int
    users: int
    items: int


@dataclass(frozen=True)
class Report:
    """The steps from the input to the current interactions or split; prints as a Markdown table.

    Args:
        steps: the steps in order.

    Examples:
        >>> print(Report((Step("read", 0, 10, 3, 4), Step("last(3)", 1, 9, 3, 4))))
        | step    | dropped | interactions | users | items |
        |---------|--------:|-------------:|------:|------:|
        | read    |       0 |           10 |     3 |     4 |
        | last(3) |       1 |            9 |     3 |     4 |
    """

    steps: tuple[Step, ...] = ()

    def then(self, *steps: Step) -> "Report":
        """Return a report with further steps appended."""
        return Report((*self.steps, *steps))

    def __str__(self) -> str:
        rows = [[what, *(f"{number:,}" for number in numbers)] for what, *numbers in self.steps]
        return markdown_table([["step", *Step._fields[1:]], *rows])
