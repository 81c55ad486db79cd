"""Exceptions of the package, in addition to `ValueError`, `TypeError` and `ImportError`."""


class AdapterError(RuntimeError):
    """An adapter cannot be saved, loaded, or used with the given model.

    All failures while saving or loading an adapter raise this class. The model that the adapter was
    meant for is left unchanged.
    """
