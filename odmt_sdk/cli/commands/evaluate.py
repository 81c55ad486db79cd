"""`odmt-sdk evaluate`: measure an adapter on interactions."""

import argparse
from typing import Any

from odmt_sdk.cli.answer import Answer
from odmt_sdk.cli.data_options import add_interactions, write_interactions, write_split
from odmt_sdk.cli.loading import add_adapter, load
from odmt_sdk.cli.options import add_settings, given
from odmt_sdk.cli.program import Code, Program, call
from odmt_sdk.cli.signatures import settings_of

SETTINGS = settings_of(
    "evaluation/evaluate",
    "evaluate",
    without=("model", "dataset", "progress", "distributed", "groups", "content"),
)


def add_evaluate(parser: argparse.ArgumentParser) -> None:
    """Add the options of `odmt-sdk evaluate`."""
    parser.description = """\
Rank the held-out items of each user among all items, by the mean of the sources and by each source.
Use the same split options as for training.

examples:
  odmt-sdk evaluate my-adapter my-shop
  odmt-sdk evaluate my-adapter --interactions events.csv --k-core 5 --k 10 50 --json
  odmt-sdk evaluate my-adapter my-shop --beyond-accuracy"""
    add_adapter(parser)
    add_interactions(parser)
    group = parser.add_argument_group("evaluation")
    group.add_argument(
        "--on",
        choices=("test", "validation"),
        default="test",
        help="which held-out items (default: %(default)s)",
    )
    add_settings(group, SETTINGS)
    parser.set_defaults(write=_write, answer=_answer)


def _write(arguments: argparse.Namespace, program: Program) -> None:
    load(program, arguments)
    write_interactions(program, arguments)
    length = Code("model.max_seq_length")
    write_split(program, arguments, "model.vocabulary", max_seq_length=length)
    program.use("evaluate")
    settings = given(arguments, (setting.name for setting in SETTINGS))
    found = call("evaluate", Code("model"), Code(f"split.{arguments.on}"), **settings)
    program.assign("result", found)


def _answer(arguments: argparse.Namespace, metrics: dict[str, float]) -> Answer:
    from odmt_sdk.evaluation import metrics_table

    shown = [name for name in metrics if "/" not in name and name[:4] in ("hit_", "ndcg")]
    text = metrics_table({arguments.adapter: metrics}, metrics=shown)
    others: list[Any] = [n for n in metrics if "/" not in n and n.partition("@")[0] not in _RANKING]
    groups = [name for name in metrics if name.endswith(("/users",)) or "/share@" in name]
    lines = [f"{name}  {metrics[name]:.4f}" for name in (*others, *groups)]
    return Answer("\n".join([text, *lines]), metrics)


_RANKING = ("hit_rate", "recall", "ndcg", "mrr")
