"""`odmt-sdk tune`: search for good settings on the validation set."""

import argparse
from typing import Any

from odmt_sdk.cli.answer import Answer
from odmt_sdk.cli.commands.fit import (
    MODEL,
    add_training,
    check_output,
    training_settings,
    write_data,
    write_model,
)
from odmt_sdk.cli.options import UsageError, add_settings, did_you_mean, given, json_value
from odmt_sdk.cli.program import Code, Program, call
from odmt_sdk.cli.signatures import settings_of
from odmt_sdk.paths import user_path

TUNE = settings_of("training/tune", "tune", without=("make_model", "split", "space", "output_dir"))
SEARCH = tuple(s for s in TUNE if s.name in ("trials", "prune", "storage", "timeout"))
OF_TRAINING = (
    *("learning_rate", "backbone_learning_rate", "encoder_learning_rate", "weight_decay"),
    *("max_grad_norm", "warmup_steps", "batch_size"),
)
BACKBONE = "backbone_"


def add_tune(parser: argparse.ArgumentParser) -> None:
    """Add the options of `odmt-sdk tune`."""
    parser.description = """\
Search for the settings with the best validation metric, and keep the best adapter. The test set is
not used. Run the same command again to continue after an interruption, or to add more --trials.

A space maps settings to their values: a list to choose from, or a range. Settings are those of the
model, backbone_NAME for an argument of the backbone, and learning_rate, backbone_learning_rate,
encoder_learning_rate, weight_decay, max_grad_norm, warmup_steps and batch_size.

examples:
  odmt-sdk tune my-shop --features my-features -o tuned --trials 20 --space \\
      '{"learning_rate": {"low": 1e-4, "high": 1e-2, "log": true}, "backbone_dropout": [0.1, 0.3]}'
  odmt-sdk tune --config tune.toml        the space is the table [space] of the file
  odmt-sdk evaluate tuned my-shop         once, at the end"""
    add_training(parser)
    group = parser.add_argument_group("search (tune)")
    group.add_argument(
        "--space", type=json_value, metavar="JSON", help="settings to search, see above"
    )
    add_settings(group, SEARCH)
    parser.set_defaults(write=_write, answer=_answer)


def _write(arguments: argparse.Namespace, program: Program) -> None:
    if not isinstance(arguments.space, dict) or not arguments.space:
        raise UsageError("give the settings to search and their values: --space JSON, see --help")
    if not arguments.show_code and arguments.output_dir:
        folder = user_path(arguments.output_dir)
        check_output(arguments, going_on=(folder / "trials.db").is_file())
    elif not arguments.output_dir:
        raise UsageError("give the folder for the adapter: -o FOLDER")
    settings = training_settings(arguments)
    for name in ("resume", "compare"):
        if name in settings:
            raise UsageError(f"--{name.replace('_', '-')} is for fit, not for tune")
    if "encoder_learning_rate" in arguments.space and not arguments.train_text_encoder:
        raise UsageError("encoder_learning_rate in --space needs --train-text-encoder")
    of_model, of_backbone = _sorted(arguments)
    items = write_data(program, arguments)
    arguments.backbone_args = {**arguments.backbone_args, **of_backbone}
    model = write_model(program, arguments, items, **of_model)
    names = [*of_model.values(), *of_backbone.values()]
    indented = model.replace("\n", "\n    ")
    program.add(f"\n\ndef make_model({', '.join(names)}):\n    return {indented}\n\n")
    program.use("tune")
    settings |= given(arguments, (setting.name for setting in SEARCH))
    places = (Code("make_model"), Code("split"), arguments.space, arguments.output_dir)
    program.assign("result", call("tune", *places, **settings))


def _sorted(arguments: argparse.Namespace) -> tuple[dict[str, Code], dict[str, Code]]:
    """Sort the names of the space into settings of the model and arguments of the backbone."""
    known = [setting.name for setting in MODEL]
    of_model, of_backbone = {}, {}
    for name in arguments.space:
        if not name.isidentifier():
            raise UsageError(f"--space has {name!r}, which is not the name of a setting")
        if name in OF_TRAINING:
            continue
        if name in known:
            of_model[name] = Code(name)
        elif name.startswith(BACKBONE):
            of_backbone[name.removeprefix(BACKBONE)] = Code(name)
        else:
            meant = did_you_mean(name, [*known, *OF_TRAINING])
            raise UsageError(
                f"--space has {name!r}, which is not a setting of the model, of the backbone "
                f"({BACKBONE}NAME) or of training{meant}"
            )
    return of_model, of_backbone


def _answer(arguments: argparse.Namespace, result: Any) -> Answer:
    data = {
        "parameters": result.parameters,
        "metric": result.metric,
        "value": result.value,
        "trials": result.trials,
        "output_dir": arguments.output_dir,
    }
    lines = [f"{name}  {value}" for name, value in result.parameters.items()]
    lines.append(f"validation {result.metric} {result.value:.4f}, saved to {arguments.output_dir}")
    return Answer("\n".join(lines), data)
