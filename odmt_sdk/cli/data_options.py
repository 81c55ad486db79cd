"""Options and code for the user's tables: interactions, items, features and splits."""

import argparse
from typing import Any

from odmt_sdk.cli.options import Group, UsageError, add_settings, given
from odmt_sdk.cli.program import Code, Program, call
from odmt_sdk.cli.signatures import settings_of
from odmt_sdk.paths import user_path

EVENTS = settings_of("data/interactions", "Interactions.from_table", without=("cls", "table"))
ENCODING = settings_of(
    "features/features",
    "ItemFeatures.from_items",
    without=("cls", "items", "path", "progress", "encoding", "csv_options", "image_folder"),
)
WINDOWS = settings_of("data/splits", "leave_one_out", without=("interactions", "vocabulary"))
TIME = settings_of(
    "data/time_split",
    "time_split",
    without=("interactions", "vocabulary", "starts", *(setting.name for setting in WINDOWS)),
)
_COLUMNS = ("item_id", "text", "image")
FOLDER_HELP = (
    "a folder with items.*, interactions.* and, if there are pictures, images/<item_id>.jpg; or "
    "give the tables as --interactions and --items"
)


def add_interactions(parser: argparse.ArgumentParser) -> Group:
    """Add the options that name interactions, filters and a split."""
    parser.add_argument("data", nargs="?", metavar="FOLDER", help=FOLDER_HELP)
    group = parser.add_argument_group("interactions")
    group.add_argument("--interactions", metavar="TABLE", help="one row per event")
    add_settings(group, EVENTS)
    group.add_argument(
        "--drop-repeats",
        choices=("same_time", "in_a_row", "keep_first", "keep_last"),
        help="which repeated events to drop",
    )
    group.add_argument(
        "--k-core", type=int, metavar="N", help="keep users and items with at least N events"
    )
    group.add_argument("--last", type=int, metavar="N", help="keep the latest N events of a user")
    group = parser.add_argument_group("split")
    group.add_argument(
        "--split",
        choices=("leave_one_out", "time"),
        default="leave_one_out",
        help="hold out the last items of each user, or the last events (default: %(default)s)",
    )
    add_settings(group, (*WINDOWS, *TIME))
    return group


def add_items(parser: argparse.ArgumentParser) -> None:
    """Add the options that name items and their encoders."""
    group = parser.add_argument_group("items")
    group.add_argument("--items", metavar="TABLE", help="one row per item")
    group.add_argument(
        "--image-folder", metavar="FOLDER", help="pictures <item_id>.jpg, .jpeg, .png or .webp"
    )
    group.add_argument(
        "--features",
        metavar="FOLDER",
        help="folder of features from `odmt-sdk features`; replaces the encoders",
    )
    group.add_argument(
        "--standardize",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="scale each feature to mean 0 and deviation 1 over all tokens (default: yes)",
    )
    add_settings(group, ENCODING)


def write_interactions(
    program: Program, arguments: argparse.Namespace, *, with_items: bool = False
) -> Code | None:
    """Add the lines that read `interactions`.

    Args:
        program: receives the lines.
        arguments: the parsed arguments.
        with_items: whether to read the items of the folder too.

    Returns:
        The expression of the items table; None if there is no table.

    Raises:
        UsageError: if neither a folder nor tables are given, or both.
    """
    settings = given(arguments, (setting.name for setting in EVENTS))
    table: Code | None = None
    if arguments.data is not None:
        both = [n for n in ("interactions", "items", "image_folder") if getattr(arguments, n, None)]
        if both:
            raise UsageError(
                f"give the folder {arguments.data} or --{both[0].replace('_', '-')}, not both"
            )
        if "missing" in settings:
            raise UsageError("--missing works only with --interactions; a folder must be complete")
        program.use("load_folder")
        settings |= given(arguments, ("text", "image"))
        name = "interactions, items" if with_items else "interactions, _"
        program.assign(name, call("load_folder", arguments.data, **settings))
        table = Code("items") if with_items else None
    else:
        if not arguments.interactions:
            raise UsageError("give a folder of tables, or --interactions TABLE")
        program.use("Interactions")
        program.assign(
            "interactions", call("Interactions.from_table", arguments.interactions, **settings)
        )
        if getattr(arguments, "items", None):
            table = Code(repr(arguments.items))
    steps = ""
    if arguments.drop_repeats:
        steps += f".drop_repeats({arguments.drop_repeats!r})"
    if arguments.k_core is not None:
        steps += f".k_core({arguments.k_core})"
    if arguments.last is not None:
        steps += f".last({arguments.last})"
    if steps:
        program.assign("interactions", Code(f"interactions{steps}"))
    return table


