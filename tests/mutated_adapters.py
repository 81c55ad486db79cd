"""Damages adapters at random and loads them; prints the outcome if run as a program.

usage: mutated_adapters.py COUNT [SEED]
"""

import collections
import json
import os
import random
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

import torch
from toys import MyModel, toy_model

from odmt_sdk import AdapterError, ODMTWrapper, SASRec

RAW = ("NaN", "-Infinity", "1e999", "9" * 5000, "[" * 3000 + "]" * 3000, '{"a":1,"a":2}', "\\ud800")
VALUES = (
    None,
    True,
    False,
    -1,
    0,
    1,
    2,
    7,
    2**31,
    2**63,
    -(10**30),
    0.5,
    1e308,
    "",
    "x" * 20_000,
    "../../../etc/passwd",
    "model-00001-of-99999.safetensors",
    "odmt_sdk.hub:evil",
    "os.system",
    [],
    {},
    [1] * 3000,
    [[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]],
    {"auto_map": {"AutoModel": "evil.Model"}},
)


def places(content, path=()):
    """Yield the path of every value in JSON content."""
    yield path
    inner = content.items() if isinstance(content, dict) else ()
    inner = enumerate(content) if isinstance(content, list) else inner
    for key, value in list(inner):
        yield from places(value, (*path, key))


def change_json(content, rng):
    *way, last = rng.choice([place for place in places(content) if place] or [("a",)])
    owner = content
    for key in way:
        owner = owner[key]
    kind = rng.randrange(5)
    if kind == 0 and not isinstance(owner, list):
        owner.pop(last, None)
    elif kind == 1 and isinstance(owner, dict):
        owner[rng.choice(["auto_map", "__class__", "x" * 100, "", "format_version"])] = "evil"
    elif kind == 2 and isinstance(owner, list):
        owner.append(rng.choice([*owner, *VALUES]))
    elif kind == 3 and isinstance(owner[last], int):
        owner[last] += rng.choice([-1, 1, 2**16, -(2**16), 2**40])
    else:
        owner[last] = rng.choice(VALUES)


def change_header(data, rng):
    """Change the header of a safetensors file, with a correct or a wrong length."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change_json(header, rng)
    text = json.dumps(header).encode()
    said = rng.choice([len(text)] * 4 + [0, 1, length, 2**63 - 1, 100_000_000])
    return said.to_bytes(8, "little") + text + data[8 + length :]


def change_bytes(data, rng):
    data = bytearray(data)
    kind = rng.randrange(5)
    place = rng.randrange(len(data) + 1)
    if kind == 0 and data:
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del data[place:]
    elif kind == 2:
        data[place:place] = rng.randbytes(rng.randint(1, 100))
    elif kind == 3:
        del data[place : place + rng.randint(1, 100)]
    else:
        other = rng.randrange(len(data) + 1)
        data[place:place] = data[other : other + rng.randint(1, 200)]
    return bytes(data)


def change_file(path, rng):
    """Replace a file with something else."""
    kind = rng.randrange(6)
    path.unlink()
    if kind == 1:
        path.mkdir()
    elif kind == 2:
        path.symlink_to(rng.choice(["/etc/passwd", "/dev/zero", "..", "config.json", "nowhere"]))
    elif kind == 3:
        os.mkfifo(path)
    elif kind == 4:
        path.write_bytes(b"")
    elif kind == 5:
        path.symlink_to(path.name)


def mutate(folder, rng):
    """Damage an adapter or a feature store in one to three places."""
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        there = sorted(p for p in folder.rglob("*") if p.name != "README.md")
        path = rng.choice([p for p in there if p.is_symlink() or not p.is_dir()] or there)
        if not path.is_file() or path.is_symlink():
            continue
        data = path.read_bytes()
        kind = rng.random()
        try:
            if kind < 0.05:
                change_file(path, rng)
            elif kind < 0.1 and path.suffix == ".json":
                text = json.dumps(json.loads(data))
                cut = text.rfind(": ", 0, rng.randrange(len(text))) + 2
                path.write_text(text[:cut] + rng.choice(RAW) + text[cut:], errors="replace")
            elif kind < 0.7 and path.suffix == ".json":
                content = json.loads(data)
                change_json(content, rng)
                path.write_text(json.dumps(content))
            elif kind < 0.7:
                path.write_bytes(change_header(data, rng))
            else:
                path.write_bytes(change_bytes(data, rng))
        except (ValueError, KeyError, TypeError, RecursionError):  # already damaged
            path.write_bytes(change_bytes(data, rng))


def recommend(model):
    """Recommend; accept errors for weights that are too large or missing item embeddings."""
    try:
        model.recommend([[model.vocabulary.item_ids[0]]], k=1, exclude_seen=False)
    except ValueError as error:
        said = str(error)
        if "a score is NaN or infinite" not in said and "pass item_features=" not in said:
            raise


def peak_memory():
    """Return the peak memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def use_damaged(count, seed, wholes, damaged, use):
    """Copy one of the folders `wholes` to `damaged`, damage the copy and use it, `count` times.

    `use(number, whole)` returns the word to count. What it raises propagates.
    """
    rng = random.Random(seed)
    outcomes, slowest = collections.Counter(), 0.0
    for number in range(count):
        whole = rng.choice(wholes)
        shutil.rmtree(damaged, ignore_errors=True)
        shutil.copytree(whole, damaged)
        mutate(damaged, rng)
        start = time.process_time()
        try:
            outcomes[use(number, whole)] += 1
        except BaseException:
            print(f"mutation {number} of seed {seed}", file=sys.stderr)
            raise
        slowest = max(slowest, time.process_time() - start)
    return {**outcomes, "slowest, s": round(slowest, 3), "peak memory, MB": peak_memory()}


def print_outcomes(use_mutated):
    """Call `use_mutated(count, seed, folder)` as the command line says, and print the outcomes."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        before = peak_memory()
        seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
        found = use_mutated(int(sys.argv[1]), seed, Path(folder))
        print(json.dumps({**found, "before, MB": before}))


def load_mutated(count, seed, work):
    """Load `count` damaged adapters.

    Each must give an `AdapterError` or a model that can recommend. Other exceptions propagate.
    """
    torch.manual_seed(0)
    damaged = work / "damaged"
    backbones = {"built-in": None, "own": MyModel()}
    for name, backbone in (("own", MyModel()), ("built-in", SASRec(8, num_layers=1))):
        toy_model(backbone, num_layers=1).save_pretrained(work / name, max_shard_size="6KB")

    def load(number, whole):
        try:
            model = ODMTWrapper.from_pretrained(damaged, backbones[whole.name])
        except AdapterError as error:
            assert str(error)  # noqa: PT017
            return "refused"
        recommend(model)
        return "loaded"

    return use_damaged(count, seed, [work / name for name in backbones], damaged, load)


if __name__ == "__main__":
    print_outcomes(load_mutated)
