"""What the README and the docs show is what works."""

import re
import runpy
import warnings
from pathlib import Path

import pytest

from odmt_sdk.backbones import check, registry

ROOT = Path(__file__).parents[1]


def code_blocks(path: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", path.read_text(), flags=re.DOTALL | re.MULTILINE)


@pytest.fixture(autouse=True)
def _no_warning_about_a_backbone(monkeypatch):
    """What is shown as an example passes the check in every point, and leaves no adapter behind."""
    registry.find_adapter(print)  # loads those of the package
    monkeypatch.setattr(registry, "_ADAPTERS", dict(registry._ADAPTERS))
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
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
        assert (path.parent / target).exists(), target


def test_every_public_name_is_in_the_api_page():
    import odmt_sdk

    page = (ROOT / "docs" / "api.md").read_text()
    assert [name for name in odmt_sdk.__all__ if f"::: odmt_sdk.{name}\n" not in page] == []
