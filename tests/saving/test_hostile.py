"""Malicious adapter folders."""

import json
import os
import pickle
import shutil
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from toys import MyModel, toy_model

from odmt_sdk import AdapterError, GRU4Rec, NextItNet, ODMTWrapper
from odmt_sdk.files import untrusted_files as folder_files


class Evil:
    """Leaves a trace if it is unpickled."""

    def __reduce__(self):
        return exec, ("import sys; sys.odmt_was_here = True",)


@pytest.fixture
def path(tmp_path):
    toy_model().save_pretrained(tmp_path / "a")
    return tmp_path / "a"


@pytest.fixture
def built_in(tmp_path):
    toy_model(GRU4Rec(8)).save_pretrained(tmp_path / "b")
    return tmp_path / "b"


def load(path, backbone="own"):
    return ODMTWrapper.from_pretrained(path, MyModel() if backbone == "own" else backbone)


def change_config(path, *where, to):
    config = json.loads((path / "config.json").read_text())
    inner = config
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = to
    (path / "config.json").write_text(json.dumps(config))


def change_tensors(file, **changed):
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    tensors = {**load_file(file), **changed}
    save_file({n: t for n, t in tensors.items() if t is not None}, file, metadata=metadata)


class TestPickles:
    NAMES = ("pytorch_model.bin", "model.bin", "model.pt", "items.pkl", "training_args.bin")

    def test_of_any_name_are_not_opened(self, path, monkeypatch):
        opened = []
        real = os.open
        monkeypatch.setattr(
            folder_files.os, "open", lambda p, *a: opened.append(str(p)) or real(p, *a)
        )
        for name in self.NAMES:
            (path / name).write_bytes(pickle.dumps(Evil()))
        load(path)
        assert {os.path.basename(name) for name in opened} == {
            "config.json",
            "items.json",
            "model.safetensors",
            "item_embeddings.safetensors",
        }
        assert not hasattr(sys, "odmt_was_here")

    @pytest.mark.parametrize("name", NAMES)
    def test_do_not_stand_in_for_weights(self, path, name):
        (path / "model.safetensors").unlink()
        (path / name).write_bytes(pickle.dumps(Evil()))
        with pytest.raises(AdapterError, match="is damaged: .*No such file"):
            load(path)
        change_config(path, "files", "model", to=[name])
        with pytest.raises(
            AdapterError, match=f"files.model has '{name}', which is not a valid name"
        ):
            load(path)

    @pytest.mark.parametrize("name", ["model.safetensors", "items.json", "config.json"])
    def test_under_the_names_of_others_are_not_unpickled(self, path, name):
        (path / name).write_bytes(pickle.dumps(Evil()))
        with pytest.raises(AdapterError, match="is damaged"):
            load(path)
        assert not hasattr(sys, "odmt_was_here")


class TestCode:
    @pytest.mark.parametrize("key", ["auto_map", "architectures", "custom_code", "__class__"])
    def test_is_never_imported(self, path, key):
        (path / "evil.py").write_text("import sys; sys.odmt_was_here = True")
        change_config(path, key, to={"AutoModel": "evil.Model"})
        with pytest.raises(AdapterError, match=f"has the unknown keys \\['{key}'\\]"):
            load(path)
        assert not hasattr(sys, "odmt_was_here")

    @pytest.mark.parametrize(
        "name", ["os.system", "Linear", "odmt_sdk.hub", "", "TransformerEncoder"]
    )
    def test_no_class_but_the_built_in_ones(self, built_in, name):
        change_config(built_in, "backbone", "built_in", to=name)
        with pytest.raises(
            AdapterError, match="is not a built-in backbone .*: pass backbone= yourself"
        ):
            load(built_in, None)