def write_features(program: Program, arguments: argparse.Namespace, table: Code | None) -> bool:
    """Add the lines that create `features`.

    Args:
        program: receives the lines.
        arguments: the parsed arguments.
        table: expression of the items table.

    Returns:
        Whether there are features; a model that uses only IDs has none.

    Raises:
        UsageError: if it is not clear where the features come from.
    """
    settings = item_settings(program, arguments)
    encoded = [n for n in ("text_encoder", "image_encoder", "encoders", "arrays") if n in settings]
    if arguments.features:
        if encoded:
            raise UsageError(
                f"give --features or --{encoded[0].replace('_', '-')}, not both: `odmt-sdk "
                "features` encodes items into a folder"
            )
        value = call("ItemFeatures.open", arguments.features)
    elif encoded:
        if table is None:
            raise UsageError("the encoders need --items TABLE")
        value = call("ItemFeatures.from_items", table, **settings)
    elif getattr(arguments, "fusion", None) == "id":
        return False
    else:
        raise UsageError(
            "the items have no features: give --text-encoder, --image-encoder or both, such as "
            "--text-encoder sentence-transformers/all-MiniLM-L6-v2; or --features FOLDER; or "
            "--fusion id for a model that uses only IDs"
        )
    program.use("ItemFeatures")
    program.assign("features", Code(f"{value}.standardize()" if arguments.standardize else value))
    return True


def item_settings(program: Program, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the given arguments of `from_items`, without the table."""
    settings = given(arguments, (setting.name for setting in ENCODING))
    if "dtype" in settings:
        program.use(module="torch")
    if getattr(arguments, "data", None) is not None:  # `load_folder` has read the columns
        settings = {name: value for name, value in settings.items() if name not in _COLUMNS}
    else:
        settings |= given(arguments, ("encoding", "csv_options"))
    if getattr(arguments, "image_folder", None):
        settings["image_folder"] = arguments.image_folder
    return settings


def write_split(
    program: Program, arguments: argparse.Namespace, vocabulary: str | None, **more: Any
) -> None:
    """Add the lines that create `split` and print its report.

    Args:
        program: receives the lines.
        arguments: the parsed arguments.
        vocabulary: expression of the items in row order; None = the items of the interactions.
        **more: settings of the split; options override them.

    Raises:
        UsageError: if a setting does not belong to the chosen split.
    """
    settings = {**more, **given(arguments, (setting.name for setting in WINDOWS))}
    own = given(arguments, (setting.name for setting in TIME))
    function = "leave_one_out" if arguments.split == "leave_one_out" else "time_split"
    if own and function == "leave_one_out":
        raise UsageError(f"--{next(iter(own))} works only with --split time")
    program.use(function)
    chosen = Code("interactions")
    if vocabulary is not None:
        chosen = Code(f"interactions.keep_items({vocabulary})")
        settings["vocabulary"] = Code(vocabulary)
    program.assign("split", call(function, chosen, **own, **settings))
    program.add("print(split.report)")


def is_layout(path: str) -> bool:
    """Whether a path is a folder with a table of items, rather than a table."""
    folder = user_path(path)
    return folder.is_dir() and any(
        child.name.lower().partition(".")[0] == "items" for child in folder.iterdir()
    )
