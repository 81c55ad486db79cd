"""The code in the README and the docs runs."""

import re
import runpy
import warnings
from pathlib import Path

import pytest

from odmt_sdk.backbones import adapt
from odmt_sdk.backbones.check import report as check

ROOT = Path(__file__).parents[1]


def code_blocks(path: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", path.read_text(), flags=re.DOTALL | re.MULTILINE)


@pytest.fixture(autouse=True)
def _no_warning_about_a_backbone(monkeypatch):
    """Examples must pass all backbone checks, and their bridges are unregistered afterwards."""
    adapt.find_bridge(print)  # loads those of the package
    monkeypatch.setattr(adapt.BRIDGES, "_entries", dict(adapt.BRIDGES._entries))
    with warnings.catch_warnings():
        questions = "|".join(check.PROBES)
        warnings.filterwarnings("error", message=rf"\w+: ({questions}): ")
        yield


def test_the_readmes_training_loop_runs(capsys):
    (loop,) = (block for block in code_blocks(ROOT / "README.md") if "class MyModel" in block)
    exec(loop, {"__name__": "readme"})
    assert capsys.readouterr().out.startswith("Recommendations(item_ids=[[")


def test_the_example_of_an_own_loop_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(ROOT / "examples" / "own_training_loop.py"), run_name="__main__")
    assert "film-10" in capsys.readouterr().out  # the film that follows film-9


@pytest.mark.parametrize("number", range(len(code_blocks(ROOT / "docs" / "backbones.md"))))
def test_the_page_on_backbones_runs(number):
    exec(code_blocks(ROOT / "docs" / "backbones.md")[number], {"__name__": f"backbones_{number}"})


def test_the_page_on_backbones_explains_every_question():
    page = (ROOT / "docs" / "backbones.md").read_text()
    explained = re.findall(r"^\| ([a-z0-9 ]+) \| (?:error|warning|never)", page, re.MULTILINE)
    assert explained == [*check.FIRST, *check.PROBES]


@pytest.mark.slow
def test_the_example_on_figures_draws_them(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["draw_figures.py", "--output", str(tmp_path)])
    runpy.run_path(str(ROOT / "examples" / "draw_figures.py"), run_name="__main__")
    drawn = sorted(path.stem for path in tmp_path.glob("*.png") if path.stat().st_size > 20_000)
    assert drawn == ["attention", "contributions", "item_map", "learning_curves"]


@pytest.mark.slow
def test_the_example_on_backbones_learns(capsys):
    runpy.run_path(str(ROOT / "examples" / "bring_your_backbone.py"), run_name="__main__")
    lines = [line for line in capsys.readouterr().out.splitlines() if re.search(r"\d\.\d{3}", line)]
    assert len(lines) == 5
    for line in lines:
        before, after = map(float, re.findall(r"\d\.\d{3}", line))
        assert after > 1.5 * before, line


@pytest.mark.parametrize(
    "path", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=str
)
def test_links_lead_somewhere(path):
    prose = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", prose):
        assert (path.parent / target).exists(), target


def test_the_diagrams_are_current_and_name_files_and_api_entries_that_exist():
    drawn = runpy.run_path(str(ROOT / "docs" / "diagrams.py"))["DIAGRAMS"]
    api = (ROOT / "docs" / "api.md").read_text()
    for name, draw in drawn.items():
        picture = (ROOT / "docs" / "images" / name).read_text()
        assert picture == draw(), "run python docs/diagrams.py"
        for file in re.findall(r"[a-z_/]+\.py|(?<=>)[a-z_]+/(?=<)", picture):
            assert (ROOT / "odmt_sdk" / file).exists(), file
        for entry in re.findall(r"href='\.\./api/#([^']+)'", picture):
            assert f"::: {entry}\n" in api, entry
    assert drawn["model.svg"]().count("<a href") == 12


def test_the_forward_pass_names_files_that_exist():
    page = (ROOT / "docs" / "method.md").read_text()
    (forward_pass,) = re.findall(r"^```text\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    files = re.findall(r"[a-z_/]+\.py", forward_pass)
    assert len(files) >= 8
    assert [file for file in files if not (ROOT / "odmt_sdk" / file).exists()] == []


def test_every_public_name_is_in_the_api_page():
    import odmt_sdk

    page = (ROOT / "docs" / "api.md").read_text()
    assert [name for name in odmt_sdk.__all__ if f"::: odmt_sdk.{name}\n" not in page] == []
