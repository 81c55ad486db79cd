"""The command line `odmt-sdk`; each command calls a public function."""

from odmt_sdk.cli.entry_point import main

__all__ = ["main"]
