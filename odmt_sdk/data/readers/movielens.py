"""MovieLens, in any of its three file layouts."""

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from odmt_sdk.data.interactions import Interactions
from odmt_sdk.data.readers.files import find_files, find_pictures
from odmt_sdk.data.readers.raw_data import RawData, described_items, make_items
from odmt_sdk.paths import user_path
from odmt_sdk.tables import Column, read_columns
from odmt_sdk.text_files import TextFormat

RATINGS = ("user_id", "item_id", "rating", "timestamp")
# The last columns of u.item: 1 if the film belongs to the genre.
GENRES_100K = [
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime"),
    *("Documentary", "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery"),
    *("Romance", "Sci-Fi", "Thriller", "War", "Western"),
]
NO_GENRES = {"unknown", "(no genres listed)"}


def read_movielens(
    folder: str | Path,
    *,
    min_rating: float = 0,
    images: str | Path | Literal[False] | None = None,
) -> RawData:
    """Read MovieLens 100K (`u.data`), 1M or 10M (`ratings.dat`), or newer (`ratings.csv`).

    MovieLens has no images. Posters from another source can be given as files named by movie id.

    Args:
        folder: folder with the files of one release.
        min_rating: minimum rating; interactions with a lower rating are dropped. 0 keeps all.
        images: folder of posters, named `<movie id>.jpg`; None = `images` or `posters` in the
            folder, if it exists; False = no images.

    Returns:
        Interactions with Unix times, and the items, with texts such as "Heat (1995). Genres:
        Action, Crime". Ids are integers.

    Raises:
        FileNotFoundError: if the folder holds none of these files.
        ValueError: if a file cannot be read, or no rating is high enough.

    Source: https://grouplens.org/datasets/movielens/.
    """
    folder = user_path(folder)
    readers = {"u.data": _read_100k, "ratings.dat": _read_dat, "ratings.csv": _read_csv}
    there = next((name for name in readers if find_files(folder, [name])), None)
    if there is None:
        raise FileNotFoundError(
            f"{folder} holds none of {', '.join(readers)}: give the unpacked folder of a release"
        )
    ratings, films = readers[there](folder)
    high = ratings["rating"] >= min_rating
    if not high.any():
        raise ValueError(
            f"min_rating={min_rating} is above every rating in {folder}, at most "
            f"{ratings['rating'].max()}"
        )
    interactions = Interactions.from_table({name: ratings[name][high] for name in RATINGS})
    item_ids = described_items(list(films), interactions)
    pictures = find_pictures(images, item_ids, within=folder, names=("images", "posters"))
    known = [films.get(item_id, _Film("", ())) for item_id in item_ids]
    titles, texts = [film.title for film in known], [film.text() for film in known]
    return RawData(interactions, make_items(item_ids, titles, texts, pictures))


class _Film(NamedTuple):
    title: str
    genres: Sequence[str]

    def text(self) -> str:
        genres = [genre for genre in self.genres if genre not in NO_GENRES]
        return f"{self.title}. Genres: {', '.join(genres)}" if genres else self.title


def _read_100k(folder: Path) -> tuple[dict[str, Column], dict[Hashable, _Film]]:
    ratings = read_columns(
        folder / "u.data", RATINGS, text_format=TextFormat("\t", RATINGS, quoted=False)
    )
    films: dict[Hashable, _Film] = {}
    for line in _lines((folder / "u.item").read_text(encoding="latin-1")):
        item_id, title, _date, _video_date, _url, *flags = line.split("|")
        genres = [genre for genre, flag in zip(GENRES_100K, flags, strict=True) if flag == "1"]
        films[int(item_id)] = _Film(title, genres)
    return ratings, films


def _read_dat(folder: Path) -> tuple[dict[str, Column], dict[Hashable, _Film]]:
    ratings = read_columns(
        folder / "ratings.dat", RATINGS, text_format=TextFormat("::", RATINGS, quoted=False)
    )
    path = folder / "movies.dat"
    try:  # 10M is encoded in UTF-8, 1M in Latin-1
        lines = _lines(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        lines = _lines(path.read_text(encoding="latin-1"))
    rows = (line.split("::") for line in lines)
    return ratings, {int(row[0]): _Film(row[1], row[2].split("|")) for row in rows}


def _lines(text: str) -> list[str]:
    # `splitlines` would also split titles at separators of Unicode
    return [line for line in text.split("\n") if line.strip()]


def _read_csv(folder: Path) -> tuple[dict[str, Column], dict[Hashable, _Film]]:
    names = ("userId", "movieId", "rating", "timestamp")
    read = read_columns(folder / "ratings.csv", names)
    texts = ("title", "genres")
    films = read_columns(
        folder / "movies.csv", ["movieId", *texts], text_format=TextFormat(strings=texts)
    )
    rows = zip(films["movieId"].tolist(), films["title"], films["genres"], strict=True)
    return dict(zip(RATINGS, read.values(), strict=True)), {
        item_id: _Film(title or "", (genres or "").split("|")) for item_id, title, genres in rows
    }
