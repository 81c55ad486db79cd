"""Comparison of accuracy: every method tuned equally on validation, tested once, over seeds.

Each method is trained with every setting of a grid on the first seed. The setting with the best
validation ndcg@10 is trained on the other seeds, and only then tested. The first method is compared
with the best alternative fusion. Existing cells are reused, so an interrupted run continues where
it stopped.

    python benchmarks/accuracy/run.py compare --data FOLDER --text-encoder DIR --image-encoder DIR \
        --backbones SASRec --methods odmt id sum late --seeds 0 1 2 --output outputs/accuracy
"""

import argparse
import itertools
import multiprocessing
import shlex
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

from accuracy.cells import CHOSEN_BY, Cell, Study, counts_of, evaluate_cell, train_cell
from accuracy.data import DataSettings
from accuracy.methods import (
    METHODS,
    Method,
    Setting,
    grid_of,
    setting_name,
    settings_of_grid,
)
from accuracy.presets import PRESETS, PUBLISHED
from accuracy.report import Row, write_report

RUN = ("python", "benchmarks/accuracy/run.py")
Run = tuple[Path, str, str]  # dataset, backbone, method


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("preset", choices=[*PRESETS, "compare"], help="settings of a data set")
    made.add_argument("--data", type=Path, nargs="+", required=True, help="folders")
    made.add_argument("--text-encoder", required=True, help="folder or Hub name")
    made.add_argument("--image-encoder", default="", help="folder or Hub name, for pictures")
    made.add_argument("--text-pooling", default="mean", choices=("first", "mean"))
    made.add_argument("--text-tokens", type=int, default=1, help="neighbours are averaged")
    made.add_argument("--image-tokens", type=int, default=1, help="neighbours are averaged")
    made.add_argument("--no-standardize", action="store_true", help="leave features as they come")
    made.add_argument("--positions", type=int, default=12, help="of the input; the paper's 12")
    made.add_argument(
        "--last", type=int, help="interactions kept of a user; default positions + 3, 0 = all"
    )
    made.add_argument("--core", type=int, default=5, help="least interactions of user and item")
    made.add_argument("--min-user", type=int, help="least interactions of a user, if it differs")
    made.add_argument("--windows", default="all", choices=("all", "last"))
    made.add_argument("--overlap", type=int, default=1, help="of windows")
    made.add_argument("--backbones", nargs="+", default=["SASRec"])
    made.add_argument(
        "--methods",
        nargs="+",
        default=["odmt", "late", "id"],
        help=f"the first is compared with the others; of {', '.join(METHODS)}, or "
        "name=field:value,field:value with settings of ODMTConfig and of the grid",
    )
    made.add_argument("--grid", nargs="*", default=[], metavar="name=value,value")
    made.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    made.add_argument("--hidden-size", type=int, default=64)
    made.add_argument("--epochs", type=int, default=200, help="at most")
    made.add_argument(
        "--patience", type=int, help="epochs without a better validation; default as in fit"
    )
    made.add_argument("--batch-size", type=int, help="default as in fit")
    made.add_argument("--weight-decay", type=float, default=0.1)
    made.add_argument("--warmup-steps", type=int, help="default as in fit")
    made.add_argument("--jobs", type=int, default=1, help="cells trained at once")
    made.add_argument("--threads", type=int, default=1, help="of each of them")
    made.add_argument("--cpu", action="store_true", help="even where there is an accelerator")
    made.add_argument("--bf16", action="store_true", help="train under bfloat16 autocast")
    made.add_argument("--output", type=Path, default=Path("outputs/accuracy"))
    return made


