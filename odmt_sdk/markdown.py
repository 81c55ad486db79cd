"""Markdown tables that are also aligned as plain text."""

from collections.abc import Sequence


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Format a table; the first column is left-aligned, the others are right-aligned.

    Args:
        rows: the header and the rows, all with the same number of cells.

    Returns:
        The table, without a trailing line break.

    Examples:
        >>> print(markdown_table([["model", "ndcg@10"], ["SASRec", "0.25"]]))
        | model  | ndcg@10 |
        |--------|--------:|
        | SASRec |    0.25 |
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) + " |"
        for row in rows
    ]
    rule = ["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]
    return "\n".join([lines[0], "|" + "|".join(rule) + "|", *lines[1:]])
