"""`odmt-sdk info`, `shipped`, `push` and `pull`: adapters as folders and repositories."""

import argparse
import dataclasses
from typing import Any

from odmt_sdk.cli.answer import Answer
from odmt_sdk.cli.loading import ADAPTER
from odmt_sdk.cli.options import add_settings, given
from odmt_sdk.cli.program import Code, Program, call
from odmt_sdk.cli.signatures import Setting, settings_of

INFO = settings_of("hub/description", "describe_adapter", without=("path", "token"))
PULL = settings_of("hub/pull", "pull_folder", without=("repo_id", "folder", "token"))
PRIVATE = Setting("private", "bool", None, "make a new repository private")
PUSH = settings_of("hub/push", "push_folder", without=("folder", "repo_id", "token"))


def add_info(parser: argparse.ArgumentParser) -> None:
    """Add the options of `odmt-sdk info`."""
    parser.description = """\
Describe an adapter without loading its weights.

examples:
  odmt-sdk info my-adapter
  odmt-sdk info shipped:films-sasrec --json"""
    parser.add_argument("adapter", metavar="ADAPTER", help=ADAPTER)
    add_settings(parser, INFO)
    parser.set_defaults(write=_write_info, answer=_answer_info)


def _write_info(arguments: argparse.Namespace, program: Program) -> None:
    program.use("describe_adapter", module="odmt_sdk.hub")
    settings = given(arguments, (setting.name for setting in INFO))
    program.assign("result", call("describe_adapter", arguments.adapter, **settings))


def _answer_info(arguments: argparse.Namespace, about: Any) -> Answer:
    return Answer(str(about), dataclasses.asdict(about))


def add_shipped(parser: argparse.ArgumentParser) -> None:
    """Add the options of `odmt-sdk shipped`."""
    parser.description = """\
List the adapters that come with the package. They work without a network.

examples:
  odmt-sdk shipped
  odmt-sdk recommend shipped:films-sasrec 1 3114 588"""
    parser.set_defaults(write=_write_shipped, answer=_answer_shipped)


def _write_shipped(arguments: argparse.Namespace, program: Program) -> None:
    program.use("shipped_adapters")
    program.assign("result", Code("shipped_adapters()"))


def _answer_shipped(arguments: argparse.Namespace, adapters: Any) -> Answer:
    return Answer(str(adapters), [dataclasses.asdict(adapter) for adapter in adapters])


def add_push(parser: argparse.ArgumentParser) -> None:
    """Add the options of `odmt-sdk push`."""
    parser.description = """\
Push an adapter to a repository on the Hugging Face Hub, as one commit. The repository is created
if it does not exist. Log in first with `hf auth login`.

examples:
  odmt-sdk push my-adapter me/my-adapter --private
  odmt-sdk push my-adapter me/my-adapter --create-pr"""
    parser.add_argument("folder", metavar="ADAPTER", help="a folder with an adapter")
    parser.add_argument("repo_id", metavar="REPOSITORY", help="such as me/my-adapter")
    add_settings(parser, (PRIVATE, *PUSH))
    parser.set_defaults(write=_write_push, answer=_answer_push)


def _write_push(arguments: argparse.Namespace, program: Program) -> None:
    program.use("make_repository", "push_folder", "describe_adapter", module="odmt_sdk.hub")
    program.use("Path", module="pathlib")
    private = getattr(arguments, "private", None)
    settings = given(arguments, (setting.name for setting in PUSH))
    # fails before anything is created on the Hub
    program.assign("folder", Code(f"describe_adapter(Path({arguments.folder!r})).folder"))
    made = call("make_repository", arguments.repo_id, private=private, token=None)
    program.assign("repo_id", made)
    program.assign("result", call("push_folder", Code("folder"), Code("repo_id"), **settings))


def _answer_push(arguments: argparse.Namespace, commit: Any) -> Answer:
    data = {"commit_url": str(commit.commit_url), "pr_url": commit.pr_url}
    return Answer(data["pr_url"] or data["commit_url"], data)


def add_pull(parser: argparse.ArgumentParser) -> None:
    """Add the options of `odmt-sdk pull`."""
    parser.description = """\
Copy an adapter from the Hugging Face Hub, or one that comes with the package, into a folder.
Nothing in it is executed.

examples:
  odmt-sdk pull me/my-adapter my-adapter
  odmt-sdk pull shipped:films-sasrec films"""
    parser.add_argument("repo_id", metavar="ADAPTER", help=ADAPTER)
    parser.add_argument("folder", metavar="FOLDER", help="folder to create")
    add_settings(parser, PULL)
    parser.set_defaults(write=_write_pull, answer=_answer_pull)


def _write_pull(arguments: argparse.Namespace, program: Program) -> None:
    program.use("pull_folder", module="odmt_sdk.hub")
    settings = given(arguments, (setting.name for setting in PULL))
    pulled = call("pull_folder", arguments.repo_id, arguments.folder, **settings)
    program.assign("result", pulled)


def _answer_pull(arguments: argparse.Namespace, folder: Any) -> Answer:
    return Answer(f"copied to {folder}", {"folder": str(folder)})
