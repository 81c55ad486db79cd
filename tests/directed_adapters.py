"""Small adapters crafted to need much time or memory when they are loaded.

usage: directed_adapters.py FOLDER save | load NAME

`load` loads one of them after another adapter, and prints the additional time and memory.
"""

import contextlib
import json
import os
import resource
import shutil
import sys
import time
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from toys import MyModel, toy_model

from odmt_sdk import AdapterError, GRU4Rec, ItemFeatures, ODMTConfig, ODMTWrapper, SASRec

OWN = {"own_empty_tensors", "own_shards", "own_projection"}  # loaded with a user's backbone
NAMES = {}


def directed(make):
    """Register a function that manipulates a SASRec adapter in a folder."""
    NAMES[make.__name__] = make
    return make


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


def change_config(folder, **changes):
    """Set config values by path, with `__` as the separator."""
    config = config_of(folder)
    for path, value in changes.items():
        *way, last = path.split("__")
        inner = config
        for key in way:
            inner = inner[key]
        inner[last] = value
    (folder / "config.json").write_text(json.dumps(config))


def write_tensors(file, header, body=b"", save_id=None):
    if save_id is not None:
        header = {"__metadata__": {"save_id": save_id}, **header}
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + body)


def empty(count, start=0):
    return {
        f"a.{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
        for i in range(start, start + count)
    }


def write_empty_shards(folder, tensors):
    """Replace the weights by eight files of so many empty tensors each."""
    save_id = config_of(folder)["save_id"]
    names = [f"model-{i:05d}-of-00008.safetensors" for i in range(1, 9)]
    for number, name in enumerate(names):
        write_tensors(folder / name, empty(tensors, tensors * number), save_id=save_id)
    change_config(folder, files__model=names)


def with_more_tensors(folder, more):
    file = folder / "model.safetensors"
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    save_file({**load_file(file), **more}, file, metadata=metadata)


@directed
def layers_backed_by_empty_tensors(folder):
    with_more_tensors(folder, {f"x.{i}": torch.zeros(0) for i in range(4000)})
    change_config(folder, model__num_layers=4000)


@directed
def layers_backed_by_shared_tensors(folder):
    kept = next(iter(load_file(folder / "model.safetensors")))
    change_config(
        folder, model__num_layers=9000, shared_weights={f"x{i}": kept for i in range(9000)}
    )


@directed
def as_many_layers_as_allowed(folder):
    with_more_tensors(folder, {f"x.{i}": torch.zeros(0) for i in range(2900)})
    change_config(folder, model__num_layers=64, backbone__arguments__num_layers=64)
    change_config(folder, modalities={f"m{i}": 3 for i in range(4)})


@directed
def layers_of_every_modality(folder):
    with_more_tensors(folder, {f"x.{i}": torch.zeros(0) for i in range(2900)})
    change_config(folder, model__num_layers=8, model__fusion="late_deep")
    change_config(folder, modalities={f"m{i}": 3 for i in range(32)})


@directed
def layers_of_the_backbone(folder):
    with_more_tensors(folder, {f"x.{i}": torch.zeros(0) for i in range(20_000)})
    change_config(folder, backbone__arguments__num_layers=2000)


@directed
def many_modalities(folder):
    with_more_tensors(folder, {f"x.{i}": torch.zeros(0) for i in range(9000)})
    change_config(folder, modalities={f"m{i}": 3 for i in range(9000)})


@directed
def one_tensor_for_all_layers(folder):
    """Store one vector and use it for all weights of its size."""
    shutil.rmtree(folder)
    config = ODMTConfig(num_layers=64, num_heads=1)
    features = ItemFeatures.from_tensors(text=torch.randn(3, 1, 4))
    model = ODMTWrapper(SASRec(256, num_heads=1, num_layers=24), features, config)
    weights = dict(model.named_parameters())
    for owner in model.modules():
        for name, value in list(owner.named_parameters(recurse=False)):
            first = next(w for w in weights.values() if w.shape == value.shape)
            setattr(owner, name, first)
    model.save_pretrained(folder, item_embeddings=False)


@directed
def empty_lists_in_a_header(folder):
    text = b'{"a": [' + b"[]," * 5_000_000 + b"[]]}"
    write_tensors(folder / "model.safetensors", text)


@directed
def empty_lists_in_a_small_header(folder):
    write_tensors(folder / "model.safetensors", b'{"a": [' + b"[]," * 2_500_000 + b"[]]}")


@directed
def empty_objects_in_config(folder):
    text = (folder / "config.json").read_text().rstrip().removesuffix("}")
    (folder / "config.json").write_text(text + ', "x": [' + "{}," * 330_000 + "{}]}")


