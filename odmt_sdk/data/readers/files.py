"""Finding the files of a data set in its folder."""

import os
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path

PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"}


def find_files(folder: str | Path, patterns: Sequence[str]) -> list[Path]:
    """Files of a folder that match the first of some patterns that any file matches.

    Args:
        folder: the folder; its own files count, not those of folders within it.
        patterns: such as "*_pairs.csv", the best first.

    Returns:
        The files, sorted by name; none where no pattern matches.

    Raises:
        FileNotFoundError: if there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    for pattern in patterns:
        if found := sorted(path for path in folder.glob(pattern) if path.is_file()):
            return found
    return []


def find_file(folder: str | Path, patterns: Sequence[str], what: str) -> Path:
    """The one file of a folder that matches.

    Args:
        folder: the folder.
        patterns: see `find_files`.
        what: what it holds, for the error, such as "interactions".

    Returns:
        The file.

    Raises:
        FileNotFoundError: if none matches, or there is no such folder.
        ValueError: if several match.
    """
    found = find_files(folder, patterns)
    if not found:
        there = sorted(path.name for path in Path(folder).iterdir())
        raise FileNotFoundError(
            f"{folder} holds no file of {what}, that is {' or '.join(patterns)}; there are "
            f"{', '.join(there[:10]) or 'no files'}{', ...' if len(there) > 10 else ''}"
        )
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ValueError(f"{folder} holds several files of {what}: {names}; keep one of them there")
    return found[0]


def find_pictures(
    folder: str | Path | None, item_ids: Iterable[Hashable], *, within: Path, names: Sequence[str]
) -> list[Path | None]:
    """The picture of each item, a file named by its id.

    Args:
        folder: where the pictures are, at any depth; None looks within the data set.
        item_ids: the ids.
        within: the folder of the data set.
        names: patterns of the folder's name in it, the best first.

    Returns:
        A path for each id, None where there is none.

    Raises:
        FileNotFoundError: if `folder` is given and not there.
        ValueError: if the pictures are in an LMDB file, which is not read.
    """
    if folder is None:
        candidates = (path for name in names for path in sorted(within.glob(name)))
        folder = next((path for path in candidates if path.is_dir() and not _is_lmdb(path)), None)
        if folder is None and (databases := sorted(filter(_is_lmdb, within.iterdir()))):
            _refuse_lmdb(databases[0])
    elif _is_lmdb(Path(folder)):
        _refuse_lmdb(Path(folder))
    elif not Path(folder).is_dir():
        raise FileNotFoundError(f"there is no folder of pictures {folder}")
    if folder is None:
        return [None for _ in item_ids]
    pictures = {
        path.stem: path
        for place, _, files in os.walk(folder)
        for path in map(Path(place).joinpath, sorted(files))
        if path.suffix.lower() in PICTURE_SUFFIXES
    }
    return [pictures.get(str(item_id)) for item_id in item_ids]


def _is_lmdb(path: Path) -> bool:
    return path.suffix == ".lmdb" or path.name in ("data.mdb", "lock.mdb")


def _refuse_lmdb(path: Path) -> None:
    raise ValueError(
        f"{path} is an LMDB file in which every picture is a pickled Python object. Unpickling "
        "runs whatever code the file contains, so it is not read. Take the folder of pictures that "
        "it was made from, named by item id, and pass it as images=FOLDER; where there is only "
        "this file, write its pictures to JPEG files inside a container without network or data "
        "of yours. images=False goes without pictures"
    )
