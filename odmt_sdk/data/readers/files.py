"""Finds the files of a data set in its folder."""

import os
import unicodedata
import warnings
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Literal, TypeVar

from odmt_sdk.paths import user_path

Named = TypeVar("Named")

PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"}


def find_files(folder: str | Path, patterns: Sequence[str]) -> list[Path]:
    """Return the files that match the first pattern with any match.

    Args:
        folder: the folder; subfolders are not searched.
        patterns: patterns such as "*_pairs.csv", in order of preference.

    Returns:
        The files, sorted by name; an empty list if no pattern matches.

    Raises:
        FileNotFoundError: if the folder does not exist.
    """
    folder = user_path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    for pattern in patterns:
        if found := sorted(path for path in folder.glob(pattern) if path.is_file()):
            return found
    return []


def find_file(folder: str | Path, patterns: Sequence[str], what: str) -> Path:
    """Return the only file that matches the first pattern with any match.

    Args:
        folder: the folder.
        patterns: see `find_files`.
        what: content of the file, for error messages, such as "interactions".

    Returns:
        The file.

    Raises:
        FileNotFoundError: if no file matches, or the folder does not exist.
        ValueError: if several files match.
    """
    found = find_files(folder, patterns)
    if not found:
        there = sorted(path.name for path in user_path(folder).iterdir())
        raise FileNotFoundError(
            f"{folder} holds no file of {what}, that is {' or '.join(patterns)}; there are "
            f"{', '.join(there[:10]) or 'no files'}{', ...' if len(there) > 10 else ''}"
        )
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ValueError(f"{folder} holds several files of {what}: {names}; keep one of them there")
    return found[0]


def find_pictures(
    folder: str | Path | Literal[False] | None,
    item_ids: Sequence[Hashable],
    *,
    within: Path,
    names: Sequence[str],
) -> list[Path | None]:
    """Find the image of each item: a file whose name is the item id.

    Args:
        folder: folder of the images, which may be in subfolders; None = search the data set's
            folder, False = no images.
        item_ids: the ids.
        within: the folder of the data set.
        names: patterns of the image folder's name there, in order of preference.

    Returns:
        A path for each id, or None if the item has no image.

    Raises:
        FileNotFoundError: if `folder` does not exist.
        ValueError: if the images are in an LMDB file, which is not supported.
    """
    if folder is False:
        return [None] * len(item_ids)
    found: Path | None
    if folder is None:
        candidates = (path for name in names for path in sorted(within.glob(name)))
        found = next((path for path in candidates if path.is_dir() and not _is_lmdb(path)), None)
        if found is None and (databases := sorted(filter(_is_lmdb, within.iterdir()))):
            _refuse_lmdb(databases[0])
    else:
        found = user_path(folder)
        if _is_lmdb(found):
            _refuse_lmdb(found)
        if not found.is_dir():
            raise FileNotFoundError(f"there is no folder of pictures {found}")
    if found is None:
        return [None] * len(item_ids)
    pictures = {
        path.stem: path
        for place, _, files in os.walk(found)
        for path in map(Path(place).joinpath, sorted(files))
        if path.suffix.lower() in PICTURE_SUFFIXES
    }
    pictures = _by_form(pictures, item_ids)
    return [pictures.get(str(item_id)) for item_id in item_ids]


def pictures_by_id(
    folder: str | os.PathLike[str], item_ids: Sequence[Hashable]
) -> list[Path | None]:
    """Find the picture of each item in a folder: `<item id>.jpg`, `.png`, `.webp` or the like.

    Args:
        folder: the folder; its subfolders are searched too.
        item_ids: the ids.

    Returns:
        A path for each id, or None if the item has no picture.

    Raises:
        FileNotFoundError: if the folder does not exist, or has no pictures.
        ValueError: if an item has two pictures, no picture belongs to an item, or ids lost the
            leading zeros that the names of the pictures have. Pictures that differ from an id only
            in case or in spaces are not used, with a warning.
    """
    folder = user_path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder of pictures {folder}")
    found: dict[str, list[Path]] = {}
    for place, folders, files in os.walk(folder):
        folders.sort()
        for path in map(Path(place).joinpath, sorted(files)):
            if path.suffix.lower() in PICTURE_SUFFIXES:
                found.setdefault(path.stem, []).append(path)
    if not found:
        endings = ", ".join(sorted(PICTURE_SUFFIXES))
        raise FileNotFoundError(f"{folder} has no pictures: no file ends with one of {endings}")
    chosen: list[Path | None] = []
    found = _by_form(found, item_ids)
    for item_id in item_ids:
        paths = found.pop(str(item_id), [])
        if len(paths) > 1:
            names = " and ".join(str(path.relative_to(folder)) for path in paths)
            raise ValueError(
                f"item {item_id!r} has {len(paths)} pictures in {folder}: {names}; keep one of them"
            )
        chosen.append(paths[0] if paths else None)
    numbers = {item_id for item_id, path in zip(item_ids, chosen, strict=True) if path is None}
    padded = [stem for stem in found if stem.isdecimal() and int(stem) in numbers]
    if padded:
        raise ValueError(
            f"{folder} has a picture {found[padded[0]][0].name} but the items table has the number "
            f"{int(padded[0])}: leading zeros of the ids were lost when the table was read. Read "
            'them as strings, csv_options={"strings": ["item_id"]}, in the table of interactions '
            "too"
        )
    missing = {_loosely(item_id): item_id for item_id in numbers}
    if near := [(missing[_loosely(stem)], stem) for stem in found if _loosely(stem) in missing]:
        item_id, stem = near[0]
        warnings.warn(
            f"{len(near):,} pictures in {folder} have names that differ from an item id only in "
            f"case or in spaces, such as {found[stem][0].name!r} for item {item_id!r}: they are "
            "not used. Rename them",
            UserWarning,
            stacklevel=3,
        )
    if not any(chosen):
        example = next(iter(found.values()))[0].name
        raise ValueError(
            f"no picture in {folder} belongs to an item: pictures have names such as {example}, "
            f"items have ids such as {item_ids[0]!r}; name the pictures by item id"
        )
    return chosen


def _loosely(item_id: Hashable) -> str:
    return unicodedata.normalize("NFC", str(item_id)).strip().casefold()


def _by_form(named: dict[str, Named], item_ids: Sequence[Hashable]) -> dict[str, Named]:
    """Name pictures as the ids are written, if only the Unicode form of the names differs.

    macOS and some archives decompose letters such as "\u00e9" in the names of files.
    """
    others = [name for name in named if not name.isascii()]
    if not others:
        return named
    texts = [text for text in map(str, item_ids) if not text.isascii()]
    written = {unicodedata.normalize("NFC", text): text for text in texts if text not in named}
    renamed = dict(named)
    for name in others:
        text = written.get(unicodedata.normalize("NFC", name))
        if text is not None and text not in renamed:
            renamed[text] = renamed.pop(name)
    return renamed


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