class TestWaysOutOfTheFolder:
    @pytest.mark.parametrize("name", ["model.safetensors", "items.json", "config.json"])
    def test_links(self, path, name, tmp_path):
        (path / name).rename(tmp_path / name)
        (path / name).symlink_to(tmp_path / name)
        with pytest.raises(
            AdapterError, match=f"{name} in .* is a link to .*, outside of that folder"
        ):
            load(path)

    def test_links_inside_of_it_are_fine(self, path):
        (path / "model.safetensors").rename(path / "weights")
        (path / "model.safetensors").symlink_to("weights")
        load(path)

    def test_links_of_the_hubs_cache_are_fine(self, path, tmp_path):
        snapshot = tmp_path / "models--me--a" / "snapshots" / "abc"
        shutil.copytree(path, snapshot)
        (tmp_path / "models--me--a" / "blobs").mkdir()
        for file in list(snapshot.iterdir()):
            file.rename(tmp_path / "models--me--a" / "blobs" / file.name)
            file.symlink_to(f"../../blobs/{file.name}")
        load(snapshot)
        blobs = tmp_path / "models--me--a" / "blobs"
        blobs.rename(tmp_path / "elsewhere")
        blobs.symlink_to(tmp_path / "elsewhere")  # a cache must not link outside itself
        with pytest.raises(AdapterError, match="outside of that folder"):
            load(snapshot)

    @pytest.mark.parametrize(
        "name", ["../model.safetensors", "/etc/passwd", "a/b", "..", "", 3, None]
    )
    def test_names(self, path, name):
        change_config(path, "files", "model", to=[name])
        with pytest.raises(AdapterError, match="which is not a valid name"):
            load(path)

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
    @pytest.mark.parametrize("name", ["model.safetensors", "items.json", "config.json"])
    def test_pipes_and_folders(self, path, name):
        (path / name).unlink()
        os.mkfifo(path / name)
        with pytest.raises(AdapterError, match=f"{name} in .* is not a regular file"):
            load(path)
        (path / name).unlink()
        (path / name).mkdir()
        with pytest.raises(AdapterError, match="is not a regular file"):
            load(path)


class TestBombs:
    @pytest.mark.parametrize("name", ["config.json", "items.json"])
    @pytest.mark.parametrize("content", ["[" * 100_000, '{"a":' * 100_000, "[" * 20 + "]" * 20])
    def test_deep_nesting(self, path, name, content):
        (path / name).write_text(content)
        with pytest.raises(AdapterError, match="is damaged: "):
            load(path)

    def test_a_large_config(self, path):
        (path / "config.json").write_text(" " * (2 << 20))
        with pytest.raises(
            AdapterError, match="config.json has 2097152 bytes, more than the limit of 1048576"
        ):
            load(path)

    def test_more_item_ids_than_items(self, path):
        (path / "items.json").write_text("[" + "1," * 40_000 + "1]")
        with pytest.raises(AdapterError, match="items.json has 80003 bytes, more than the"):
            load(path)

    @pytest.mark.parametrize("number", ["1e999", "NaN", "-Infinity", "9" * 5000])
    def test_numbers_that_are_none(self, path, number):
        text = (path / "config.json").read_text()
        (path / "config.json").write_text(text.replace('"dropout": 0.1', f'"dropout": {number}'))
        with pytest.raises(AdapterError, match="config.json is damaged"):
            load(path)

    @pytest.mark.parametrize(
        ("where", "value"),
        [
            (("model", "hidden_size"), 2**30),
            (("model", "num_layers"), 2**30),
            (("modalities", "text"), 2**30),
            (("backbone", "arguments", "hidden_size"), 2**30),
            (("backbone", "arguments", "num_layers"), 2**30),
            (("backbone", "arguments", "num_units"), 2**30),
            (("backbone", "arguments", "num_units"), 2**70),
            (("backbone", "arguments", "dropout"), "x"),
            (("backbone", "arguments", "evil"), 1),
            (("modalities",), {f"m{i}": 3 for i in range(5000)}),
        ],
        ids=lambda value: str(value)[:40],
    )
    def test_settings_that_would_take_much_memory_take_none(self, built_in, where, value):
        """The sizes in the settings are compared with the weights before anything is built."""
        change_config(built_in, *where, to=value)
        with pytest.raises(AdapterError):
            load(built_in, None)

    def test_settings_of_which_no_weight_tells(self, tmp_path):
        toy_model(NextItNet(8, dilations=(1, 2))).save_pretrained(tmp_path / "a")
        change_config(tmp_path / "a", "backbone", "arguments", "dilations", to=[1, 2**30])
        with pytest.raises(AdapterError, match="of NextItNet exceeds 4096"):
            load(tmp_path / "a", None)


