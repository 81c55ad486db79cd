"""The speed benchmarks run, on tiny sizes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.mark.slow
def test_speed(tmp_path):
    said = run(
        str(ROOT / "benchmarks" / "speed.py"), "--config", "tiny", "--pairs", "1", "--users", "40",
        "--items", "60", "--plain-users", "10", "--catalogue", "100",
        "--parts", "steps", "memory", "evaluation", "recommend",
        "--output", str(tmp_path / "speed"),
    )  # fmt: skip
    found = json.loads((tmp_path / "speed.json").read_text())
    assert found["tiny"]["steps"]["float32"]["ratio"] > 0
    assert set(found["tiny"]["memory MB"]) == {
        "plain", "float32", "bfloat16", "float32 in chunks"
    }  # fmt: skip
    assert found["evaluation"]["ratio"] > 0
    assert "| float32 in chunks" in said
    assert (tmp_path / "speed.png").stat().st_size > 1000


@pytest.mark.slow
def test_a_sharded_table_takes_less_memory_and_trains_alike():
    said = run(str(ROOT / "benchmarks" / "sharded_table.py"), "--items", "500000")
    rows = [line.split("|")[1:-1] for line in said.splitlines() if "DDP" in line or "FSDP" in line]
    replicated, sparse, sharded = ([float(value) for value in row[1:]] for row in rows)
    assert sharded[0] < replicated[0]
    assert sharded[2] == pytest.approx(replicated[2], rel=1e-4)
    assert sparse[2] == pytest.approx(replicated[2], rel=1e-2)  # the first step differs in nothing
