"""`load_folder`: items, interactions and pictures in one folder, and strange folders."""

import gzip
import json

import pytest
from PIL import Image

from odmt_sdk import load_folder

ITEMS = "item_id,text\nmug,A red mug\nlamp,A lamp\nhat,\n"
EVENTS = "user_id,item_id,timestamp\nann,mug,1\nann,lamp,2\nbob,lamp,1\nbob,hat,3\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "items.csv").write_text(ITEMS)
    (tmp_path / "interactions.csv").write_text(EVENTS)
    return tmp_path


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)


def test_tables_without_pictures(folder):
    interactions, items = load_folder(folder)
    assert len(interactions) == 4
    assert items["item_id"] == ["mug", "lamp", "hat"]
    assert items["text"] == ["A red mug", "A lamp", None]
    assert items["image"] == [None, None, None]


def test_pictures_are_found_by_id_in_any_case(folder):
    picture(folder / "images" / "mug.JPG")
    picture(folder / "images" / "inside" / "hat.webp")
    picture(folder / "images" / "someone-else.png")
    _, items = load_folder(folder)
    assert items["image"] == [
        folder / "images" / "mug.JPG",
        None,
        folder / "images" / "inside" / "hat.webp",
    ]


def test_a_column_of_pictures_is_relative_to_the_folder(folder):
    (folder / "items.csv").write_text("item_id,title,image\nmug,A mug,pics/1.png\nlamp,A lamp,\n")
    (folder / "interactions.csv").write_text("user_id,item_id,timestamp\nann,mug,1\n")
    picture(folder / "pics" / "1.png")
    _, items = load_folder(folder)
    assert items["image"] == [folder / "pics" / "1.png", None]
    assert items["text"] == items["title"] == ["A mug", "A lamp"]
    (folder / "pics" / "1.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"no picture .*1.png, which the items table names"):
        load_folder(folder)


def test_json_lines_parquet_and_compressed_files(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    lines = [json.dumps({"item_id": i, "text": f"item {i}"}) for i in (1, 2)]
    (tmp_path / "items.jsonl").write_text("\n".join(lines))
    table = pa.table({"user_id": [1, 1], "item_id": [1, 2], "timestamp": [1, 2]})
    parquet.write_table(table, tmp_path / "interactions.parquet")
    assert load_folder(tmp_path).items["item_id"] == [1, 2]
    (tmp_path / "items.jsonl").unlink()
    with gzip.open(tmp_path / "items.tsv.gz", "wt") as file:
        file.write("item_id\ttext\n1\tone\n2\ttwo\n")
    assert load_folder(tmp_path).items["text"] == ["one", "two"]


def test_leading_zeros_are_kept(folder):
    (folder / "items.csv").write_text("item_id,text\n007,bond\n10,ten\n")
    (folder / "interactions.csv").write_text("user_id,item_id,timestamp\n1,007,1\n1,10,2\n")
    picture(folder / "images" / "007.png")
    interactions, items = load_folder(folder)
    assert items["item_id"] == ["007", "10"] == list(interactions.item_ids)
    assert items["image"] == [folder / "images" / "007.png", None]
    assert list(interactions.user_ids) == [1]
    # only the items table has ids with zeros: the numbers of the other become strings too
    (folder / "interactions.csv").write_text("user_id,item_id,timestamp\n1,10,2\n")
    assert list(load_folder(folder).interactions.item_ids) == ["10"]


def test_numbers_with_pictures_that_have_leading_zeros_are_refused(folder):
    (folder / "items.csv").write_text("item_id,text\n7,bond\n10,ten\n")
    (folder / "interactions.csv").write_text("user_id,item_id,timestamp\n1,7,1\n1,10,2\n")
    picture(folder / "images" / "007.png")
    picture(folder / "images" / "10.png")
    with pytest.raises(ValueError, match="picture 007.png but the items table has the number 7"):
        load_folder(folder)


def test_items_without_a_row_are_kept_with_a_warning(folder):
    (folder / "interactions.csv").write_text(EVENTS + "bob,vase,4\n")
    with pytest.warns(UserWarning, match="1 of the 4 items of interactions.csv, such as 'vase'"):
        _, items = load_folder(folder)
    assert items["item_id"][-1] == "vase"
    assert items["text"][-1] is None


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"items.csv": None}, r"has no table of items: .*; there is interactions.csv"),
        ({"interactions.csv": None}, "has no table of interactions"),
        ({"items.csv": None, "items.xlsx": "x"}, "there are interactions.csv, items.xlsx"),
        ({"items.TSV": "item_id\ttext\n"}, "several tables of items: items.TSV and items.csv"),
        ({"items.csv": "id,text\nmug,A mug\n"}, "column 'item_id' is not in"),
        ({"items.csv": "item_id,price\nmug,3\n"}, "so the items have neither text nor pictures"),
        ({"items.csv": "item_id,text\n"}, "has no rows"),
        ({"items.csv": "item_id,text\nmug,a\nmug,b\n"}, "item 'mug' a second time in row 1"),
        ({"items.csv": "item_id,text\n,a\n"}, "no item id in row 0"),
        ({"interactions.csv": "user_id,item_id\nann,mug\n"}, "column 'timestamp' is not in"),
        ({"items.csv": "item_id,text\n1,a\n"}, "no item in common: the first has ids such as '1'"),
        ({"images/a.png": ""}, "no picture in .* belongs to an item"),
        ({"images/readme.txt": ""}, "images has no pictures"),
        ({"images/mug.png": "", "images/mug.jpg": ""}, "item 'mug' has 2 pictures"),
    ],
)
def test_strange_folders(folder, files, message):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.unlink() if content is None else path.write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_folder(folder)