class TestCounts:
    """Counts that cost time are checked before anything is built."""

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (
                {("model", "num_layers"): 65},
                "num_layers means 65 layers; a model can have at most 64",
            ),
            ({("modalities",): {f"m{i}": 3 for i in range(33)}}, "33 modalities, more than 32"),
            (
                {
                    ("modalities",): {f"m{i}": 3 for i in range(32)},
                    ("model", "num_layers"): 9,
                },
                "there are 9 layers of 32 modalities, more than 256 in all",
            ),
            (
                {("backbone", "arguments"): {"num_layers": 65}},
                "num_layers of the backbone means 65 layers",
            ),
            (
                {("backbone", "arguments"): {"dilations": [1] * 65}},
                "dilations of the backbone means 65 layers",
            ),
        ],
    )
    def test_of_layers_and_modalities(self, built_in, changes, message):
        for where, value in changes.items():
            change_config(built_in, *where, to=value)
        with pytest.raises(AdapterError, match=message):
            load(built_in, None)

    def test_of_tensors_of_all_files(self, path, monkeypatch):
        monkeypatch.setattr("odmt_sdk.saving.folder.MAX_TENSORS", 20)
        with pytest.raises(AdapterError, match="model.safetensors is damaged: .* more than"):
            load(path)

    def test_of_values_in_json(self, path):
        text = (path / "config.json").read_text().rstrip().removesuffix("}")
        (path / "config.json").write_text(text + ', "x": [' + "[]," * 60_000 + "[]]}")
        with pytest.raises(AdapterError, match="config.json is damaged: it has more than 50000 v"):
            load(path)

    def test_of_values_that_are_shared(self, built_in, monkeypatch):
        monkeypatch.setattr("odmt_sdk.saving.fitting.SHARED_BYTES", 0)
        tensors = load_file(built_in / "model.safetensors")
        kept = max(tensors, key=lambda name: tensors[name].numel())
        change_config(built_in, "shared_weights", to={f"x{i}": kept for i in range(99)})
        with pytest.raises(AdapterError, match="are shared by many names, and the model would"):
            load(built_in, None)

    def test_of_bytes_that_are_holes(self, path):
        file = path / "model.safetensors"
        header = b'{"a": {"dtype": "F32", "shape": [67108864], "data_offsets": [0, 268435456]}}'
        file.write_bytes(len(header).to_bytes(8, "little") + header)
        os.truncate(file, 8 + len(header) + 268435456)
        with pytest.raises(AdapterError, match="most of it is a hole"):
            load(path)


class TestLyingHeaders:
    def rewrite(self, file, change):
        data = file.read_bytes()
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        change(header)
        text = json.dumps(header).encode()
        file.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])

    @pytest.mark.parametrize(
        ("part", "value", "message"),
        [
            ("shape", [2**40, 2**40], "which is not its"),
            ("shape", [-1], "has a shape or place out of range"),
            ("shape", [True], "has a shape or place out of range"),
            ("shape", [1.0], "has a shape or place out of range"),
            ("shape", [1] * 17, "that is no short list of numbers"),
            ("shape", "8", "that is no short list of numbers"),
            ("dtype", "F128", "has the unknown type 'F128'"),
            ("dtype", ["F32"], "has the unknown type"),
            ("data_offsets", [0, 2**47], "which is not its"),
            ("data_offsets", [0], "has no beginning and end"),
            ("data_offsets", [64, 0], "which is not its"),
        ],
    )
    def test_one_tensor(self, path, part, value, message):
        def change(header):
            name = next(name for name in header if name != "__metadata__")
            header[name][part] = value

        self.rewrite(path / "model.safetensors", change)
        with pytest.raises(AdapterError, match=f"model.safetensors is damaged: .*{message}"):
            load(path)

    def test_tensors_that_overlap(self, path):
        def change(header):
            first, second = [
                n for n, e in header.items() if n != "__metadata__" and e["shape"] == [8]
            ][:2]
            header[second]["data_offsets"] = header[first]["data_offsets"]

        self.rewrite(path / "model.safetensors", change)
        with pytest.raises(AdapterError, match="the values of .* begin at"):
            load(path)

    @pytest.mark.parametrize("cut", [1, 100, 5000])
    def test_a_body_that_is_cut(self, path, cut):
        file = path / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-cut])
        with pytest.raises(AdapterError, match="its header describes .* bytes, it has"):
            load(path)

    @pytest.mark.parametrize("length", [2**63, 2**64 - 1, 10**9, 0])
    def test_a_header_of_another_length(self, path, length):
        file = path / "model.safetensors"
        file.write_bytes(length.to_bytes(8, "little") + file.read_bytes()[8:])
        with pytest.raises(AdapterError, match="model.safetensors is damaged"):
            load(path)

    def test_more_bytes_than_it_says(self, path):
        with (path / "model.safetensors").open("ab") as file:
            file.write(b"evil")
        with pytest.raises(AdapterError, match="its header describes"):
            load(path)

    def test_bytes_that_are_neither_true_nor_false(self, path):
        file = path / "model.safetensors"
        data = bytearray(file.read_bytes())
        length = int.from_bytes(data[:8], "little")
        start = json.loads(data[8 : 8 + length])["item_encoder.unseen"]["data_offsets"][0]
        data[8 + length + start] = 7
        file.write_bytes(data)
        with pytest.raises(AdapterError, match="'item_encoder.unseen' is not of true or false"):
            load(path)


