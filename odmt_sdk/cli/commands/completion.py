"""`odmt-sdk completion`: commands and options complete in the shell."""

import argparse
from typing import Any

from odmt_sdk.cli.answer import Answer
from odmt_sdk.cli.program import Code, Program, call
from odmt_sdk.errors import missing_library

SHELLS = ("bash", "zsh", "tcsh")


def add_completion(parser: argparse.ArgumentParser) -> None:
    """Add the options of `odmt-sdk completion`."""
    parser.description = """\
Print the script that completes commands and options in your shell.

examples:
  odmt-sdk completion bash > ~/.local/share/bash-completion/completions/odmt-sdk
  odmt-sdk completion zsh > ~/.zfunc/_odmt-sdk     fpath+=~/.zfunc before compinit in ~/.zshrc"""
    parser.add_argument("shell", choices=SHELLS)
    parser.set_defaults(write=_write, answer=_answer)


def _write(arguments: argparse.Namespace, program: Program) -> None:
    program.use("build_parser", module="odmt_sdk.cli.entry_point")
    if not arguments.show_code:
        try:
            import shtab  # noqa: F401
        except ImportError as error:
            raise missing_library("completion needs shtab", error, "completion") from error
    program.use(module="shtab")
    program.assign("result", call("shtab.complete", Code("build_parser()"), arguments.shell))


def _answer(arguments: argparse.Namespace, script: Any) -> Answer:
    return Answer(str(script), {"script": script})
