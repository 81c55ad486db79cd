"""The benchmarks start as the docs say, and those of speed run on tiny sizes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]


def run(*command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


SCRIPTS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "benchmarks").rglob("*.py")
    if "ArgumentParser" in path.read_text() and "__main__" in path.read_text()
)


def test_commands_of_the_docs_name_benchmarks_that_are_there():
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    sources = (ROOT / "benchmarks").rglob("*.py")
    text = "\n".join(path.read_text() for path in (*pages, *sources))
    named = set(re.findall(r"benchmarks/[\w/]+\.py", text))
    assert len(named) > 8
    assert {name for name in named if not (ROOT / name).is_file()} == set()


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_benchmark_starts(script, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert "usage: " in run(script, "--help")


@pytest.mark.slow
def test_speed(tmp_path):
    said = run(
        str(ROOT / "benchmarks" / "speed" / "speed.py"), "--config", "tiny", "--pairs", "1",
        "--users", "40", "--items", "60", "--plain-users", "10", "--catalogue", "100",
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
    said = run(str(ROOT / "benchmarks" / "speed" / "sharded_table.py"), "--items", "500000")
    rows = [line.split("|")[1:-1] for line in said.splitlines() if "DDP" in line or "FSDP" in line]
    replicated, sparse, sharded = ([float(value) for value in row[1:]] for row in rows)
    assert sharded[0] < replicated[0]
    assert sharded[2] == pytest.approx(replicated[2], rel=1e-4)
    assert sparse[2] == pytest.approx(replicated[2], rel=1e-2)  # the first step is equal


@pytest.mark.slow
def test_the_service_answers_every_request():
    pytest.importorskip("uvicorn", reason="needs odmt-sdk[serve]")
    said = run("-m", "benchmarks.production.service", "--rate", "20", "--seconds", "10")
    assert "0 errors of 200" in said


@pytest.mark.slow
def test_libraries_in_the_same_time(tmp_path):
    drawn = np.random.default_rng(0)
    events = [
        {"user_id": user, "item_id": int(first + step) % 30, "timestamp": step}
        for user, first in enumerate(drawn.integers(0, 30, 60))
        for step in range(12)
    ]
    pd.DataFrame(events).to_parquet(tmp_path / "interactions.parquet")
    script, output = "benchmarks/libraries/same_time.py", str(tmp_path / "curves")
    run(
        str(ROOT / script), "train", "odmt-sdk",
        "--data", str(tmp_path), "--seconds", "1", "--output", output,
    )  # fmt: skip
    found = json.loads((tmp_path / "curves" / "odmt-sdk.json").read_text())
    seconds = [point["seconds"] for point in found["curve"]]
    assert seconds[-1] >= 1
    assert all(used < 1 for used in seconds[:-1])  # it stops after the epoch that is over the limit
    assert found["curve"][-1]["ndcg@10"] > found["curve"][0]["ndcg@10"]
    assert "| odmt-sdk " in run(str(ROOT / script), "draw", "--output", output)
    assert (tmp_path / "curves" / "same-time.png").stat().st_size > 10_000