class TestItemIds:
    @pytest.mark.parametrize(
        ("item_ids", "message"),
        [
            (["a"] * 12, "item id 'a' stands more than once"),
            (list("abc"), "it has 3 item ids, but the weights are for 12 items"),
            ([*"abcdefghijk", 1.5], "must be a list of strings and integers"),
            ([*"abcdefghijk", True], "must be a list of strings and integers"),
            ([*"abcdefghijk", []], "must be a list of strings and integers"),
            ("abcdefghijkl", "must be a list of strings and integers"),
        ],
    )
    def test_that_are_none(self, path, item_ids, message):
        content = json.loads((path / "items.json").read_text())
        (path / "items.json").write_text(json.dumps({**content, "item_ids": item_ids}))
        with pytest.raises(AdapterError, match=f"items.json is damaged: .*{message}"):
            load(path)


class TestWeights:
    def test_shared_with_themselves_or_nothing(self, path):
        for shared in (
            {"a": "a"},
            {"a": "nothing"},
            {"item_log_probability": "item_encoder.unseen"},
        ):
            change_config(path, "shared_weights", to=shared)
            with pytest.raises(AdapterError, match="config.json is damaged: .* cannot be"):
                load(path)

    def test_of_integers_for_numbers(self, path):
        table = load_file(path / "model.safetensors")["item_encoder.id_embedding.weight"]
        change_tensors(
            path / "model.safetensors", **{"item_encoder.id_embedding.weight": table.long()}
        )
        with pytest.raises(
            AdapterError, match="id_embedding.weight has dtype int64 in the adapter, b"
        ):
            load(path)

    @pytest.mark.parametrize(
        ("name", "dtype", "message"),
        [
            ("item_encoder.id_embedding.weight", torch.float8_e4m3fn, "torch cannot compute"),
            ("item_encoder.id_embedding.weight", torch.float64, "in the model both have float32"),
            ("backbones.by_source.id.mix.weight", torch.float16, "in the model both have fl"),
            ("item_encoder.unseen", torch.uint8, "has dtype uint8 in the adapter, but bool in t"),
        ],
    )
    def test_of_types_that_do_not_go_together(self, path, name, dtype, message):
        file = path / "model.safetensors"
        change_tensors(file, **{name: load_file(file)[name].to(dtype)})
        with pytest.raises(AdapterError, match=message):
            load(path)

    def test_of_mixed_types_are_brought_to_one(self, path):
        file, name = path / "model.safetensors", "item_encoder.id_embedding.weight"
        change_tensors(file, **{name: load_file(file)[name].double()})
        change_tensors(path / "item_embeddings.safetensors", text=torch.zeros(13, 8).double())
        model = ODMTWrapper.from_pretrained(path, MyModel(), dtype=torch.float32)
        assert model.recommend([["item-1"]], k=1)
        assert {p.dtype for p in model.parameters()} == {torch.float32}

    @pytest.mark.parametrize("shape", [(13, 7), (12, 8), (13,)])
    def test_item_embeddings_of_another_shape(self, path, shape):
        change_tensors(path / "item_embeddings.safetensors", text=torch.zeros(shape))
        with pytest.raises(AdapterError, match=r"has no item embeddings \(13, 8\) of 'text'"):
            load(path)

    def test_item_embeddings_of_another_save(self, path, tmp_path):
        toy_model().save_pretrained(tmp_path / "other")
        os.replace(tmp_path / "other" / "items.json", path / "items.json")
        with pytest.raises(AdapterError, match="its files come from different saves"):
            load(path)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("hidden_size", 8.0),
        ("hidden_size", "8"),
        ("num_layers", True),
        ("num_layers", 0),
        ("num_units", -8),
        ("num_units", []),
        ("dropout", "0"),
        ("dropout", None),
    ],
)
def test_arguments_of_built_in_backbones_of_other_types(built_in, argument, value):
    change_config(built_in, "backbone", "arguments", argument, to=value)
    with pytest.raises(AdapterError, match=f"{argument}=.* of GRU4Rec is not a valid "):
        load(built_in, None)
