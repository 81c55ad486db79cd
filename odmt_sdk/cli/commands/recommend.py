"""`odmt-sdk recommend` and `odmt-sdk similar`."""

import argparse
from collections.abc import Hashable
from typing import Any

from odmt_sdk.cli.answer import Answer
from odmt_sdk.cli.data_options import is_layout
from odmt_sdk.cli.loading import add_adapter, known_ids, load
from odmt_sdk.cli.options import add_settings, given
from odmt_sdk.cli.program import Code, Program, call
from odmt_sdk.cli.signatures import settings_of
from odmt_sdk.paths import user_path

RECOMMEND = tuple(
    setting
    for setting in settings_of("wrapper", "ODMTWrapper.recommend")
    if setting.name in ("k", "exclude_seen", "unknown")
)
SIMILAR = settings_of("wrapper", "ODMTWrapper.similar_items", without=("self", "item_ids"))


def add_recommend(parser: argparse.ArgumentParser) -> None:
    """Add the options of `odmt-sdk recommend`."""
    parser.description = """\
Recommend the next items after a history. For many users at once, see `odmt-sdk batch`.

examples:
  odmt-sdk recommend shipped:films-sasrec 1 3114 588
  odmt-sdk recommend my-adapter mug-1 mug-7 -k 5 --json
  odmt-sdk recommend my-adapter mug-1 --among lamp-1 lamp-2 lamp-3
  odmt-sdk recommend my-adapter mug-1 --diversity 0.3 --titles my-shop"""
    add_adapter(parser)
    parser.add_argument("items", nargs="+", metavar="ITEM", help="the history, oldest item first")
    parser.add_argument("-k", dest="k", type=int, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    add_settings(parser, RECOMMEND)
    parser.add_argument("--among", nargs="+", metavar="ITEM", help="recommend only among these")
    parser.add_argument("--exclude", nargs="+", metavar="ITEM", help="recommend none of these")
    parser.add_argument(
        "--diversity",
        type=float,
        metavar="N",
        help="0 to 1: how much to prefer items whose content is unlike that of the items above "
        "them, see MaximalMarginalRelevance",
    )
    _add_titles(parser)
    parser.set_defaults(write=_write_recommend, answer=_answer)


def add_similar(parser: argparse.ArgumentParser) -> None:
    """Add the options of `odmt-sdk similar`."""
    parser.description = """\
Find the items with the most similar embeddings, by cosine similarity.

examples:
  odmt-sdk similar shipped:films-sasrec 1
  odmt-sdk similar my-adapter mug-1 mug-2 -k 5 --source image"""
    add_adapter(parser)
    parser.add_argument("items", nargs="+", metavar="ITEM", help="item ids; each gets its own list")
    parser.add_argument("-k", dest="k", type=int, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    add_settings(parser, SIMILAR)
    _add_titles(parser)
    parser.set_defaults(write=_write_similar, answer=_answer)


def _add_titles(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--titles",
        metavar="TABLE|FOLDER",
        help="table of the items, or folder with items.*: show the column title, text or name",
    )


def _write_recommend(arguments: argparse.Namespace, program: Program) -> None:
    load(program, arguments)
    settings: dict[str, Any] = given(arguments, (setting.name for setting in RECOMMEND))
    history = known_ids(program, arguments.items)
    if arguments.among:
        settings["items"] = known_ids(program, arguments.among)
    if arguments.exclude:
        settings["exclude"] = known_ids(program, arguments.exclude)
    if arguments.diversity is not None:
        program.use("MaximalMarginalRelevance", "fused_vectors", module="odmt_sdk.retrieval")
        sources = program.values["model"].sources
        content = [source for source in sources if source != "id"] or list(sources)
        vectors = call("fused_vectors", Code("model.encode_catalogue()"), content)
        program.assign("vectors", vectors)
        settings["rerank"] = call(
            "MaximalMarginalRelevance", Code("vectors"), diversity=arguments.diversity
        )
    program.assign("result", call("model.recommend", [history], **settings))
    arguments.titles = _read_titles(program, arguments.titles)


def _write_similar(arguments: argparse.Namespace, program: Program) -> None:
    load(program, arguments)
    settings = given(arguments, (setting.name for setting in SIMILAR))
    items = known_ids(program, arguments.items)
    program.assign("result", Code(call("model.similar_items", items, **settings)))
    arguments.titles = _read_titles(program, arguments.titles)


def _read_titles(program: Program, items: str | None) -> dict[Hashable, str] | None:
    """Item id -> title, for the items of the model."""
    if items is None:
        return None
    from odmt_sdk.data.readers.folder import table_file
    from odmt_sdk.demo.item_table import ItemTable

    vocabulary = program.values["model"].vocabulary
    table = table_file(user_path(items), "items") if is_layout(items) else items
    return dict(zip(vocabulary, ItemTable(vocabulary, table).titles[1:], strict=True))


def _answer(arguments: argparse.Namespace, found: Any) -> Answer:
    titles = arguments.titles
    several = len(found.item_ids) > 1
    lines = []
    for number, (items, scores) in enumerate(zip(found.item_ids, found.scores, strict=True)):
        if several:
            lines.append(f"{arguments.items[number]}:")
        width = max((len(str(item)) for item in items), default=0)
        lines += [
            f"{place:>4}  {item!s:<{width}}  {score:.4f}"
            + ("" if titles is None else f"  {titles[item]}")
            for place, (item, score) in enumerate(zip(items, scores, strict=True), start=1)
        ]
    data = {"item_ids": found.item_ids, "scores": found.scores}
    if titles is not None:
        data["titles"] = [[titles[item] for item in items] for items in found.item_ids]
    return Answer("\n".join(lines), data)
