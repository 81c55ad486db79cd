"""Adapters crafted to be expensive are rejected or loaded at a cost proportional to their size."""

import json
from pathlib import Path

import pytest
from directed_adapters import NAMES
from programs import TESTS, run_python

SOUND = {"a_large_catalogue", "long_sequences"}
SECONDS = 4  # CPU time; 2 on an idle machine
CONSTANT = 64 << 20  # bytes beyond three times the size


def run(*arguments):
    return run_python(TESTS / "directed_adapters.py", *arguments, OMP_NUM_THREADS="1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("directed")
    run(folder, "save")
    return folder


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs /proc")
@pytest.mark.parametrize("name", NAMES)
def test_cost_follows_from_size(folder, name):
    found = json.loads(run(folder, "load", name).splitlines()[-1])
    assert bool(found["said"]) != (name in SOUND)
    assert found["seconds"] < SECONDS
    assert found["peak"] < 3 * found["size"] + CONSTANT
