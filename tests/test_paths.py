"""A leading ~ is the home folder in all path arguments."""

import pandas as pd
import pytest
from PIL import Image
from toys import MyModel, toy_model

from odmt_sdk import Interactions, ODMTWrapper
from odmt_sdk.data.readers.files import find_files
from odmt_sdk.features.extraction.pictures import open_picture
from odmt_sdk.paths import user_path


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def test_user_path(home):
    assert user_path("~/a/b") == home / "a" / "b"
    assert user_path(user_path("a/~")) == user_path("a/~")
    assert str(user_path("a/~")) == "a/~"
    with pytest.raises(TypeError, match="PathLike object, not int"):
        user_path(5)


def test_adapters(home, tmp_path):
    model = toy_model()
    assert model.save_pretrained("~/adapter") == home / "adapter"
    loaded = ODMTWrapper.from_pretrained("~/adapter", MyModel())
    assert loaded.recommend([["item-3"]]) == model.eval().recommend([["item-3"]])
    assert not (tmp_path / "~").exists()


def test_tables_pictures_and_data_sets(home):
    table = pd.DataFrame({"user_id": [1, 1], "item_id": [2, 3], "timestamp": [1, 2]})
    table.to_csv(home / "views.csv", index=False)
    assert len(Interactions.from_table("~/views.csv").item_ids) == 2
    Image.new("RGB", (3, 2)).save(home / "a.png")
    assert open_picture("~/a.png").size == (3, 2)
    assert find_files("~", ["*.csv"]) == [home / "views.csv"]
