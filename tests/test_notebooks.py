"""The notebooks run from the first cell to the last, and their links lead somewhere."""

import json
import re
import runpy
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, tmp_path, monkeypatch):
    pytest.importorskip("nbclient")
    monkeypatch.delenv("HF_HOME")  # the kernel starts as a user's would
    monkeypatch.setenv("PYTHONPATH", str(DOCS.parent))
    run = runpy.run_path(str(DOCS / "run_notebooks.py"))["run"]
    notebook = run(path, tmp_path)
    assert any(cell.get("outputs") for cell in notebook.cells)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_can_be_read_without_running_it(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    prose = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", prose):
        assert (path.parent / target).exists(), target
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    assert outputs, "run it with python docs/run_notebooks.py"
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert path.stat().st_size < 700_000


def test_every_notebook_is_in_the_navigation():
    navigation = (DOCS.parent / "mkdocs.yml").read_text()
    assert [path.name for path in NOTEBOOKS if f"notebooks/{path.name}" not in navigation] == []
    assert len(NOTEBOOKS) == 7
