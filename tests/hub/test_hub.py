"""Runs `hub_scenarios` in a process that uses a local server as the Hub."""

import os
import re
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]


def test_everything_that_users_do_with_the_hub(tmp_path):
    scenarios = Path(__file__).parent / "hub_scenarios.py"
    environment = {
        **os.environ,
        "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}",
        "HF_HOME": str(tmp_path / "home"),
        "OMP_NUM_THREADS": "1",
    }
    options = ["--noconftest", "-q", "-p", "no:cacheprovider", "--basetemp", tmp_path / "work"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, scenarios],
        capture_output=True,
        text=True,
        env=environment,
        cwd=TESTS.parent,
        check=False,
    )
    assert not done.returncode, done.stdout[-6000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed
    assert int(passed[1]) >= 25