def test_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        load_folder(tmp_path / "absent")


def test_texts_are_kept_as_written(folder):
    (folder / "items.csv").write_text("item_id,title\nmug,007\nlamp,1.50\n")
    (folder / "interactions.csv").write_text("user_id,item_id,timestamp\nann,mug,1\n")
    assert load_folder(folder).items["title"] == ["007", "1.50"]
    (folder / "items.csv").write_text("item_id,title\nmug,true\nlamp,2024-01-01\n")
    assert load_folder(folder).items["text"] == ["true", "2024-01-01"]


@pytest.mark.parametrize("title", [["A", "mug"], {"en": "A mug"}])
def test_a_text_in_parts_is_refused(folder, title):
    (folder / "items.csv").unlink()
    (folder / "items.jsonl").write_text(json.dumps({"item_id": "mug", "title": title}))
    (folder / "interactions.csv").write_text("user_id,item_id,timestamp\nann,mug,1\n")
    with pytest.raises(TypeError, match="'title' of .* for item 'mug', but a text must be one str"):
        load_folder(folder)


def test_pictures_as_data_sets_store_them(folder):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    (folder / "items.csv").unlink()
    picture(folder / "pics" / "1.png")
    content = (folder / "pics" / "1.png").read_bytes()
    cells = [{"bytes": content, "path": None}, {"bytes": None, "path": "pics/1.png"}, None]
    table = pa.table({"item_id": ["mug", "lamp", "hat"], "title": ["a", "b", "c"], "image": cells})
    parquet.write_table(table, folder / "items.parquet")
    assert load_folder(folder).items["image"] == [content, folder / "pics" / "1.png", None]


def test_pictures_that_are_no_paths(folder):
    (folder / "interactions.csv").write_text("user_id,item_id,timestamp\nann,mug,1\n")
    for cell, message in (
        ("https://shop.example/1.png", "is a URL: download the pictures"),
        (["1.png", "2.png"], r"\(list\), but a picture must be a path or bytes"),
    ):
        (folder / "items.csv").unlink(missing_ok=True)
        line = json.dumps({"item_id": "mug", "title": "A mug", "image": cell})
        (folder / "items.jsonl").write_text(line)
        with pytest.raises((TypeError, ValueError), match=message):
            load_folder(folder)


def test_an_empty_column_of_pictures_gives_way_to_the_folder(folder):
    (folder / "items.csv").write_text("item_id,title,image\nmug,A,\nlamp,B,\nhat,C,\n")
    picture(folder / "images" / "mug.jpg")
    assert load_folder(folder).items["image"] == [folder / "images" / "mug.jpg", None, None]
    assert load_folder(folder, image="image").items["image"] == [None] * 3


def test_paths_written_on_windows(folder):
    (folder / "items.csv").write_text("item_id,title,image\nmug,A,pics\\1.png\nlamp,B,\nhat,C,\n")
    picture(folder / "pics" / "1.png")
    assert load_folder(folder).items["image"] == [folder / "pics/1.png", None, None]


def test_names_of_pictures_in_another_unicode_form(folder):
    (folder / "items.csv").write_text("item_id,title\ncaf\u00e9,A\nmug,B\n", encoding="utf-8")
    (folder / "interactions.csv").write_text("user_id,item_id,timestamp\nann,mug,1\n")
    decomposed = folder / "images" / "cafe\u0301.jpg"
    picture(decomposed)
    assert load_folder(folder).items["image"] == [decomposed, None]


def test_names_of_pictures_in_another_case_are_named(folder):
    picture(folder / "images" / "MUG.jpg")
    picture(folder / "images" / "lamp.jpg")
    with pytest.warns(UserWarning, match="1 pictures in .* such as 'MUG.jpg' for item 'mug': they"):
        assert load_folder(folder).items["image"][:2] == [None, folder / "images" / "lamp.jpg"]
