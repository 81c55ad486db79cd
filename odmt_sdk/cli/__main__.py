"""`python -m odmt_sdk.cli`."""

import sys

from odmt_sdk.cli.entry_point import main

if __name__ == "__main__":
    sys.exit(main())
