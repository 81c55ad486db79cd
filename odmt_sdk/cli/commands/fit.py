"""`odmt-sdk fit`: tables in, adapter out."""

import argparse
from typing import Any

from odmt_sdk.cli.answer import Answer
from odmt_sdk.cli.data_options import (
    add_interactions,
    add_items,
    item_settings,
    write_features,
    write_interactions,
    write_split,
)
from odmt_sdk.cli.loading import add_backbone, backbone
from odmt_sdk.cli.options import (
    UsageError,
    add_settings,
    backbone_settings,
    given,
    is_built_in,
    json_value,
)
from odmt_sdk.cli.program import Code, Program, call
from odmt_sdk.cli.signatures import settings_of
from odmt_sdk.paths import user_path

# arguments of `from_items` -> their names in `TrainableText`
OF_TEXT = {
    "item_id": "item_id",
    "text": "text",
    "max_text_tokens": "max_tokens",
    "text_pooling": "pooling",
    "text_pooled_only": "pooled_only",
    "text_batch_size": "batch_size",
    "precision": "precision",
    "encoding": "encoding",
    "csv_options": "csv_options",
}
TRAINING = settings_of("pipeline", "fit", without=("model", "split", "output_dir", "callbacks"))
# the length of histories is an option of the split
MODEL = settings_of("config", "ODMTConfig", without=("max_seq_length",))


def add_fit(parser: argparse.ArgumentParser) -> None:
    """Add the options of `odmt-sdk fit`."""
    parser.description = """\
Train with early stopping, evaluate the best epoch, and save the adapter.

examples:
  odmt-sdk fit my-shop -o my-adapter --text-encoder bert-base-uncased \\
      --image-encoder openai/clip-vit-base-patch32
  odmt-sdk fit --interactions events.csv --items items.csv --text title --image-folder images \\
      --text-encoder bert-base-uncased --k-core 5 -o my-adapter
  odmt-sdk fit my-shop --features my-features --backbone gru4rec --hidden-size 128 -o my-adapter
  odmt-sdk fit my-shop --features my-features --backbone my_model:MyModel -o my-adapter
  odmt-sdk fit my-shop --text-encoder bert-base-uncased --train-text-encoder -o my-adapter
  odmt-sdk fit --config fit.toml --epochs 5     options in a file; typed options take precedence
  odmt-sdk fit --config fit.toml --resume       continue after an interruption"""
    add_training(parser)
    parser.add_argument(
        "--curves", metavar="FILE", help="draw the learning curves, such as curves.png"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="train from scratch in a folder that is not empty"
    )
    parser.set_defaults(write=_write, answer=_answer)


def add_training(parser: argparse.ArgumentParser) -> None:
    """Add the options that `fit` and `tune` share."""
    add_interactions(parser)
    parser.add_argument("-o", "--output-dir", metavar="FOLDER", help="folder for the adapter")
    parser.add_argument(
        "--config", metavar="FILE", help="TOML, YAML or JSON file with options by name"
    )
    add_items(parser)
    group = parser.add_argument_group("training the text encoder")
    group.add_argument(
        "--train-text-encoder",
        action="store_true",
        help="train LoRA layers in the encoder that --text-encoder names; see also "
        "--encoder-learning-rate",
    )
    group.add_argument("--lora-rank", type=int, metavar="N", help="rank of LoRA (default: 8)")
    add_backbone(parser.add_argument_group("backbone"), default="sasrec")
    add_settings(parser.add_argument_group("model (ODMTConfig)"), MODEL)
    group = parser.add_argument_group("training (fit)")
    add_settings(group, TRAINING)
    group.add_argument(
        "--training-args",
        type=json_value,
        default={},
        metavar="JSON",
        help="further transformers.TrainingArguments, such as '{\"bf16\": true}'",
    )


def write_data(program: Program, arguments: argparse.Namespace) -> Code:
    """Add the lines that read the data.

    Returns:
        The argument of `ODMTWrapper` that holds the items, as "name=value".
    """
    table = write_interactions(program, arguments, with_items=not arguments.features)
    has_features = write_features(program, arguments, table)
    write_split(program, arguments, "features.vocabulary" if has_features else None)
    return Code("item_features=features" if has_features else "vocabulary=split.vocabulary")


