"""Runs Python programs in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent


def run_python(*arguments, **variables):
    """Run Python with the package and the modules beside this file on its path; return its output.

    `variables` are further environment variables. A program that fails fails the test.
    """
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}", **variables},
        check=False,
    )
    assert not done.returncode, done.stderr[-3000:]
    return done.stdout
