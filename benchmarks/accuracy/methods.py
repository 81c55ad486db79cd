"""Methods and backbones of the comparison, and the grid on which every method is tuned."""

import dataclasses
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from odmt_sdk import HSTU, GRU4Rec, Mamba2, NextItNet, ODMTConfig, SASRec

_DEFAULT = ODMTConfig().to_dict()
_PUBLISHED = ODMTConfig.paper().to_dict()
# Settings of ODMTConfig or of `fit`; all others are the same for every method.
METHODS: dict[str, dict[str, Any]] = {
    "odmt": {},
    "odmt-paper": {name: v for name, v in _PUBLISHED.items() if v != _DEFAULT[name]},
    "odmt-no-counts": {"item_to_item": False},
    "odmt-no-distillation": {"distillation_weight": 0.0},
    "odmt-mutual": {"teaching_graph": "mutual"},
    "odmt-ensemble": {"teaching_graph": "ensemble"},
    "towers": {"fusion": "towers"},  # ODMT without its multi-modal transformer
    "id": {"fusion": "id"},
    "unit-id": {"fusion": "only:id"},
    "id-ensemble": {"fusion": "id_ensemble", "distillation_weight": 0.0},
    "text": {"fusion": "only:text"},
    "image": {"fusion": "only:image"},
    "sum": {"fusion": "sum"},
    "concat": {"fusion": "concat"},
    "gated": {"fusion": "gated"},
    "non-invasive": {"fusion": "non_invasive"},
    "early-deep": {"fusion": "early_deep"},
    "late": {"fusion": "late", "distillation_weight": 0.0},
    "late-deep": {"fusion": "late_deep", "distillation_weight": 0.0},
}
GRID = ("backbone_dropout=0.2,0.4", "learning_rate=0.001,0.002")
OF_FIT = (
    "learning_rate",
    "weight_decay",
    "batch_size",
    "warmup_steps",
    "epochs",
    "patience",
    "finish_slowly",
    "weigh_sources",
    "item_to_item",
)
OF_THE_BACKBONE = ("backbone_dropout", "backbone_layers", "fresh_copies")
OF_THE_MODEL = tuple(field.name for field in dataclasses.fields(ODMTConfig))

Setting = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Method:
    """A method: its name, and the settings that differ from the defaults.

    `text` is the form on the command line: a name in `METHODS`, or `name=field:value,...`.
    """

    text: str

    @property
    def name(self) -> str:
        return self.text.partition("=")[0]

    @property
    def settings(self) -> dict[str, Any]:
        name, custom, pairs = self.text.partition("=")
        if not custom:
            if name not in METHODS:
                raise ValueError(
                    f"method {name!r} is none of {sorted(METHODS)}; write your own as "
                    "name=field:value,field:value"
                )
            return dict(METHODS[name])
        return dict(_checked(*pair.split(":", 1)) for pair in pairs.split(","))

    @property
    def is_alternative(self) -> bool:
        """Whether it is another fusion, not a variant of the multi-modal transformer."""
        return self.settings.get("fusion", "odmt") != "odmt"


def settings_of_grid(axes: Sequence[str]) -> list[Setting]:
    """All combinations of axes in the form `name=value,value`."""
    named = []
    for axis in axes:
        name, _, values = axis.partition("=")
        named.append([_checked(name, value) for value in values.split(",")])
    return [tuple(setting) for setting in itertools.product(*named)]


def setting_name(setting: Setting) -> str:
    return "_".join(f"{name}={value}" for name, value in setting) or "default"


def grid_of(setting: Setting) -> list[str]:
    """The axes of a grid that contains a single setting."""
    return [f"{name}={json.dumps(value)}" for name, value in setting]


def build_backbone(
    name: str, hidden_size: int, positions: int, dropout: float | None, layers: int | None
) -> nn.Module:
    """Build a built-in backbone with its defaults, except for the given settings."""
    settings: dict[str, Any] = {} if dropout is None else {"dropout": dropout}
    if layers is not None and name != "NextItNet":
        settings["num_layers"] = layers
    if name in ("SASRec", "HSTU"):
        settings["max_seq_length"] = positions
    if name == "NextItNet":  # the receptive field covers the length of the input
        reach, dilations = 1, [1, 4]
        while reach + 6 * sum(dilations) < positions:
            dilations += [dilations[-1] * 2]
        settings["dilations"] = dilations
    backbones = {c.__name__: c for c in (SASRec, GRU4Rec, NextItNet, HSTU, Mamba2)}
    if name not in backbones:
        raise ValueError(f"backbone {name!r} is none of {sorted(backbones)}")
    return backbones[name](hidden_size, **settings)


def _checked(name: str, value: str = "") -> tuple[str, Any]:
    known = (*OF_FIT, *OF_THE_BACKBONE, *OF_THE_MODEL)
    if name not in known:
        raise ValueError(f"setting {name!r} is none of {sorted(known)}")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value
