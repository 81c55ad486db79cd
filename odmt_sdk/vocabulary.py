"""The item vocabulary: the user's item ids on one side, rows of the tables on the other."""

from collections.abc import Hashable, Iterable, Iterator
from typing import Any, Literal


class ItemVocabulary:
    """Maps the user's item ids, which may be any hashable, to rows 1..N; row 0 is padding.

    Numpy scalars count as the Python values they hold, so ids read from a table match ids typed by
    hand.

    Args:
        item_ids: the N item ids in row order; `item_ids[i]` gets row `i + 1`.

    Raises:
        ValueError: if an id stands twice, or there is none.
        TypeError: if an id is not hashable.

    Examples:
        >>> vocabulary = ItemVocabulary(["mug", "lamp"])
        >>> vocabulary.rows(["lamp", "mug"])
        [2, 1]
        >>> vocabulary.ids([1])
        ['mug']
    """

    def __init__(self, item_ids: Iterable[Hashable]) -> None:
        self.item_ids: tuple[Hashable, ...] = tuple(map(_plain, item_ids))
        if not self.item_ids:
            raise ValueError("the item vocabulary is empty: give at least one item id")
        self._rows = {item_id: row for row, item_id in enumerate(self.item_ids, start=1)}
        if len(self._rows) < len(self.item_ids):
            seen: set[Hashable] = set()
            twice = next(i for i in self.item_ids if i in seen or seen.add(i))  # type: ignore[func-returns-value]
            raise ValueError(
                f"item id {twice!r} stands more than once; item ids must be distinct: "
                "drop or merge the repeated rows"
            )

    def __len__(self) -> int:
        return len(self.item_ids)

    def __contains__(self, item_id: object) -> bool:
        return self._find(_plain(item_id)) is not None

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self.item_ids)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ItemVocabulary) and self.item_ids == other.item_ids

    def __hash__(self) -> int:
        return hash(self.item_ids)

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self.ids(range(1, min(3, len(self)) + 1))))
        return f"ItemVocabulary({len(self)} items: {shown}{', ...' if len(self) > 3 else ''})"

    def rows(
        self, item_ids: Iterable[Hashable], *, unknown: Literal["error", "skip"] = "error"
    ) -> list[int]:
        """Look up rows.

        Args:
            item_ids: the user's item ids.
            unknown: what to do with ids that are not in the vocabulary: raise, or leave them out.

        Returns:
            One row in 1..N per known id, in the order given.

        Raises:
            ValueError: if an id is unknown and `unknown="error"`.
        """
        if unknown not in ("error", "skip"):
            raise ValueError(f'unknown={unknown!r} must be "error" or "skip"')
        rows: list[int] = []
        for item_id in item_ids:
            row = self._find(_plain(item_id))
            if row is not None:
                rows.append(row)
            elif unknown == "error":
                raise ValueError(
                    f"item id {item_id!r} is not among the {len(self)} items of the vocabulary "
                    f"(for example {self._id_of(1)!r}); ids are compared by value and type. "
                    'Pass unknown="skip" to leave unknown items out'
                )
        return rows

    def ids(self, rows: Iterable[int]) -> list[Hashable]:
        """Look up the user's item ids of rows in 1..N.

        Args:
            rows: row numbers, 1..N.

        Returns:
            One id per row, in the order given.

        Raises:
            ValueError: if a row is outside 1..N.
        """
        found = []
        for row in rows:
            if not 1 <= row <= len(self):
                raise ValueError(f"row {row} is outside 1..{len(self)}; row 0 is padding")
            found.append(self._id_of(row))
        return found

    def _find(self, item_id: Hashable) -> int | None:
        """The row of an id, or None."""
        return self._rows.get(item_id)

    def _id_of(self, row: int) -> Hashable:
        return self.item_ids[row - 1]


def _plain(item_id: Any) -> Hashable:
    """The Python value of a numpy scalar; anything else as it is."""
    if type(item_id).__module__ == "numpy" and hasattr(item_id, "item"):
        item_id = item_id.item()
    hash(item_id)  # an unhashable id raises here
    return item_id  # type: ignore[no-any-return]
