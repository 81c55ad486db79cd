"""The report of an extraction."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

_SHOWN = 10


@dataclass(frozen=True)
class ExtractionReport:
    """Counts the items that have each modality and lists the ones that could not be read.

    Args:
        num_items: N.
        present: modality -> number of items with tokens.
        problems: modality -> item id -> why its text or image could not be read.

    Examples:
        >>> print(ExtractionReport(3, {"image": 1}, {"image": {"b": "OSError: truncated"}}))
        image: 1 of 3 items; 1 without; 1 that could not be read:
          'b': OSError: truncated
    """

    num_items: int
    present: Mapping[str, int]
    problems: Mapping[str, Mapping[Hashable, str]]

    def __str__(self) -> str:
        lines = []
        for name, present in self.present.items():
            bad = self.problems.get(name, {})
            parts = [f"{name}: {present:,} of {self.num_items:,} items"]
            if without := self.num_items - present - len(bad):
                parts.append(f"{without:,} without")
            if bad:
                parts.append(f"{len(bad):,} that could not be read:")
            lines.append("; ".join(parts))
            lines += [f"  {item_id!r}: {reason}" for item_id, reason in list(bad.items())[:_SHOWN]]
            if len(bad) > _SHOWN:
                lines.append(f"  and {len(bad) - _SHOWN:,} more, see `problems`")
        return "\n".join(lines)