@directed
def many_tensors_in_shards(folder):
    write_empty_shards(folder, 80_000)


@directed
def own_shards(folder):
    write_empty_shards(folder, 3_700)


@directed
def own_empty_tensors(folder):
    write_tensors(folder / "model.safetensors", empty(29_000), save_id=config_of(folder)["save_id"])


@directed
def own_projection(folder):
    change_config(folder, model__hidden_size=1 << 27, model__project_backbone=True)


@directed
def hidden_size(folder):
    change_config(folder, backbone__arguments__hidden_size=1 << 30, model__hidden_size=1 << 30)


@directed
def projection_of_a_built_in_backbone(folder):
    change_config(folder, model__hidden_size=1 << 30, model__project_backbone=True)


@directed
def overflowing_sizes(folder):
    change_config(folder, modalities={"text": (1 << 31) - 1, "image": 5})
    change_config(folder, backbone__arguments__max_seq_length=1 << 62)


@directed
def long_sequences(folder):
    shutil.rmtree(folder)
    toy_model(GRU4Rec(8)).save_pretrained(folder)
    change_config(folder, model__max_seq_length=(1 << 31) - 1)


@directed
def a_file_of_holes(folder):
    header = {"a": {"dtype": "F32", "shape": [1 << 36], "data_offsets": [0, 1 << 38]}}
    write_tensors(folder / "model.safetensors", header, save_id=config_of(folder)["save_id"])
    file = folder / "model.safetensors"
    os.truncate(file, file.stat().st_size + (1 << 38))


@directed
def deep_item_ids(folder):
    large_catalogue(folder, '{"save_id": "0", "item_ids": [' + "[" * 3_000_000)


@directed
def empty_lists_as_item_ids(folder):
    large_catalogue(folder, '{"save_id": "0", "item_ids": [' + "[]," * 2_000_000 + "[]]}")


@directed
def one_id_many_times(folder):
    large_catalogue(folder, '{"save_id": "0", "item_ids": [' + '"aa",' * 1_999_999 + '"aa"]}')


@directed
def ids_of_one_hash(folder):
    """Use integers with the same hash in Python dictionaries."""
    numbers = ",".join(str((2**61 - 1) * i + 1) for i in range(500_000))
    large_catalogue(folder, f'{{"save_id": "0", "item_ids": [{numbers}]}}', 500_000)


@directed
def a_few_ids_of_one_hash(folder):
    numbers = ",".join(str((2**61 - 1) * i + 1) for i in range(11_000))
    large_catalogue(folder, f'{{"save_id": "0", "item_ids": [{numbers}]}}', 11_000)


def large_catalogue(folder, text, count=2_000_000):
    with_more_tensors(folder, {"item_log_probability": torch.zeros(count + 1)})
    (folder / "items.json").write_text(text)


@directed
def a_large_catalogue(folder):
    """Save a valid adapter, which must load."""
    shutil.rmtree(folder)
    count = 2_500_000
    ids = [f"item-{i:09d}" for i in range(count)]
    config = ODMTConfig(fusion="id")
    model = ODMTWrapper(GRU4Rec(1), vocabulary=ids, config=config)
    model.save_pretrained(folder, item_embeddings=False)


def save(folder):
    for name, make in NAMES.items():
        toy_model(
            MyModel() if name in OWN else SASRec(8, num_layers=1, max_seq_length=6), num_layers=1
        ).save_pretrained(folder / name)
        make(folder / name)
    toy_model(SASRec(8, num_layers=1, max_seq_length=6)).save_pretrained(folder / "first")


def memory(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(key)).split()[1])


def load(folder, name):
    ODMTWrapper.from_pretrained(folder / "first")  # includes one-time costs of the first load
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    before, start = memory("VmRSS"), time.process_time()
    said, model = "", None
    try:
        model = ODMTWrapper.from_pretrained(folder / name, MyModel() if name in OWN else None)
    except AdapterError as error:
        said = str(error)
    took = time.process_time() - start
    peak = memory("VmHWM") - before
    if model is not None:
        model.recommend([[model.vocabulary.ids([1])[0]]], k=1)
    return {
        "size": sum(file.stat().st_blocks * 512 for file in (folder / name).iterdir()),
        "seconds": round(took, 2),
        "peak": peak,
        "said": said,
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_AS, (24 << 30, 24 << 30))  # in case a check is missing
    if sys.argv[2] == "save":
        save(Path(sys.argv[1]))
    else:
        print(json.dumps(load(Path(sys.argv[1]), sys.argv[3])))
