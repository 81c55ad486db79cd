"""`Limits`: request limits and batching settings of the HTTP service."""

from dataclasses import dataclass

_LEAST = {"batch_wait": 0, "reload_seconds": 0, "max_waiting_seconds": 0.001}  # of others 1


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Request limits and batching settings of the service.

    Args:
        max_request_bytes: largest request body; a larger one is refused (413) before it is read
            completely.
        max_histories: most histories in one `/recommend` request, or items in one `/similar`
            request.
        max_history_length: most items in one history.
        max_k: most recommendations per history.
        max_waiting: most requests that wait at the same time; further ones are refused (503).
        max_waiting_seconds: longest time in seconds that a request waits to be scored; after it the
            request is refused (503), because its client has probably given up.
        batch_size: number of histories scored at once, across all waiting requests.
        batch_wait: seconds to wait for further requests before a batch is scored.
        reload_seconds: interval in seconds at which a local adapter folder is checked for a new
            adapter; 0 = never.

    Raises:
        ValueError: if a value is out of range.
    """

    max_request_bytes: int = 1 << 20
    max_histories: int = 256
    max_history_length: int = 1000
    max_k: int = 200
    max_waiting: int = 1000
    max_waiting_seconds: float = 10.0
    batch_size: int = 256
    batch_wait: float = 0.002
    reload_seconds: float = 5.0

    def __post_init__(self) -> None:
        """Check the range of every value."""
        for name, value in vars(self).items():
            least = _LEAST.get(name, 1)
            if not value >= least:
                raise ValueError(f"{name}={value} must be at least {least}")
