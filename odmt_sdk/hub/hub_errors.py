"""Converts errors of the Hub to messages that say what to do."""

import contextlib
from collections.abc import Iterator

from odmt_sdk.errors import AdapterError

ACCESS = "check the name; if it is private, log in with `hf auth login` or pass token="


@contextlib.contextmanager
def hub_errors(what: str) -> Iterator[None]:
    """Convert errors of the Hub and of the connection to an `AdapterError`.

    Args:
        what: the action that failed, for the message, such as "cannot push to 'me/adapter'".

    Returns:
        A context manager.

    Raises:
        AdapterError: instead of errors of huggingface_hub and of the connection.
    """
    try:
        yield
    except Exception as error:
        advice = _advice(error)
        if advice is None:
            raise
        raise AdapterError(f"{what}: {advice} ({_first_line(error)})") from error


def _advice(error: Exception) -> str | None:
    """Advice for an error of the Hub; None for any other error."""
    from huggingface_hub import errors
    from huggingface_hub.utils import get_session

    # subclasses come before their base classes
    by_kind: tuple[tuple[type[Exception], str], ...] = (
        (
            errors.GatedRepoError,
            "access to this repository must be granted first: request it on its page",
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
            "it has not been downloaded before, and the Hub cannot be reached: connect once, or "
            "pass a folder",
        ),
        (
            errors.EntryNotFoundError,
            "a file of the adapter is not in the repository: check that the repository contains an "
            "adapter of odmt-sdk, and that subfolder= is correct",
        ),
    )
    for kind, advice in by_kind:
        if isinstance(error, kind):
            return advice
    if isinstance(error, errors.HfHubHTTPError):
        status = getattr(error.response, "status_code", None)
        if status == 401:
            return f"the Hub rejected the login: {ACCESS}"
        if status == 403:
            return "the token does not permit it: pass token= of an account with access"
        return "the Hub could not process the request: try again later"
    if isinstance(error, ValueError | KeyError):
        return "the request is invalid, or the Hub sent an invalid answer: check the arguments"
    # Connection errors are raised by the HTTP library that huggingface_hub uses.
    spoken = type(get_session()).__module__.split(".")[0]
    if isinstance(error, OSError) or type(error).__module__.split(".")[0] == spoken:
        return (
            "the connection to the Hub failed: try again, or pass local_files_only=True to use "
            "files that were downloaded before"
        )
    return None


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]
