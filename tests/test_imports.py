"""`import odmt_sdk` is fast, has no side effects, and does not need a working torchvision.

Every check runs in a new interpreter, because other tests have already imported everything here.
"""

import importlib.resources
import os
import subprocess
import sys
from pathlib import Path

import pytest

import odmt_sdk

ROOT = Path(__file__).parent.parent
HEAVY = ["transformers", "torchvision", "PIL", "accelerate", "pandas", "matplotlib"]
# transformers cannot import its own Trainer beside a broken torchvision.
NEEDS_TRANSFORMERS_TRAINER = {"FitResult", "ODMTTrainer", "fit", "TuneResult", "tune"}

# Global state that an import could change; `state()` is compared before and after.
STATE = """
import logging, os, warnings
def state():
    return {
        "environment": dict(os.environ),
        "warning filters": list(warnings.filters),
        "logging": (list(logging.root.handlers), logging.root.level, logging.root.disabled),
    }
def check_unchanged(before):
    after = state()
    changed = [name for name in before if before[name] != after[name]]
    assert not changed, f"changed by the import: {changed}"
"""


@pytest.fixture
def run_python(tmp_path, start_environment):
    def run(source: str, *first_on_path: Path) -> str:
        search_path = os.pathsep.join(map(str, [*first_on_path, ROOT]))
        done = subprocess.run(
            [sys.executable, "-c", source],
            cwd=tmp_path,
            env={**start_environment, "PYTHONPATH": search_path},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    return run


def test_import_brings_in_nothing_heavy(run_python):
    output = run_python(f"import odmt_sdk, sys; print([m for m in {HEAVY} if m in sys.modules])")
    assert output.strip() == "[]"


def test_import_says_nothing(run_python):
    assert run_python("import odmt_sdk") == ""


def test_import_changes_nothing(run_python):
    run_python(f"{STATE}\nimport torch\nbefore = state()\nimport odmt_sdk\ncheck_unchanged(before)")


def test_using_every_name_changes_nothing(run_python):
    # Import other libraries first, to ignore their side effects.
    run_python(
        f"{STATE}\n"
        "import torch, torchvision, accelerate, matplotlib.pyplot\n"
        "from transformers import AutoImageProcessor, AutoModel, AutoTokenizer, Trainer\n"
        "before = state()\n"
        "import odmt_sdk\n"
        "for name in odmt_sdk.__all__:\n"
        "    getattr(odmt_sdk, name)\n"
        "check_unchanged(before)"
    )


def test_every_public_name_resolves():
    assert len(odmt_sdk.__all__) == len(set(odmt_sdk.__all__)) > 5
    assert set(odmt_sdk.__all__) <= set(dir(odmt_sdk))
    for name in odmt_sdk.__all__:
        assert getattr(odmt_sdk, name) is not None
    assert odmt_sdk.__version__


def test_a_name_that_does_not_exist_is_named():
    with pytest.raises(AttributeError, match="ODMTWraper"):
        odmt_sdk.ODMTWraper  # noqa: B018


def test_every_name_works_without_torchvision(run_python):
    run_python("import sys; sys.modules['torchvision'] = None; from odmt_sdk import *")


def test_names_work_with_a_broken_torchvision(run_python, tmp_path):
    broken = tmp_path / "broken"
    (broken / "torchvision").mkdir(parents=True)
    (broken / "torchvision" / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    with pytest.raises(AssertionError, match="operator torchvision::nms does not exist"):
        run_python("import torchvision", broken)
    run_python(
        "import odmt_sdk\n"
        f"for name in set(odmt_sdk.__all__) - {NEEDS_TRANSFORMERS_TRAINER}:\n"
        "    getattr(odmt_sdk, name)",
        broken,
    )


def test_type_checkers_are_told_that_the_package_is_typed():
    assert (importlib.resources.files("odmt_sdk") / "py.typed").is_file()
