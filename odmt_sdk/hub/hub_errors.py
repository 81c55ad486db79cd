"""What the Hub refuses, in words that say what to do."""

import contextlib
from collections.abc import Iterator

from odmt_sdk.errors import AdapterError

ACCESS = "check the name; if it is private, log in with `hf auth login` or pass token="


@contextlib.contextmanager
def hub_errors(what: str) -> Iterator[None]:
    """Turn everything that can go wrong with the Hub into an `AdapterError`.

    Args:
        what: what could not be done.

    Returns:
        A context manager.

    Raises:
        AdapterError: in place of the errors of huggingface_hub and of the connection.
    """
    try:
        yield
    except Exception as error:
        advice = _advice(error)
        if advice is None:
            raise
        raise AdapterError(f"{what}: {advice} ({_first_line(error)})") from error


def _advice(error: Exception) -> str | None:
    """What to do about an error of the Hub; None for any other error."""
    from huggingface_hub import errors
    from huggingface_hub.utils import get_session

    # those that are special cases of others come first
    by_kind: tuple[tuple[type[Exception], str], ...] = (
        (
            errors.GatedRepoError,
            "access to this repository must be granted first: ask for it on its page",
        ),
        (
            errors.RepositoryNotFoundError,
            f"the Hub has no such repository, or it is private: {ACCESS}",
        ),
        (
            errors.RevisionNotFoundError,
            "the repository has no such revision; pass a branch, tag or commit of it",
        ),
        (
            errors.LocalEntryNotFoundError,
            "it was not downloaded before, and the Hub cannot be reached: connect once, or pass a "
            "folder",
        ),
        (
            errors.EntryNotFoundError,
            "a file of the adapter is not in the repository; is it one of odmt-sdk, and the "
            "subfolder right?",
        ),
    )
    for kind, advice in by_kind:
        if isinstance(error, kind):
            return advice
    if isinstance(error, errors.HfHubHTTPError):
        status = getattr(error.response, "status_code", None)
        if status == 401:
            return f"the Hub does not know you: {ACCESS}"
        if status == 403:
            return "the token does not allow it: pass token= of an account that may"
        return "the Hub did not do it: try again later"
    if isinstance(error, ValueError | KeyError):
        return "that is not what the Hub can make sense of, or its answer was none"
    # The errors of the connection belong to the library that huggingface_hub speaks with.
    spoken = type(get_session()).__module__.split(".")[0]
    if isinstance(error, OSError) or type(error).__module__.split(".")[0] == spoken:
        return (
            "the connection to the Hub broke: try again, or pass local_files_only=True for what "
            "was downloaded before"
        )
    return None


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]
