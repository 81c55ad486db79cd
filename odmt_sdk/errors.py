"""Errors raised on purpose, apart from the built-in `ValueError`, `TypeError` and `ImportError`."""


class AdapterError(RuntimeError):
    """A saved adapter cannot be written, read, or used with what it was given.

    Everything that can go wrong while saving or loading an adapter ends in this one class, and the
    model it was meant for is left as it was.
    """