def read_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line, with the settings of the dataset as defaults."""
    made = parser()
    if arguments and arguments[0] in PRESETS:
        made.set_defaults(**PRESETS[arguments[0]])
    return made.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    given = read_arguments(sys.argv[1:] if arguments is None else arguments)
    last = given.positions + 3 if given.last is None else given.last
    study = Study(
        output=given.output,
        data_settings=DataSettings(
            text_encoder=given.text_encoder,
            image_encoder=given.image_encoder,
            text_pooling=given.text_pooling,
            text_tokens=given.text_tokens,
            image_tokens=given.image_tokens,
            standardize=not given.no_standardize,
            positions=given.positions,
            last=last,
            core=given.core,
            min_user=given.min_user,
            windows=given.windows,
            overlap=given.overlap,
        ),
        hidden_size=given.hidden_size,
        fit_settings=tuple(
            (name, getattr(given, name))
            for name in ("epochs", "patience", "batch_size", "weight_decay", "warmup_steps")
        ),
        cpu=given.cpu,
        bf16=given.bf16,
        threads=given.threads,
    )
    methods = [Method(text) for text in given.methods]
    for method in methods:
        method.settings  # noqa: B018  # refuses invalid methods before anything is trained
    grid = settings_of_grid(given.grid)
    for folder in given.data:
        study.load(folder)  # extracts features before several processes need them

    runs: list[Run] = list(itertools.product(given.data, given.backbones, given.methods))
    with _Pool(given.jobs) as pool:
        tried = {
            run: [Cell(*run, setting=setting, seed=given.seeds[0]) for setting in grid]
            for run in runs
        }
        found = pool.each(train_cell, study, [cell for cells in tried.values() for cell in cells])
        chosen = {run: choose(cells, found) for run, cells in tried.items()}
        cells = [Cell(*run, setting=chosen[run], seed=seed) for run in runs for seed in given.seeds]
        found |= pool.each(train_cell, study, [cell for cell in cells if cell not in found])
        tested = pool.each(evaluate_cell, study, cells)
    rows = [
        Row(
            data=run[0].name,
            backbone=run[1],
            method=Method(run[2]),
            setting=chosen[run],
            cells=tuple(cell.folder(study) for cell in cells if (*run,) == _run_of(cell)),
            commands=tuple(command(given, cell) for cell in cells if (*run,) == _run_of(cell)),
            trained=tuple(found[cell] for cell in cells if (*run,) == _run_of(cell)),
            tested=tuple(tested[cell] for cell in cells if (*run,) == _run_of(cell)),
            tuning={setting_name(c.setting): found[c]["validation"][CHOSEN_BY] for c in tried[run]},
        )
        for run in runs
    ]
    budget = {
        "grid": [dict(setting) for setting in grid],
        "seeds": given.seeds,
        "epochs at most": given.epochs,
        "patience": given.patience,
        "chosen by": f"validation {CHOSEN_BY} of seed {given.seeds[0]}",
        "jobs": given.jobs,
        "threads": given.threads,
        "seconds of training": sum(record["seconds"] for record in found.values()),
        "command": shlex.join([*RUN, *(arguments or sys.argv[1:])]),
    }
    counted = {folder.name: counts_of(study, folder) for folder in given.data}
    print(write_report(rows, budget, given.output, counted, PUBLISHED.get(given.preset, ())))


def choose(cells: Sequence[Cell], found: dict[Cell, dict[str, Any]]) -> Setting:
    """The setting with the best validation metric; the earlier one if several are equal."""
    return max(cells, key=lambda cell: found[cell]["validation"][CHOSEN_BY]).setting


def command(given: argparse.Namespace, cell: Cell) -> str:
    """The command that repeats a single cell."""
    own = {
        "data": [cell.data],
        "backbones": [cell.backbone],
        "methods": [cell.method],
        "grid": grid_of(cell.setting),
        "seeds": [cell.seed],
        "output": [given.output.with_name(f"{given.output.name}-repeated")],
    }
    words = [*RUN, given.preset]
    for name, value in vars(given).items():
        values = own.get(name, value)
        if values is None or values is False or values == "" or name in ("jobs", "preset"):
            continue
        words.append(f"--{name.replace('_', '-')}")
        if values is not True:
            words += [str(word) for word in (values if isinstance(values, list) else [values])]
    return shlex.join(words)


def _run_of(cell: Cell) -> Run:
    return cell.data, cell.backbone, cell.method


class _Pool:
    """Runs cells in several processes or in this one."""

    def __init__(self, jobs: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(jobs, mp_context=context) if jobs > 1 else None

    def __enter__(self) -> "_Pool":
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def each(
        self,
        work: Callable[[Study, Cell], dict[str, Any]],
        study: Study,
        cells: Sequence[Cell],
    ) -> dict[Cell, dict[str, Any]]:
        """Process all cells and print the result of each."""
        waiting: dict[Cell, Future[dict[str, Any]]] = {}
        if self._pool is not None:
            waiting = {cell: self._pool.submit(work, study, cell) for cell in cells}
        found = {}
        for number, cell in enumerate(cells, 1):
            found[cell] = waiting[cell].result() if waiting else work(study, cell)
            print(f"[{number}/{len(cells)}] {_said(cell, found[cell])}", flush=True)
        return found


def _said(cell: Cell, record: dict[str, Any]) -> str:
    name = f"{cell.data.name} {cell.backbone} {Method(cell.method).name} seed {cell.seed}"
    if "metrics" in record:
        metrics = record["metrics"]["all"]
        return f"{name}: test hit_rate@10 {metrics['hit_rate@10']:.4f}, ndcg@10 " + (
            f"{metrics['ndcg@10']:.4f}"
        )
    return (
        f"{name} {setting_name(cell.setting)}: validation {CHOSEN_BY} "
        f"{record['validation'][CHOSEN_BY]:.4f} in epoch {record['best_epoch']:.0f}, "
        f"{record['seconds']:.0f} s"
    )
