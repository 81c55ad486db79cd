"""Exchanging the adapter in a folder for another, so that at any moment one of them is complete.

1. The new files are written in a hidden folder, and moved from there to names with the mark of this
   save, which nothing refers to.
2. `config.json` is replaced by one that names them: from here on the folder holds the new adapter.
3. They get the plain names too, by hard links (copies, where a file system has none), and
   `config.json` is replaced by one that names those.
4. What no `config.json` names any more is removed, also what an interrupted save left behind.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from odmt_sdk.saving.layout import CONFIG, STAGE, FileName, parse_name

Files = Mapping[str, list[FileName]]


def exchange(
    folder: Path,
    description: Mapping[str, Any],
    save_id: str,
    write: Callable[[Path], Files],
    texts: Mapping[str, str],
) -> None:
    """Replace the adapter in a folder, or put the first one there.

    Args:
        folder: exists.
        description: `config.json` without the key "files".
        save_id: of this save; begins with its mark.
        write: writes all other files of the adapter into the folder given to it, and returns role
            -> their names.
        texts: name -> content of files that no adapter depends on; they are written last.

    Raises:
        OSError: if writing fails before the new adapter is complete; the old one is as it was.
    """
    mark = save_id[:8]
    stage = folder / f".save-{mark}"
    moved: list[Path] = []
    try:
        stage.mkdir()
        plain = write(stage)
        marked = {role: [n._replace(mark=mark) for n in names] for role, names in plain.items()}
        mode = _usual_mode(stage)
        for role, names in plain.items():
            for name, target in zip(names, marked[role], strict=True):
                (stage / str(name)).chmod(mode)
                sync(stage / str(name))
                moved.append(folder / str(target))
                os.replace(stage / str(name), folder / str(target))
        _replace_config(folder, stage, description, marked)
    except BaseException:
        if not _is_committed(folder, save_id):
            for path in moved:
                path.unlink(missing_ok=True)
            shutil.rmtree(stage, ignore_errors=True)
        raise
    files: Files = marked
    with contextlib.suppress(OSError):  # the new adapter is complete, only its names are not plain
        for role, names in plain.items():
            for name, source in zip(names, marked[role], strict=True):
                (folder / str(name)).unlink(missing_ok=True)
                _second_name(folder / str(source), folder / str(name))
        _replace_config(folder, stage, description, plain)
        files = plain
    with contextlib.suppress(OSError):
        for text_name, text in texts.items():
            replace_file(folder / text_name, text, partial=stage / text_name)
    remove_leftovers(folder, {str(name) for names in files.values() for name in names})


def remove_leftovers(folder: Path, named: set[str]) -> None:
    """Remove files of adapters that `config.json` does not name.

    Args:
        folder: the folder.
        named: file names that stay.
    """
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(folder)):
            if entry.is_dir(follow_symlinks=False):
                if STAGE.fullmatch(entry.name):
                    shutil.rmtree(entry.path, ignore_errors=True)
            elif parse_name(entry.name) and entry.name not in named:
                os.unlink(entry.path)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one process at a time save into a folder, where the system can tell.

    Args:
        folder: exists.
    """
    try:
        import fcntl  # not on Windows

        handle = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        yield
        return
    try:
        with contextlib.suppress(OSError):  # some network file systems have no locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def replace_file(path: Path, content: str, *, partial: Path) -> None:
    """Write a small file so that it is there whole or not at all.

    Args:
        path: where.
        content: text.
        partial: where it is written first, on the same file system.
    """
    # a text for people may hold half a character
    partial.write_text(content, encoding="utf-8", errors="backslashreplace")
    sync(partial)
    with contextlib.suppress(OSError):  # a system that cannot do it for folders
        sync(path.parent)
    os.replace(partial, path)
    with contextlib.suppress(OSError):
        sync(path.parent)


def sync(path: Path) -> None:
    """Make sure that a file or folder survives a power cut.

    Args:
        path: what was written.

    Raises:
        OSError: if the system cannot do it, as Windows for folders.
    """
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _is_committed(folder: Path, save_id: str) -> bool:
    """Whether `config.json` is of this save."""
    with contextlib.suppress(OSError, ValueError):
        return f'"save_id": "{save_id}"' in (folder / CONFIG).read_text(encoding="utf-8")
    return False


def _second_name(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)
        shutil.copymode(source, target)
        sync(target)


def _usual_mode(stage: Path) -> int:
    """Permissions of new files; safetensors makes files that only their owner can read."""
    probe = stage / "probe"
    probe.touch()
    mode = probe.stat().st_mode & 0o777
    probe.unlink()
    return mode


def _replace_config(
    folder: Path, stage: Path, description: Mapping[str, Any], files: Files
) -> None:
    names = {role: [str(name) for name in named] for role, named in files.items()}
    content = json.dumps({**description, "files": names}, indent=2)
    replace_file(folder / CONFIG, content + "\n", partial=stage / CONFIG)