def write_model(
    program: Program, arguments: argparse.Namespace, items: Code, **changed: Code
) -> Code:
    """Return the expression that creates the model.

    Args:
        program: receives the imports.
        arguments: the parsed arguments.
        items: from `write_data`.
        **changed: settings of the backbone or of `ODMTConfig` that are expressions.
    """
    settings: dict[str, Any] = {**given(arguments, (setting.name for setting in MODEL)), **changed}
    more: dict[str, Any] = {}
    length = given(arguments, ("max_seq_length",))
    if is_built_in(arguments.backbone):
        takes = {setting.name for setting in backbone_settings(arguments.backbone)}
        if "hidden_size" in settings and "hidden_size" not in arguments.backbone_args:
            more["hidden_size"] = settings.pop("hidden_size")
        if "max_seq_length" in takes:
            more |= length
            length = {}
    settings |= length
    made = backbone(program, arguments.backbone, arguments.backbone_args, **more)
    program.use("ODMTWrapper")
    name, _, value = items.partition("=")
    parts: dict[str, Any] = {"backbone": made, name: Code(value)}
    if settings:
        program.use("ODMTConfig")
        parts["config"] = call("ODMTConfig", **settings)
    if arguments.train_text_encoder:
        parts["encoders"] = {"text": _trainable_text(program, arguments)}
    return call("ODMTWrapper", **parts)


def _trainable_text(program: Program, arguments: argparse.Namespace) -> Code:
    """Return the expression of the text encoder that is trained."""
    found = item_settings(program, arguments)
    if "text_encoder" not in found:
        raise UsageError("--train-text-encoder needs --text-encoder NAME, and not --features")
    program.use("TrainableText")
    settings = {OF_TEXT[name]: value for name, value in found.items() if name in OF_TEXT}
    if arguments.lora_rank is not None:
        program.use("LoraConfig", module="peft")
        rank = arguments.lora_rank
        settings["lora"] = call(
            "LoraConfig", r=rank, lora_alpha=2 * rank, target_modules="all-linear"
        )
    items = arguments.items if arguments.data is None else Code("items")
    return call("TrainableText", found["text_encoder"], items, **settings)


def training_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of `fit` that were given."""
    settings = given(arguments, (setting.name for setting in TRAINING))
    if not isinstance(arguments.training_args, dict):
        raise UsageError("--training-args must be a JSON object of names and values")
    both = sorted(set(settings) & set(arguments.training_args))
    if both:
        raise UsageError(f"--training-args and --{both[0].replace('_', '-')} both set {both[0]}")
    if not arguments.train_text_encoder and (
        arguments.lora_rank is not None or settings.get("encoder_learning_rate") is not None
    ):
        option = "encoder-learning-rate" if arguments.lora_rank is None else "lora-rank"
        raise UsageError(f"--{option} needs --train-text-encoder")
    return {**settings, **arguments.training_args}


def check_output(arguments: argparse.Namespace, *, going_on: bool) -> None:
    """Refuse to train into a folder that is not empty.

    Raises:
        UsageError: if no folder is given.
        ValueError: if the folder is not empty and `going_on` is False.
    """
    if not arguments.output_dir:
        raise UsageError("give the folder for the adapter: -o FOLDER")
    folder = user_path(arguments.output_dir)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: name a folder for the adapter")
    if folder.is_dir() and any(folder.iterdir()) and not going_on:
        raise ValueError(
            f"{folder} is not empty: pass --resume to continue an interrupted run, --overwrite to "
            "train from scratch, or name another folder"
        )


def _write(arguments: argparse.Namespace, program: Program) -> None:
    if not arguments.show_code:
        going_on = arguments.overwrite or getattr(arguments, "resume", False)
        check_output(arguments, going_on=going_on)
    elif not arguments.output_dir:
        raise UsageError("give the folder for the adapter: -o FOLDER")
    settings = training_settings(arguments)
    items = write_data(program, arguments)
    program.use(module="torch")
    program.add(call("torch.manual_seed", settings.get("seed", 0)))
    program.assign("model", write_model(program, arguments, items))
    program.use("fit")
    fitted = call("fit", Code("model"), Code("split"), arguments.output_dir, **settings)
    program.assign("result", fitted)
    if arguments.curves:
        program.use("draw_learning_curves")
        program.add(call("draw_learning_curves", Code("result"), path=arguments.curves))


def _answer(arguments: argparse.Namespace, result: Any) -> Answer:
    from odmt_sdk.evaluation import metrics_table

    data = {
        "output_dir": arguments.output_dir,
        "best_epoch": result.best_epoch,
        "validation": result.validation,
        "test": result.test,
        "comparison": result.comparison,
    }
    found = {"validation": result.validation, "test": result.test}
    shown = [name for name in result.test if "/" not in name and name[:4] in ("hit_", "ndcg")]
    text = metrics_table(found, metrics=shown)
    return Answer(
        f"{text}\nbest epoch {result.best_epoch:g}, saved to {arguments.output_dir}", data
    )
