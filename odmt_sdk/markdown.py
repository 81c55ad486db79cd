"""Tables in Markdown that are also aligned as plain text."""

from collections.abc import Sequence


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Lay cells out; the first column stands left, the others, numbers, stand right.

    Args:
        rows: the header and the rows, all of the same length.

    Returns:
        The table, without a line break at its end.

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
