from itertools import pairwise

import pytest

from odmt_sdk.data.readers import read_paper

BEHAVIOURS = "A1QK\tB000KPIHQ4 B001PN6QUU\nA2\tB001PN6QUU\n"
TEXTS = "B000KPIHQ4\tMagnet Clip, set of 2\nB001PN6QUU\tBrush \tred\n"


def sequences(interactions):
    ids = [interactions.item_ids[code] for code in interactions.item_codes]
    starts = interactions.offsets.tolist()
    return [ids[start:end] for start, end in pairwise(starts)]


def write_arts(folder):
    behaviours = folder / "Arts_Crafts_and_Sewing_user_behaviours.tsv"
    behaviours.write_text(BEHAVIOURS, encoding="utf-8-sig")  # begins with a byte order mark
    (folder / "Arts_Crafts_and_Sewing_text.tsv").write_text(TEXTS)


def test_amazon_layout(tmp_path):
    write_arts(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "B001PN6QUU.jpg").touch()
    (tmp_path / "Arts_Crafts_and_Sewing_image.lmdb").touch()  # not needed
    interactions, items = read_paper(tmp_path)
    assert interactions.user_ids == ("A1QK", "A2")
    assert sequences(interactions) == [["B000KPIHQ4", "B001PN6QUU"], ["B001PN6QUU"]]
    assert interactions.times is None
    assert items == {
        "item_id": ["B000KPIHQ4", "B001PN6QUU"],
        "title": ["Magnet Clip, set of 2", "Brush  red"],
        "text": ["Magnet Clip, set of 2", "Brush  red"],
        "image": [None, tmp_path / "images" / "B001PN6QUU.jpg"],
    }


def test_stream_layout(tmp_path):
    (tmp_path / "10wu_ks_pairs.tsv").write_text("7\t12 5\n")
    (tmp_path / "10wu_ks_title.csv").write_text("12,猫,and dogs\n5,\n", encoding="utf-8")
    _, items = read_paper(tmp_path)
    assert items["text"] == ["猫,and dogs", None]


def test_hm_layout(tmp_path):
    (tmp_path / "hm_pick_users_5W.tsv").write_text("u1\tv000123 v000045\n")
    (tmp_path / "hm_pick_items_5W.tsv").write_text("v000123\tStrap top\nv000045\tSocks\n")
    pictures = tmp_path / "elsewhere" / "first"
    pictures.mkdir(parents=True)
    (pictures / "123.png").touch()
    _, items = read_paper(tmp_path, images=tmp_path / "elsewhere")
    assert items["image"] == [pictures / "123.png", None]


@pytest.mark.parametrize("folder", [False, True])
def test_lmdb_is_refused(tmp_path, folder):
    write_arts(tmp_path)
    database = tmp_path / "Arts_Crafts_and_Sewing_image.lmdb"
    if folder:
        database.mkdir()
        (database / "data.mdb").touch()
    else:
        database.touch()
    message = r"Arts_Crafts_and_Sewing_image.lmdb is an LMDB .* pickled .*, so it is not read. Take"
    with pytest.raises(ValueError, match=message):
        read_paper(tmp_path)
    with pytest.raises(ValueError, match=message):
        read_paper(tmp_path, images=database)
    assert read_paper(tmp_path, images=False).items["image"] == [None, None]


def test_what_is_missing_or_twice(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file of interactions, .*there are no files"):
        read_paper(tmp_path)
    write_arts(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no folder of pictures"):
        read_paper(tmp_path, images=tmp_path / "gone")
    (tmp_path / "Office_user_behaviours.tsv").write_text("u\ti\n")
    with pytest.raises(ValueError, match="several files of interactions: Arts_.*, Office_"):
        read_paper(tmp_path)
    with pytest.warns(UserWarning, match="none of the 2 items with a description occurs"):
        _, items = read_paper(tmp_path, interactions=tmp_path / "Office_user_behaviours.tsv")
    assert items["item_id"] == ["B000KPIHQ4", "B001PN6QUU", "i"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "a_pairs.tsv",
            "u 1 2\n",
            "a_pairs.tsv, line 1, has no tab between user and items: 'u 1 2'",
        ),
        ("a_pairs.tsv", "u\t1\n\nu\t2\n", "a_pairs.tsv, line 3: user 'u' stands twice"),
        (
            "a_title.csv",
            "item,title\n\n1 cat\n",
            "line 3, has no ',' between id and title: '1 cat'",
        ),
    ],
)
def test_broken_lines(tmp_path, name, text, message):
    (tmp_path / "a_pairs.tsv").write_text("u\t1 2\n")
    (tmp_path / "a_title.csv").write_text("1,cat\n")
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_paper(tmp_path)


@pytest.mark.parametrize("name", ["a_pairs.tsv", "a_title.csv"])
def test_other_encodings_are_named(tmp_path, name):
    (tmp_path / "a_pairs.tsv").write_text("u\t1 2\n")
    (tmp_path / "a_title.csv").write_text("1,cat\n")
    (tmp_path / name).write_bytes(
        (tmp_path / name).read_bytes() + "u\u00e9,\t1\n".encode("latin-1")
    )
    with pytest.raises(ValueError, match=f"{name} is not in UTF-8: .*convert it"):
        read_paper(tmp_path)
