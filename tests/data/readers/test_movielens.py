from itertools import pairwise

import pytest

from odmt_sdk.data.readers import read_movielens

# Rows copied from the releases.
U_DATA = "196\t242\t3\t881250949\n186\t302\t3\t891717742\n196\t1\t5\t881250940\n"
NO_FLAGS = "|".join("0" * 19)
U_ITEM = (
    "1|Toy Story (1995)|01-Jan-1995||http://us.imdb.com/M/title-exact?Toy%20Story%20(1995)"
    "|0|0|0|1|1|1|0|0|0|0|0|0|0|0|0|0|0|0|0\n"
    "242|Kolya (1996)|24-Jan-1997||http://us.imdb.com/M/title-exact?Kolya%20(1996)"
    "|0|0|0|0|0|1|0|0|0|0|0|0|0|0|0|0|0|0|0\n"
    f"267|unknown||||1{NO_FLAGS[1:]}\n"
    f"543|Misérables, Les (1995)|01-Jan-1995||http://us.imdb.com/M|{NO_FLAGS}\n"
)
RATINGS_DAT = "1::1193::5::978300760\n1::661::3::978302109\n2::1193::4::978298413\n"
MOVIES_DAT = (
    "661::James and the Giant Peach (1996)::Animation|Children's|Musical\n"
    "1193::One Flew Over the Cuckoo's Nest (1975)::Drama\n"
    "260::Star Wars: Episode IV - A New Hope (1977)::Action|Adventure\n"
    '3077::"42 Up" d\'été (1998)::Documentary\n'
)
RATINGS_CSV = "userId,movieId,rating,timestamp\n1,1,4.0,964982703\n1,3,4.5,964981247\n2,1,0.5,5\n"
MOVIES_CSV = (
    "movieId,title,genres\n"
    "1,Toy Story (1995),Adventure|Animation|Children|Comedy|Fantasy\n"
    '11,"American President, The (1995)",Comedy|Drama|Romance\n'
    "3,Grumpier Old Men (1995),Comedy|Romance\n"
    "131,1984,(no genres listed)\n"
)


def histories(interactions):
    ids = [interactions.item_ids[code] for code in interactions.item_codes]
    starts = interactions.offsets.tolist()
    return {
        user: ids[start:end]
        for user, (start, end) in zip(interactions.user_ids, pairwise(starts), strict=True)
    }


def texts_of(items):
    return dict(zip(items["item_id"], items["text"], strict=True))


def test_100k(tmp_path):
    (tmp_path / "u.data").write_text(U_DATA)
    (tmp_path / "u.item").write_text(U_ITEM, encoding="latin-1")
    interactions, items = read_movielens(tmp_path)
    assert histories(interactions) == {196: [1, 242], 186: [302]}
    assert interactions.times.tolist() == [881250940, 881250949, 891717742]
    assert texts_of(items) == {
        1: "Toy Story (1995). Genres: Animation, Children's, Comedy",
        242: "Kolya (1996). Genres: Comedy",
        267: "unknown",
        543: "Misérables, Les (1995)",
        302: None,  # rated, but without a description
    }
    assert items["image"] == [None] * 5


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_dat(tmp_path, encoding):
    (tmp_path / "ratings.dat").write_text(RATINGS_DAT)
    (tmp_path / "movies.dat").write_text(MOVIES_DAT, encoding=encoding)
    interactions, items = read_movielens(tmp_path)
    assert histories(interactions) == {1: [1193, 661], 2: [1193]}
    texts = texts_of(items)
    assert texts[260] == "Star Wars: Episode IV - A New Hope (1977). Genres: Action, Adventure"
    assert texts[3077] == '"42 Up" d\'été (1998). Genres: Documentary'
    assert items["title"][0] == "James and the Giant Peach (1996)"


def test_csv_with_posters(tmp_path):
    (tmp_path / "ratings.csv").write_text(RATINGS_CSV)
    (tmp_path / "movies.csv").write_text(MOVIES_CSV)
    (tmp_path / "posters").mkdir()
    (tmp_path / "posters" / "11.JPG").touch()
    data = read_movielens(tmp_path)
    assert histories(data.interactions) == {1: [3, 1], 2: [1]}
    assert (
        texts_of(data.items)[11] == "American President, The (1995). Genres: Comedy, Drama, Romance"
    )
    assert texts_of(data.items)[131] == "1984"  # a title, not a number
    assert data.items["image"] == [None, tmp_path / "posters" / "11.JPG", None, None]
    assert repr(data) == (
        "RawData(Interactions(3 events of 2 users with 2 items, 1 to 2 a user), "
        "4 items: 4 with text, 1 with a picture)"
    )
    assert read_movielens(tmp_path, images=False).items["image"] == [None] * 4


def test_low_ratings_can_be_left_out(tmp_path):
    (tmp_path / "ratings.csv").write_text(RATINGS_CSV)
    (tmp_path / "movies.csv").write_text(MOVIES_CSV)
    assert histories(read_movielens(tmp_path, min_rating=4).interactions) == {1: [3, 1]}
    with pytest.raises(ValueError, match=r"min_rating=5 is above every rating in .*, at most 4.5"):
        read_movielens(tmp_path, min_rating=5)


def test_no_release(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds none of u.data, ratings.dat, ratings.csv"):
        read_movielens(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        read_movielens(tmp_path / "gone")
    (tmp_path / "ratings.csv").write_text(RATINGS_CSV)
    with pytest.raises(FileNotFoundError, match=r"there is no file .*movies.csv"):
        read_movielens(tmp_path)


def test_separators_of_unicode_do_not_split_a_title(tmp_path):
    (tmp_path / "ratings.dat").write_text("1::1::4::2\n1::2::5::1\n")
    (tmp_path / "movies.dat").write_text("1::A\u2028B\x85C::Drama\n2::X::War\n", encoding="utf-8")
    titles = read_movielens(tmp_path).items["title"]
    assert titles == ["A\u2028B\x85C", "X"]
