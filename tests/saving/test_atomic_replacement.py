"""The content of the folder after saving was killed, failed, or ran twice at the same time."""

import json
import os
import threading
from pathlib import Path

import pytest
import torch
from programs import run_python
from toys import MyModel, toy_model

from odmt_sdk import AdapterError, ODMTWrapper
from odmt_sdk.saving import atomic_replacement
from odmt_sdk.saving import folder as folder_module

HISTORIES = [["item-3", "item-1"], ["item-4"]]


@pytest.fixture
def saved(tmp_path):
    model = toy_model()
    model.save_pretrained(tmp_path / "adapter")
    return model, tmp_path / "adapter"


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def killed_saves(folder, kills, stride):
    script = Path(__file__).parent / "killed_saves.py"
    printed = run_python(script, folder, str(kills), str(stride), OMP_NUM_THREADS="1")
    return json.loads(printed.splitlines()[-1])


def check_killed_saves(found, stride):
    for kind, before in (("stepwise, first save", "none"), ("stepwise", "0")):
        states = found[kind]
        first_new = states.index("1")
        sides = first_new * stride, (len(states) - first_new) * stride
        assert min(sides) > 5  # kills on both sides of the exchange
        assert set(states[:first_new]) == {before}
        assert set(states[first_new:]) == {"1"}
    assert set(found["at random"]) <= {"0", "1"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_some_steps_one_adapter_is_there_complete(tmp_path):
    check_killed_saves(killed_saves(tmp_path, kills=5, stride=3), stride=3)


@pytest.mark.slow
def test_killed_at_very_many_moments(tmp_path):
    found = killed_saves(tmp_path, kills=300, stride=1)
    check_killed_saves(found, stride=1)
    assert set(found["at random"]) == {"0", "1"}


def test_a_full_disk_leaves_the_old_adapter_and_nothing_else(saved):
    """A limit on the file size makes writing fail in the middle of the weights."""
    _, path = saved
    before = contents(path)
    script = (
        "import resource, sys; from toys import toy_model; from odmt_sdk import AdapterError\n"
        "model = toy_model(num_layers=3)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))\n"
        "for target in sys.argv[1:]:\n"
        "    try: model.save_pretrained(target)\n"
        "    except AdapterError as error: print(error)"
    )
    messages = run_python("-c", script, path, path.parent / "new", OMP_NUM_THREADS="1").splitlines()
    assert len(messages) == 2
    for message in messages:
        assert message.startswith("cannot save the adapter to")
        assert "File too large" in message
        assert "unchanged: save to a writable folder with enough free space" in message
    assert contents(path) == before
    assert [entry.name for entry in path.parent.iterdir()] == ["adapter"]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
def test_a_folder_that_cannot_be_written_to():
    with pytest.raises(AdapterError, match="cannot save the adapter to '/proc/self'"):
        toy_model().save_pretrained("/proc/self")
    with pytest.raises(AdapterError, match="cannot save the adapter to '/proc/odmt'"):
        toy_model().save_pretrained("/proc/odmt")


@pytest.mark.parametrize("function", ["save_file", "write_item_ids", "without_shared"])
def test_a_failure_anywhere_leaves_what_was_there(saved, monkeypatch, function):
    model, path = saved
    before = contents(path)

    def fail(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr(folder_module, function, fail)
    for target in (path, path.parent / "new"):
        with pytest.raises(AdapterError, match="cannot save the adapter to .*No space left"):
            model.save_pretrained(target)
    assert contents(path) == before
    assert [entry.name for entry in path.parent.iterdir()] == ["adapter"]


def test_interrupted_at_the_exchange_keeps_a_complete_adapter(saved, monkeypatch):
    """Ctrl-C just after `config.json` was replaced must not delete the new files."""
    _, path = saved
    real = os.replace

    def interrupted(source, target):
        real(source, target)
        if Path(target).name == "config.json":
            raise KeyboardInterrupt

    new = toy_model(num_layers=1)
    monkeypatch.setattr(atomic_replacement.os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        new.save_pretrained(path)
    monkeypatch.undo()
    loaded = ODMTWrapper.from_pretrained(path, MyModel())
    assert loaded.recommend(HISTORIES) == new.eval().recommend(HISTORIES)


@pytest.mark.parametrize("copies", [True, False])
def test_without_hard_links_the_adapter_is_complete(saved, monkeypatch, copies):
    _, path = saved

    def unsupported(*_, **__):
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr(atomic_replacement.os, "link", unsupported)
    if not copies:
        monkeypatch.setattr(atomic_replacement.shutil, "copyfile", unsupported)
    new = toy_model(num_layers=1)
    for _ in range(2):
        new.save_pretrained(path)
    assert len(list(path.iterdir())) == 5
    assert (path / "model.safetensors").exists() == copies  # otherwise under another name
    loaded = ODMTWrapper.from_pretrained(path, MyModel())
    assert loaded.recommend(HISTORIES) == new.eval().recommend(HISTORIES)


def test_files_of_others_stay(saved):
    model, path = saved
    (path / "notes.txt").write_text("mine")
    (path / "checkpoint-1").mkdir()
    (path / "checkpoint-1" / "model.safetensors").write_text("mine")
    (path / "model-final.safetensors").write_text("mine")
    (path / "items-old.json").write_text("mine")
    mine = {p: p.read_text() for p in path.rglob("*") if p.is_file() and p.stat().st_size == 4}
    model.save_pretrained(path)
    assert len(mine) == 4
    assert {p: p.read_text() for p in mine} == mine


@pytest.mark.parametrize("name", ["model.safetensors", "items.json"])
def test_files_that_are_no_adapters_are_not_replaced(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(AdapterError, match=f"has {name} but no config.json"):
        toy_model().save_pretrained(tmp_path)
    assert contents(tmp_path) == {name: b"mine"}


def test_files_can_be_read_by_those_who_may_read_new_files(saved):
    _, path = saved
    (path / "probe").touch()
    assert len({file.stat().st_mode for file in path.iterdir()}) == 1


def test_two_saves_at_once_take_turns(tmp_path):
    models = [toy_model(num_layers=layers) for layers in (1, 2)]
    failures = []

    def save(model):
        try:
            for _ in range(5):
                model.save_pretrained(tmp_path / "adapter")
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=save, args=(model,)) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    loaded = ODMTWrapper.from_pretrained(tmp_path / "adapter", MyModel())
    assert loaded.recommend(HISTORIES) in [m.eval().recommend(HISTORIES) for m in models]


def test_a_reader_meanwhile_gets_one_adapter_or_the_other(saved):
    model, path = saved
    other = toy_model(num_layers=1)
    answers = [m.eval().recommend(HISTORIES) for m in (model, other)]
    stop = threading.Event()

    def save():
        while not stop.is_set():
            other.save_pretrained(path)
            model.save_pretrained(path)

    writer = threading.Thread(target=save)
    writer.start()
    try:
        for _ in range(15):
            loaded = ODMTWrapper.from_pretrained(path, MyModel())
            assert loaded.recommend(HISTORIES) in answers
    finally:
        stop.set()
        writer.join()


def test_large_weights_are_split(tmp_path):
    model = toy_model()
    model.save_pretrained(tmp_path / "a", max_shard_size="4KB")
    shards = sorted(p.name for p in (tmp_path / "a").glob("model-*"))
    assert len(shards) >= 3
    assert shards[0] == f"model-00001-of-{len(shards):05d}.safetensors"
    loaded = ODMTWrapper.from_pretrained(tmp_path / "a", MyModel())
    for name, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name])
    model.save_pretrained(tmp_path / "a")
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [
        "README.md",
        "config.json",
        "item_embeddings.safetensors",
        "items.json",
        "model.safetensors",
    ]
