"""Saves two adapters alternately to the same folder and is killed while saving.

usage: killed_saves.py FOLDER KILLS STRIDE. Kills one save at every STRIDE-th change to the file
system, and KILLS saves at random moments. Prints which adapter the folder held after each kill.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from toys import MyModel, toy_features

from odmt_sdk import ODMTWrapper
from odmt_sdk.saving.layout import STAGE

HISTORIES = [["item-3", "item-1"], ["item-4"]]
STEPS = ("chmod", "fsync", "link", "mkdir", "replace", "rmdir", "unlink")


def make(seed):
    torch.manual_seed(seed)
    items = toy_features(item_ids=[f"item-{i}" for i in range(12)])
    model = ODMTWrapper(MyModel(), items)
    model.recommend(HISTORIES, k=3)  # encode the catalogue once, before saving
    return model


def state(path, answers):
    """Return which of the models is in the folder, complete."""
    if not (path / "config.json").exists():
        return "none"
    loaded = ODMTWrapper.from_pretrained(path, MyModel())
    return str(answers.index(loaded.recommend(HISTORIES, k=5)))


def in_child(work):
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(0)
    return child


def die_at(step, models, path):
    """Save the second model, and be killed at file system change number `step`."""
    left = step

    def dying(function):
        def call(*args, **kwargs):
            nonlocal left
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            return function(*args, **kwargs)

        return call

    for name in STEPS:
        setattr(os, name, dying(getattr(os, name)))
    models[1].save_pretrained(path)


def main(folder, kills, stride):
    torch.set_num_threads(1)
    models = [make(0), make(1)]
    answers = [model.recommend(HISTORIES, k=5) for model in models]
    assert answers[0] != answers[1]
    found = {"stepwise, first save": [], "stepwise": [], "at random": []}
    for kind in ("stepwise, first save", "stepwise"):
        for step in range(0, 1000, stride):
            path = folder / f"{kind[-10:]}-{step}"
            if kind == "stepwise":
                models[0].save_pretrained(path)
            child = in_child(lambda step=step, path=path: die_at(step, models, path))
            _, status = os.waitpid(child, 0)
            found[kind].append(state(path, answers))
            if not os.WIFSIGNALED(status):
                break
            models[0].save_pretrained(path)  # cleans up leftovers
            assert state(path, answers) == "0"
            assert not [e for e in path.iterdir() if STAGE.fullmatch(e.name) or "-" in e.name]
    path = folder / "random"
    start = time.monotonic()
    for model in models:
        model.save_pretrained(path)
    long = time.monotonic() - start

    def save_in_turn():
        while True:
            for model in models:
                model.save_pretrained(path)

    generator = random.Random(0)
    for _ in range(kills):
        child = in_child(save_in_turn)
        time.sleep(generator.uniform(0, 3 * long))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found["at random"].append(state(path, answers))
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
