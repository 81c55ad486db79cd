"""The code on the docs page about data runs."""

import re
import runpy
from pathlib import Path

import pytest

from odmt_sdk import Interactions
from odmt_sdk.data import readers

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "data.md").read_text()


def test_the_code_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = [f"{user},{item},{3 * item + user}" for user in range(9) for item in range(12)]
    (tmp_path / "interactions.csv").write_text("\n".join(["user_id,item_id,timestamp", *rows]))
    films = tmp_path / "ml-latest-small"
    films.mkdir()
    (films / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,1,4.0,964982703\n")
    (films / "movies.csv").write_text(
        "movieId,title,genres\n1,Toy Story (1995),Adventure|Animation|Children|Comedy|Fantasy\n"
    )
    shop = tmp_path / "my-shop"
    shop.mkdir()
    (shop / "items.csv").write_text("item_id,text\nmug,Red mug\n")
    (shop / "interactions.csv").write_text("user_id,item_id,timestamp\nann,mug,1\n")
    names = {"cut": 24, "later": 26}
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
    for block in blocks[:-1]:  # the last block includes an example file
        exec(block, names)
    printed = capsys.readouterr().out
    assert printed.count("| read from the table") == 2
    assert printed.endswith(
        "Toy Story (1995). Genres: Adventure, Animation, Children, Comedy, Fantasy\n"
    )


def test_every_filter_and_reader_is_explained():
    filters = [
        name
        for name, method in vars(Interactions).items()
        if not name.startswith("_")
        and getattr(method, "__annotations__", {}).get("return") == "Interactions"
    ]
    assert len(filters) > 5
    assert [name for name in filters if f"{name}(" not in PAGE] == []
    assert [
        name for name in readers.__all__ if name[:5] == "read_" and f"`{name}(" not in PAGE
    ] == []


@pytest.mark.slow
def test_the_example_runs(capsys):
    runpy.run_path(str(ROOT / "examples" / "your_data.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert "| last(10), the latest 10 of each user" in printed
    assert "only pictures: sources id, image; loss" in printed
    assert "any: sources id, text, image; loss" in printed
