"""The code on the docs page about features runs."""

import re
import runpy
from pathlib import Path

import pandas as pd
import pytest

from odmt_sdk import make_shop
from odmt_sdk.features.modalities import MODALITIES
from odmt_sdk.toy_shop.tiny_encoders import tiny_image_encoder, tiny_text_encoder

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "features.md").read_text()


def test_the_code_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(MODALITIES, "_entries", dict(MODALITIES._entries))  # the page registers one
    shop = make_shop(num_items=50, num_users=5, image_size=32)
    ids, titles = shop.items["item_id"][:6], shop.items["title"][:6]
    paths = [f"{item_id}.png" for item_id in ids]
    for path, picture in zip([*paths, "lamp.png"], shop.items["image"], strict=False):
        picture.save(path)
    table = {"item_id": ids, "title": titles, "picture": paths}
    pd.DataFrame(table).to_parquet("items.parquet")
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
    names: dict[str, object] = {}
    exec(blocks[0], names)
    # the encoders on the page would have to be downloaded
    names["text_encoder"] = tiny_text_encoder(["a red mug", *table["title"]], width=16)
    names["image_encoder"] = tiny_image_encoder(width=16, image_size=32)
    for block in blocks[1:-1]:  # the last block includes an example file
        exec(block, names)
    printed = capsys.readouterr().out
    assert "text: 6 of 6 items\nimage: 6 of 6 items\n" in printed
    assert "tensor([False, False,  True])" in printed
    assert "{'text': 16, 'audio': 8}" in printed
    assert printed.endswith("\n7\n")
    assert names["features"].provenance["text"]["standardized"]


def test_the_example_runs(capsys):
    with pytest.warns(UserWarning, match="1 of 29 pictures could not be read"):
        runpy.run_path(str(ROOT / "examples" / "features_on_disk.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert "image: 28 of 30 items; 1 without; 1 that could not be read:" in printed
    assert "the same bytes after going on: True\nwith the new items: 50\n" in printed
    assert "refused: text pooling is 'first', now 'mean'\n" in printed
