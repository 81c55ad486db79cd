"""`odmt-sdk check`: whether a backbone can be trained and served."""

import argparse
from typing import Any

from odmt_sdk.cli.answer import Answer
from odmt_sdk.cli.loading import backbone
from odmt_sdk.cli.options import add_settings, given, json_value
from odmt_sdk.cli.program import Program, call
from odmt_sdk.cli.signatures import settings_of

SETTINGS = settings_of("backbones/check/report", "check_backbone", without=("model", "forward_fn"))


def add_check(parser: argparse.ArgumentParser) -> None:
    """Add the options of `odmt-sdk check`."""
    parser.description = """\
Check a backbone on tiny batches: shapes, causality, padding, gradients, bfloat16 and so on.
The exit code is 1 if there is an error.

examples:
  odmt-sdk check my_model:MyModel                       the class MyModel in my_model.py
  odmt-sdk check my_model:MyModel --backbone-args '{"width": 64}'
  odmt-sdk check sasrec --hidden-size 64"""
    parser.add_argument(
        "backbone", metavar="MODULE:CLASS", help="class, or function that creates it"
    )
    parser.add_argument(
        "--backbone-args", type=json_value, default={}, metavar="JSON", help="its arguments"
    )
    add_settings(parser, SETTINGS)
    parser.set_defaults(write=_write, answer=_answer)


def _write(arguments: argparse.Namespace, program: Program) -> None:
    program.use("check_backbone")
    settings = given(arguments, (setting.name for setting in SETTINGS))
    model = backbone(program, arguments.backbone, arguments.backbone_args)
    program.assign("result", call("check_backbone", model, **settings))


def _answer(arguments: argparse.Namespace, report: Any) -> Answer:
    findings = [
        {"name": finding.name, "level": finding.level, "message": finding.message}
        for finding in report.findings
    ]
    data = {"backbone": report.subject, "usable": not report.errors, "findings": findings}
    return Answer(str(report), data, code=1 if report.errors else 0)
