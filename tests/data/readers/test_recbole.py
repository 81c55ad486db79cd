import gzip

import pytest

from odmt_sdk.data.readers import read_recbole

INTER = (
    "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    "1\t1193\t5\t978300760\n"
    "1\t0661\t3\t978302109\n"
    '"2\t1193\t2.5\t978300000\n'
)
ITEM = (
    "item_id:token\tgenre:token_seq\tmovie_title:token_seq\tyear:token\tprice:float\tv:float_seq\n"
    '1193\tDrama  War\tOne "Flew\t1975\t9.5\t0.1 0.2\n'
    "0661\t\tJames\t\t\t\n"
    "3\tComedy\t\t1990\t12\t0.3\n"
)
USER = "user_id:token\tage:token\n1\t18\n"


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "ml[1m]"  # brackets are special in patterns
    folder.mkdir()
    (folder / "ml[1m].inter").write_text(INTER)
    (folder / "ml[1m].item").write_text(ITEM)
    (folder / "ml[1m].user").write_text(USER)
    return folder


def test_rows_of_atomic_files(folder):
    interactions, items = read_recbole(folder, item_text=["movie_title", "year", "price"])
    assert interactions.user_ids == ("1", '"2')
    assert [interactions.item_ids[code] for code in interactions.item_codes] == [
        *("1193", "0661"),
        "1193",
    ]
    assert interactions.times.tolist() == [978300760, 978302109, 978300000]
    assert items["item_id"] == ["1193", "0661", "3"]
    assert items["title"] == ['One "Flew', "James", None]
    assert items["text"] == ['One "Flew. 1975. 9.5', "James", "1990. 12"]
    assert items["image"] == [None] * 3


def test_titles_come_first_unless_columns_are_chosen(folder):
    assert read_recbole(folder).items["text"] == ['One "Flew. Drama War', "James", "Comedy"]
    assert read_recbole(folder).items["title"][0] == 'One "Flew'
    (chosen,) = {tuple(read_recbole(folder, item_text=["genre"]).items["text"])}
    assert chosen == ("Drama War", None, "Comedy")


def test_ratings_pictures_and_rows_in_order(folder):
    images = folder / "images"
    images.mkdir()
    (images / "0661.jpg").touch()
    interactions, items = read_recbole(folder, min_rating=3, timestamp=None)
    assert interactions.item_ids == ("1193", "0661")
    assert interactions.times is None
    assert items["image"] == [None, images / "0661.jpg", None]
    assert read_recbole(folder, images=False).items["image"] == [None] * 3
    with pytest.raises(ValueError, match=r"min_rating=6 is above every rating in .*inter"):
        read_recbole(folder, min_rating=6)


def test_other_names_compression_and_encoding(tmp_path):
    text = "session:token\tsong:token\n" + "a\té\r\n".replace("\r", "")
    (tmp_path / "x.inter.gz").write_bytes(gzip.compress(text.encode("latin-1")))
    names = {"user": "session", "item": "song", "timestamp": None}
    interactions, items = read_recbole(tmp_path, **names, encoding="latin-1")
    assert (interactions.user_ids, interactions.item_ids) == (("a",), ("é",))
    assert items["item_id"] == ["é"]
    assert items["text"] == [None]
    with pytest.raises(ValueError, match=r"x.inter.gz, line 2, is not in utf-8.*encoding="):
        read_recbole(tmp_path, **names)


def test_the_files_named_as_the_folder_count(folder):
    (folder / "other.inter").write_text(INTER)
    assert len(read_recbole(folder).interactions) == 3
    (folder / "ml[1m].inter").rename(folder / "ml.valid.inter")
    with pytest.raises(ValueError, match="several files of interactions: ml.valid.inter, other"):
        read_recbole(folder)


@pytest.mark.parametrize(
    ("name", "text", "options", "message"),
    [
        ("inter", INTER.replace(":token", ""), {}, "'user_id', which does not end in one of :tok"),
        ("inter", INTER.replace("\t", ","), {}, "is it an atomic file, with tabs"),
        ("inter", INTER.replace("timestamp", "time"), {}, "no column 'timestamp', only user_id"),
        ("inter", INTER.replace("item_id", "item_id_list"), {}, "holds whole sequences"),
        ("inter", INTER.replace("rating", "item_id"), {}, "two columns 'item_id'"),
        ("inter", INTER, {"user": "who"}, "no column 'who'; it has user_id, item_id"),
        ("inter", INTER + "3\t4\n", {}, "Expected 4 columns, got 2"),
        ("inter", INTER + "\t4\t1\t2\n", {}, "'user_id' has 1 missing values .* row 3"),
        ("item", ITEM, {"item_text": ["plot"]}, "no column 'plot'; it has item_id, genre"),
        ("item", ITEM + "3\t\t\t\t\t\n", {}, "item '3' a second time in row 3"),
        ("item", ITEM + "\t\t\t\t\t\n", {}, "no item id in row 3"),
        ("item", "item_id:token\tprice:float\n", {}, "has no column of words"),
    ],
)
def test_files_that_are_not_as_they_should_be(folder, name, text, options, message):
    (folder / f"ml[1m].{name}").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_recbole(folder, **options)


def test_missing_files(folder):
    (folder / "ml[1m].item").unlink()
    assert read_recbole(folder).items["text"] == [None, None]
    with pytest.raises(FileNotFoundError, match=r"has no .item file, but item_text="):
        read_recbole(folder, item_text=["movie_title"])
    (folder / "ml[1m].inter").unlink()
    with pytest.raises(FileNotFoundError, match="holds no file of interactions"):
        read_recbole(folder)


@pytest.mark.parametrize("kind", ["token", "float"])
def test_ratings_that_are_texts_or_missing(folder, kind):
    text = INTER.replace("rating:float", f"rating:{kind}").replace("\t3\t", "\t\t")
    (folder / "ml[1m].inter").write_text(text)
    interactions, _ = read_recbole(folder, min_rating=3)
    assert len(interactions) == 1
    (folder / "ml[1m].inter").write_text(text.replace("\t2.5\t", "\t-\t"))
    with pytest.raises(ValueError, match="the rating '-' in row 2, .* which is not a number"):
        read_recbole(folder, min_rating=3)


def test_sequences_beside_their_targets_are_refused(folder):
    text = "user_id:token\titem_id_list:token_seq\titem_id:token\nann\t3 1193\t0661\n"
    (folder / "ml[1m].inter").write_text(text)
    with pytest.raises(ValueError, match=r"whole sequences \(item_id_list\), which would not be"):
        read_recbole(folder, timestamp=None)


def test_items_of_another_data_set_are_named(folder):
    (folder / "ml[1m].item").write_text("item_id:token\ttitle:token\nm1\tA\n")
    with pytest.warns(UserWarning, match="none of the 1 items with a description .*'m1'.*'1193'"):
        read_recbole(folder)
