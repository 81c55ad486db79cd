"""`main`: parses the command line, runs a command and reports errors in one line."""

import argparse
import contextlib
import importlib
import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from odmt_sdk.cli.answer import Answer
from odmt_sdk.cli.options import UsageError, did_you_mean, read_settings_file
from odmt_sdk.cli.program import Program

# command -> its module, and what it does
COMMANDS = {
    "check": ("check", "check whether your backbone can be trained and served"),
    "features": ("features", "encode texts and pictures of items, once, into a folder"),
    "fit": ("fit", "train, evaluate and save an adapter: tables in, adapter out"),
    "tune": ("tune", "search for good settings on the validation set"),
    "evaluate": ("evaluate", "measure an adapter on interactions"),
    "recommend": ("recommend", "recommend the next items after a history"),
    "similar": ("recommend", "find the most similar items"),
    "info": ("adapters", "describe an adapter: card, sizes, sources, origin of its features"),
    "shipped": ("adapters", "list the adapters that come with the package"),
    "push": ("adapters", "push an adapter to a repository on the Hugging Face Hub"),
    "pull": ("adapters", "copy an adapter from the Hugging Face Hub into a folder"),
    "export": ("production", "write the user encoder as a graph for PyTorch or ONNX Runtime"),
    "index": ("production", "write the catalogue as a nearest-neighbour index"),
    "batch": ("production", "recommend items to all users in a Parquet file"),
    "serve": ("production", "serve recommendations over HTTP"),
    "demo": ("demo", "try an adapter in the browser"),
    "completion": ("completion", "print the script that completes commands in your shell"),
}
DESCRIPTION = """\
Turn a sequence recommender into a multi-modal one: train, evaluate, recommend, serve.

examples:
  odmt-sdk shipped                                      adapters to start with
  odmt-sdk recommend shipped:films-sasrec 1 3114 588    try one, no network needed
  odmt-sdk demo                                         the same in the browser, on a drawn shop
  odmt-sdk fit my-shop -o my-adapter --text-encoder bert-base-uncased
  odmt-sdk evaluate my-adapter my-shop
  odmt-sdk fit --help                                   every setting
"""
EPILOG = """\
With --show-code, every command prints equivalent Python code instead of running it. With --json, it
prints its result as JSON. Only the result goes to standard output; progress, warnings and errors go
to standard error. Exit codes: 0 done, 1 error, 2 invalid command line, 130 interrupted.
"""
USER_ERRORS = (ValueError, TypeError, OSError, ImportError, RuntimeError, LookupError)
BROKEN_PIPE, INTERRUPTED = 141, 130


