"""CONTRIBUTING.md shows the layers that the tests check."""

import re
from pathlib import Path

from test_architecture import LAYERS

PAGE = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_the_table_of_layers_is_the_one_that_is_checked():
    section = PAGE.split("## Where things are")[1].split("\n## ")[0]
    rows = re.findall(r"^\| [^|`]+ \| (`[^|]+`) \|$", section, re.MULTILINE)
    assert [frozenset(re.findall(r"`(\w+)`", parts)) for parts in rows] == list(LAYERS)
