"""Detection of terminals and notebooks: progress bars are not for log files."""

import sys


def shows_bars() -> bool:
    """Whether standard error can show a progress bar: in a terminal or a notebook."""
    return "ipykernel" in sys.modules or bool(getattr(sys.stderr, "isatty", bool)())
