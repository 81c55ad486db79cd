"""`odmt-sdk demo`: a page to try an adapter in the browser."""

import argparse
from importlib.util import find_spec
from typing import Any

from odmt_sdk.cli.answer import Answer
from odmt_sdk.cli.loading import ADAPTER, LOADING, add_backbone, loading
from odmt_sdk.cli.options import add_settings, given
from odmt_sdk.cli.program import Program, call
from odmt_sdk.cli.signatures import Setting, settings_of

_NOT_ASKED = ("model", "items", "examples", "loading", "block")


def _settings() -> tuple[Setting, ...]:
    return settings_of("demo/server", "launch", without=_NOT_ASKED)


def add_demo(parser: argparse.ArgumentParser) -> None:
    """Add the options of `odmt-sdk demo`."""
    parser.description = """\
Try an adapter in the browser: pick a history, and see recommendations with pictures and what each
source adds to the score. Without an adapter, the page shows a small drawn shop; no network needed.

examples:
  odmt-sdk demo
  odmt-sdk demo my-adapter --items items.csv --image-folder images --open-browser"""
    parser.add_argument("adapter", nargs="?", metavar="ADAPTER", help=ADAPTER)
    parser.add_argument("--items", metavar="TABLE", help="titles and pictures of the items")
    add_settings(parser, _settings())
    group = parser.add_argument_group("loading the adapter")
    add_backbone(group)
    add_settings(group, LOADING)
    parser.set_defaults(write=_write, answer=_answer)


def _write(arguments: argparse.Namespace, program: Program) -> None:
    if not arguments.show_code and find_spec("gradio") is None:
        raise ImportError("the page needs Gradio: pip install odmt-sdk[demo]")
    program.use("launch", module="odmt_sdk.demo")
    settings = given(arguments, (setting.name for setting in _settings()))
    how = loading(program, arguments)
    if how:
        settings["loading"] = how
    places = [arguments.adapter] if arguments.adapter else []
    if arguments.items:
        settings = {"items": arguments.items, **settings}
    program.add(call("launch", *places, **settings))


def _answer(arguments: argparse.Namespace, result: Any) -> Answer:
    return Answer("", None)
