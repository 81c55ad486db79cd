"""Exceptions of the package, in addition to `ValueError`, `TypeError` and `ImportError`."""


class AdapterError(RuntimeError):
    """An adapter cannot be saved, loaded, or used with the given model.

    All failures while saving or loading an adapter raise this class. The model that the adapter was
    meant for is left unchanged.
    """


def missing_library(purpose: str, error: ImportError, extra: str) -> ImportError:
    """Describe an optional library that cannot be imported.

    A library that is not installed and one whose import fails need different ways out: the second
    usually does not fit another library, such as pyarrow an older NumPy.

    Args:
        purpose: what needs the library, and its name, such as "tune needs Optuna".
        error: what the import raised.
        extra: name of the extra of this package that installs the library.

    Returns:
        The error to raise.
    """
    if isinstance(error, ModuleNotFoundError):
        return ImportError(f"{purpose}: pip install odmt-sdk[{extra}]")
    return ImportError(
        f"{purpose}, which is installed but cannot be imported ({error}): install releases that "
        f"fit together, for example with pip install --upgrade odmt-sdk[{extra}]"
    )
