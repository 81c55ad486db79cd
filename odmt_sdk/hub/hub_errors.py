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
    from huggingface_hub import errors
    from huggingface_hub.utils import get_session

    try:
        yield
    except errors.GatedRepoError as error:
        advice = "access to this repository must be granted first: ask for it on its page"
        raise AdapterError(f"{what}: {advice} ({_first_line(error)})") from error
    except errors.RepositoryNotFoundError as error:
        raise AdapterError(
            f"{what}: the Hub has no such repository, or it is private: {ACCESS} "
            f"({_first_line(error)})"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise AdapterError(
            f"{what}: the repository has no such revision; pass a branch, tag or commit of it "
            f"({_first_line(error)})"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise AdapterError(
            f"{what}: it was not downloaded before, and the Hub cannot be reached: connect once, "
            f"or pass a folder ({_first_line(error)})"
        ) from error
    except errors.EntryNotFoundError as error:
        raise AdapterError(
            f"{what}: a file of the adapter is not in the repository; is it one of odmt-sdk, and "
            f"the subfolder right? ({_first_line(error)})"
        ) from error
    except errors.HfHubHTTPError as error:
        status = int(getattr(error.response, "status_code", 0) or 0)
        advice = {
            401: f"the Hub does not know you: {ACCESS}",
            403: "the token does not allow it: pass token= of an account that may",
        }.get(status, "the Hub did not do it: try again later")
        raise AdapterError(f"{what}: {advice} ({_first_line(error)})") from error
    except (errors.HFValidationError, ValueError, KeyError) as error:
        raise AdapterError(f"{what}: {_first_line(error)}") from error
    except Exception as error:
        # The errors of the connection belong to the library that huggingface_hub speaks with.
        spoken = type(get_session()).__module__.split(".")[0]
        if isinstance(error, OSError) or type(error).__module__.split(".")[0] == spoken:
            raise AdapterError(
                f"{what}: the connection to the Hub broke ({_first_line(error)}): try again, or "
                "pass local_files_only=True for what was downloaded before"
            ) from error
        raise


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]
