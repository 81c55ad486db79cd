"""Expands paths given by users."""

import os
from pathlib import Path


def user_path(path: str | os.PathLike[str]) -> Path:
    """Expand `~` in a path given by the user.

    Every path argument of the package goes through this function, so `~` works everywhere.

    Args:
        path: the path; a leading `~` is the user's home folder, `~ann` the home folder of ann.

    Returns:
        The expanded path.

    Raises:
        TypeError: if it is not a path.

    Examples:
        >>> user_path("~/features") == Path.home() / "features"
        True
    """
    return Path(os.path.expanduser(os.fspath(path)))
