"""`odmt-sdk export`, `index`, `batch` and `serve`: adapters in production."""

import argparse
from typing import Any

from odmt_sdk.cli.answer import Answer
from odmt_sdk.cli.loading import ADAPTER, LOADING, add_adapter, add_backbone, load, loading
from odmt_sdk.cli.options import add_settings, given
from odmt_sdk.cli.program import Code, Program, call
from odmt_sdk.cli.signatures import settings_of

EXPORT = settings_of("export/user_encoder", "export_user_encoder", without=("model", "path"))
INDEX = settings_of("wrapper", "ODMTWrapper.export_index", without=("self", "path"))
BATCH = settings_of(
    "batch/parquet_job",
    "recommend_parquet",
    without=("adapter", "histories", "output", "progress", "loading"),
)
LIMITS = settings_of("serving/limits", "Limits")


def add_export(parser: argparse.ArgumentParser) -> None:
    """Add the options of `odmt-sdk export`."""
    parser.description = """\
Write the user encoder as a graph that runs without the package.

examples:
  odmt-sdk export my-adapter exported
  odmt-sdk export my-adapter exported --format onnx --top-k 10"""
    add_adapter(parser)
    parser.add_argument("path", metavar="FOLDER", help="folder to create")
    add_settings(parser, EXPORT)
    parser.set_defaults(write=_write_export, answer=_answer_folder)


def _write_export(arguments: argparse.Namespace, program: Program) -> None:
    load(program, arguments)
    program.use("export_user_encoder")
    settings = given(arguments, (setting.name for setting in EXPORT))
    exported = call("export_user_encoder", Code("model"), arguments.path, **settings)
    program.assign("result", exported)


def add_index(parser: argparse.ArgumentParser) -> None:
    """Add the options of `odmt-sdk index`."""
    parser.description = """\
Write the catalogue as a nearest-neighbour index, which can be opened without torch.

examples:
  odmt-sdk index my-adapter my-index
  odmt-sdk index my-adapter my-index --library usearch --approximate"""
    add_adapter(parser)
    parser.add_argument("path", metavar="FOLDER", help="folder to create")
    add_settings(parser, INDEX)
    parser.set_defaults(write=_write_index, answer=_answer_folder)


def _write_index(arguments: argparse.Namespace, program: Program) -> None:
    load(program, arguments)
    settings = given(arguments, (setting.name for setting in INDEX))
    program.assign("result", call("model.export_index", arguments.path, **settings))


def _answer_folder(arguments: argparse.Namespace, written: Any) -> Answer:
    data = {"path": arguments.path, "items": len(written)}
    return Answer(f"{len(written):,} items, written to {arguments.path}", data)


def add_batch(parser: argparse.ArgumentParser) -> None:
    """Add the options of `odmt-sdk batch`."""
    parser.description = """\
Recommend items to all users in a Parquet file or a folder of Parquet files. Run the same command
again after an interruption: complete parts are kept.

examples:
  odmt-sdk batch my-adapter users.parquet recommendations
  odmt-sdk batch my-adapter users.parquet recommendations --k 20 --processes 4"""
    parser.add_argument("adapter", metavar="ADAPTER", help=ADAPTER)
    parser.add_argument("histories", metavar="PARQUET", help="one row per user, with a list of ids")
    parser.add_argument("output", metavar="FOLDER", help="folder to create")
    add_settings(parser, BATCH)
    _add_loading(parser)
    parser.set_defaults(write=_write_batch, answer=_answer_batch)


def _add_loading(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("loading the adapter")
    add_backbone(group)
    add_settings(group, LOADING)


def _write_batch(arguments: argparse.Namespace, program: Program) -> None:
    program.use("recommend_parquet", module="odmt_sdk.batch")
    settings = given(arguments, (setting.name for setting in BATCH))
    program.in_processes = settings.get("processes", 1) > 1
    how = loading(program, arguments)
    if how:
        settings["loading"] = how
    places = (arguments.adapter, arguments.histories, arguments.output)
    program.assign("result", call("recommend_parquet", *places, **settings))


def _answer_batch(arguments: argparse.Namespace, report: Any) -> Answer:
    return Answer(f"{report}, written to {arguments.output}", vars(report))


def add_serve(parser: argparse.ArgumentParser) -> None:
    """Add the options of `odmt-sdk serve`."""
    parser.description = """\
Serve /recommend, /similar and /health over HTTP. A new adapter that is saved in the folder is
loaded without a pause.

examples:
  odmt-sdk serve my-adapter
  odmt-sdk serve my-adapter --items items.csv --host 0.0.0.0 --port 80
  curl -s localhost:8000/recommend -H 'content-type: application/json' \\
      -d '{"histories": [["1", "3114", "588"]], "k": 5}'"""
    parser.add_argument("adapter", metavar="ADAPTER", help=ADAPTER)
    parser.add_argument("--items", metavar="TABLE", help="texts to return with each item")
    parser.add_argument("--text", default="text", help="column of texts (default: %(default)s)")
    parser.add_argument("--item-id", default="item_id", help="column of ids (default: %(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="address (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="port (default: %(default)s)")
    add_settings(parser.add_argument_group("limits"), LIMITS)
    _add_loading(parser)
    parser.set_defaults(write=_write_serve, answer=_answer_nothing)


def _write_serve(arguments: argparse.Namespace, program: Program) -> None:
    program.use("create_app", module="odmt_sdk.serving")
    settings: dict[str, Any] = {}
    if arguments.items:
        program.use("read_columns", module="odmt_sdk.data")
        names = [arguments.item_id, arguments.text]
        program.assign("table", call("read_columns", arguments.items, names))
        columns = [Code(f"table[{name!r}].tolist()") for name in names]
        program.assign("pairs", call("zip", *columns, strict=True))
        program.assign("metadata", Code('{item: {"text": text} for item, text in pairs}'))
        settings["metadata"] = Code("metadata")
    limits = given(arguments, (setting.name for setting in LIMITS))
    if limits:
        program.use("Limits", module="odmt_sdk.serving")
        settings["limits"] = call("Limits", **limits)
    how = loading(program, arguments)
    if how:
        settings["loading"] = how
    program.assign("app", call("create_app", arguments.adapter, **settings))
    program.use(module="uvicorn")
    where = {"host": arguments.host, "port": arguments.port}
    program.add(call("uvicorn.run", Code("app"), **where, timeout_graceful_shutdown=30))


def _answer_nothing(arguments: argparse.Namespace, result: Any) -> Answer:
    return Answer("", None)
