"""`odmt-sdk features`: texts and pictures of items become a folder of tokens."""

import argparse
from typing import Any

from odmt_sdk.cli.answer import Answer
from odmt_sdk.cli.data_options import ENCODING, is_layout
from odmt_sdk.cli.options import UsageError, add_settings, given
from odmt_sdk.cli.program import Code, Program, call
from odmt_sdk.cli.signatures import settings_of

TEXT_FILES = tuple(
    setting
    for setting in settings_of("features/features", "ItemFeatures.from_items")
    if setting.name in ("encoding", "csv_options")
)


def add_features(parser: argparse.ArgumentParser) -> None:
    """Add the options of `odmt-sdk features`."""
    parser.description = """\
Encode texts and pictures with pretrained encoders, once. An interrupted run continues where it
stopped. If the folder already has features, only new items are encoded.

examples:
  odmt-sdk features items.csv my-features --text-encoder bert-base-uncased
  odmt-sdk features items.csv my-features --text title --text-encoder bert-base-uncased \\
      --image-folder images --image-encoder openai/clip-vit-base-patch32
  odmt-sdk features my-shop my-features --image-encoder torchvision:resnet50
  odmt-sdk fit my-shop --features my-features -o my-adapter"""
    parser.add_argument(
        "items", metavar="ITEMS", help="a table, or a folder with items.* and images/"
    )
    parser.add_argument("path", metavar="FOLDER", help="folder to write to")
    parser.add_argument(
        "--image-folder", metavar="FOLDER", help="pictures <item_id>.jpg, .jpeg, .png or .webp"
    )
    add_settings(parser, (*TEXT_FILES, *ENCODING))
    parser.set_defaults(write=_write, answer=_answer)


def _write(arguments: argparse.Namespace, program: Program) -> None:
    settings = given(arguments, (setting.name for setting in (*ENCODING, *TEXT_FILES)))
    if "dtype" in settings:
        program.use(module="torch")
    if not {"text_encoder", "image_encoder", "encoders", "arrays"} & settings.keys():
        raise UsageError("give --text-encoder, --image-encoder, --encoders or --arrays")
    if arguments.image_folder:
        settings["image_folder"] = arguments.image_folder
    items: Any = arguments.items
    program.use("ItemFeatures")
    if is_layout(arguments.items):
        if arguments.image_folder:
            raise UsageError(f"--image-folder is for a table: {arguments.items} has its own images")
        program.use("load_folder")
        read = ("text", "image", "encoding", "csv_options")
        reading = {name: settings.pop(name) for name in read if name in settings}
        if "item_id" in settings:
            reading["item"] = settings.pop("item_id")
        program.assign("_, items", call("load_folder", items, **reading))
        items = Code("items")
    made = call("ItemFeatures.from_items", items, path=arguments.path, **settings)
    program.assign("result", made)


def _answer(arguments: argparse.Namespace, features: Any) -> Answer:
    problems = {
        name: {str(item): reason for item, reason in found.items()}
        for name, found in features.report.problems.items()
    }
    data = {
        "path": arguments.path,
        "items": features.num_items,
        "widths": features.widths,
        "present": dict(features.report.present),
        "problems": problems,
    }
    return Answer(f"{features}\n{features.report}\nwritten to {arguments.path}", data)