class _Parser(argparse.ArgumentParser):
    """A parser that does not accept abbreviated options."""

    def __init__(self, **settings: Any) -> None:
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(**{"allow_abbrev": False, "formatter_class": formatter, **settings})

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n{self.prog} --help lists the options\n")


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """Build the parser.

    Args:
        only: the command to add options for; None = all commands. With a single command, the
            source of the functions of all others is not read.

    Returns:
        The parser.
    """
    parser = _Parser(prog="odmt-sdk", description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name, (module, about) in COMMANDS.items():
        added = commands.add_parser(name, help=about, description=f"{about[0].upper()}{about[1:]}.")
        if only in (None, name):
            getattr(importlib.import_module(f"odmt_sdk.cli.commands.{module}"), f"add_{name}")(
                added
            )
        shared = added.add_argument_group("output")
        shared.add_argument(
            "--show-code", action="store_true", help="print equivalent Python code and exit"
        )
        shared.add_argument("--json", action="store_true", help="print the result as JSON")
        shared.add_argument("--debug", action="store_true", help="show the traceback of an error")
        added.set_defaults(own_parser=added)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: arguments; None = the arguments of the process.

    Returns:
        The exit code: 0 done, 1 error, 2 invalid command line, 130 interrupted, 141 if the reader
        of the output has closed it.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        arguments = _parse(argv)
    except SystemExit as stop:  # argparse has printed the help or the error
        return int(stop.code or 0)
    if arguments is None:
        return 0
    name = f"odmt-sdk {arguments.command}"
    try:
        with _warnings_in_one_line(), _modules_of_this_folder():
            answer = _answer(arguments)
        return _print(answer, as_json=arguments.json and not arguments.show_code)
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except UsageError as error:
        code: int = 2
        problem: Exception = error
    except USER_ERRORS as error:
        code, problem = 1, error
    if arguments.debug:
        raise problem
    print(f"odmt-sdk: error: {_one_line(problem)}", file=sys.stderr)
    return code


def _parse(argv: list[str]) -> argparse.Namespace | None:
    """Parse the command line; None = there is nothing left to do."""
    named = next((word for word in argv if not word.startswith("-")), None)
    parser = build_parser(only=named if named in COMMANDS else "none")
    arguments, rest = parser.parse_known_args(argv)
    if arguments.version:
        from importlib.metadata import version

        print(f"odmt-sdk {version('odmt-sdk')}")
        return None
    if arguments.command is None:
        if rest:
            parser.error(f"{rest[0]!r} is not an option{did_you_mean(rest[0], ['--version'])}")
        parser.print_help()
        return None
    own: argparse.ArgumentParser = arguments.own_parser
    if rest:
        flags = [flag for action in own._actions for flag in action.option_strings]
        own.error(f"unknown argument {rest[0]!r}{did_you_mean(rest[0].partition('=')[0], flags)}")
    if getattr(arguments, "config", None):
        try:
            settings = read_settings_file(own, arguments.config)
        except UsageError as error:
            own.error(str(error))
        own.set_defaults(**settings)
        for action in own._actions:  # a positional default would override the file
            if action.dest in settings:
                action.required = False
        arguments = parser.parse_args(argv)
    return arguments


def _answer(arguments: argparse.Namespace) -> Answer:
    """Write the program of a command, and run it unless `--show-code` is given."""
    program = Program()
    with contextlib.redirect_stdout(sys.stderr):
        arguments.write(arguments, program)
        if not arguments.show_code:
            for spec in program.user_code:
                _check_user_code(spec)
            program.run()
    if arguments.show_code:
        return Answer(program.source().rstrip("\n"), None)
    answer: Answer = arguments.answer(arguments, program.values.get("result"))
    return answer


def _print(answer: Answer, *, as_json: bool) -> int:
    text = json.dumps(answer.data, ensure_ascii=False, default=str) if as_json else answer.text
    try:
        if text:
            print(text)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has stopped, such as `head`
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    return answer.code


def _check_user_code(spec: str) -> None:
    """Import the user's class or function, and raise if it cannot be used."""
    name, _, kind = spec.partition(":")
    try:
        module = importlib.import_module(name)
    except Exception as error:  # a user's file may raise anything
        if isinstance(error, ModuleNotFoundError) and error.name == name.partition(".")[0]:
            raise UsageError(
                f"there is no module {name!r}: {name.replace('.', '/')}.py is not in this folder, "
                f"{os.getcwd()}"
            ) from error
        raise ValueError(f"{name!r} cannot be imported: {type(error).__name__}: {error}") from error
    if not hasattr(module, kind):
        raise UsageError(f"{name!r} does not define {kind!r}{did_you_mean(kind, vars(module))}")
    maker = getattr(module, kind)
    is_model = hasattr(maker, "forward") and not isinstance(maker, type)
    if is_model or not callable(maker):
        raise UsageError(f"{spec} is not a class or function that creates a model")


@contextlib.contextmanager
def _modules_of_this_folder() -> Iterator[None]:
    """Let the user's modules be imported from the current folder."""
    before = list(sys.path)
    sys.path.insert(0, os.getcwd())
    try:
        yield
    finally:
        sys.path[:] = before


@contextlib.contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    def show(message: Any, *_: Any) -> None:
        print(f"odmt-sdk: warning: {_one_line(message)}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show  # type: ignore[assignment]
        yield


def _one_line(error: object) -> str:
    text = str(error) if not isinstance(error, KeyError) else str(error.args[0])
    return " ".join(text.split()) or type(error).__name__
