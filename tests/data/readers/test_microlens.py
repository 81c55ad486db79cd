import pytest

from odmt_sdk.data.readers import read_microlens

PAIRS = "user,item,timestamp\n1,18,1583378629552\n1,7,1583378620000\n2,18,1583378629553\n"


@pytest.mark.parametrize(
    ("name", "titles"),
    [
        ("MicroLens-50k_titles.csv", 'item,title\n18,"Cats, dogs and ""you"""\n7,Cooking\n'),
        ("MicroLens-100k_title_en.csv", '18,Cats, dogs and "you"\n7,Cooking\n'),
        (
            "MicroLens-100k_title_en.csv",
            '\ufeffvideoID,title\n18,Cats, dogs and "you"\n7,Cooking\n',
        ),
    ],
)
def test_rows_of_the_release(tmp_path, name, titles):
    size = name.partition("_")[0]
    (tmp_path / f"{size}_pairs.csv").write_text(PAIRS)
    (tmp_path / f"{size}_pairs.tsv").write_text("1\t7 18\n2\t18\n")  # the same data without times
    (tmp_path / name).write_text(titles, encoding="utf-8")
    covers = tmp_path / f"{size}_covers"
    covers.mkdir()
    (covers / "7.jpg").touch()
    interactions, items = read_microlens(tmp_path)
    assert interactions.user_ids == (1, 2)
    assert [interactions.item_ids[code] for code in interactions.item_codes] == [7, 18, 18]
    assert interactions.times.tolist() == [1583378620000, 1583378629552, 1583378629553]
    assert items["item_id"] == [18, 7]
    assert items["text"] == ['Cats, dogs and "you"', "Cooking"]
    assert items["image"] == [None, covers / "7.jpg"]
    assert read_microlens(tmp_path, images=False).items["image"] == [None, None]


def test_ids_that_are_no_numbers(tmp_path):
    (tmp_path / "MicroLens-50k_pairs.csv").write_text(PAIRS)
    (tmp_path / "MicroLens-50k_titles.csv").write_text("cat,Cats\n")
    with pytest.raises(ValueError, match=r"titles.csv has an item id that is not a whole number"):
        read_microlens(tmp_path)


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file of interactions, that is \*_pairs.csv"):
        read_microlens(tmp_path)
