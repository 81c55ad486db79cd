"""What every registry keeps: built-in names are known before they are used, and never taken."""

import subprocess
import sys
from pathlib import Path

import pytest

from odmt_sdk import register_bridge, register_fusion, register_teaching_graph
from odmt_sdk.items.embedder import FUSIONS, is_built_in_fusion
from odmt_sdk.losses.teaching import TEACHING_GRAPHS

PACKAGE = Path(__file__).parents[1] / "odmt_sdk"


def test_the_built_in_names():
    assert {"odmt", "id", "id_ensemble", "only:", "sum", "concat", "gated", "non_invasive"} | {
        "towers", "late", "late_deep", "early_deep",
    } == {name for name in FUSIONS if FUSIONS.is_built_in(name)}  # fmt: skip
    built_in = {name for name in TEACHING_GRAPHS if TEACHING_GRAPHS.is_built_in(name)}
    assert built_in == {"paper", "mutual", "ensemble"}


@pytest.mark.parametrize(
    ("registering", "name"),
    [
        ("register_fusion", "odmt"),
        ("register_teaching_graph", "paper"),
        ("register_modality", "text"),
        ("register_bridge", "torch-rnn"),
    ],
)
def test_a_built_in_name_is_taken_from_the_start(registering, name):
    more = ", matches=int" if registering == "register_bridge" else ""
    program = (
        f"import odmt_sdk\n"
        f"try:\n    odmt_sdk.{registering}({name!r}{more})(lambda *_: None)\n"
        f"except ValueError as error:\n    print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert f"named {name!r} is registered already" in done.stdout


def test_what_a_user_registers_is_not_built_in(monkeypatch):
    monkeypatch.setattr(FUSIONS, "_entries", dict(FUSIONS._entries))
    register_fusion("mine")(lambda config, num_items, hidden_size, widths: None)
    assert "mine" in FUSIONS
    assert not is_built_in_fusion("mine")
    assert is_built_in_fusion("only:text")


@pytest.mark.parametrize(
    ("folder", "decorator"),
    [
        ("items/fusions", "@register_fusion("),
        ("losses/teaching_graphs", "@register_teaching_graph("),
    ],
)
def test_a_new_one_is_one_file(folder, decorator, tmp_path, monkeypatch):
    """A file in the folder registers itself: nothing else has to name it."""
    registered = [path for path in (PACKAGE / folder).glob("*.py") if decorator in path.read_text()]
    assert len(registered) >= 3
    new = tmp_path / "brand_new.py"
    new.write_text(
        "from odmt_sdk import register_fusion, register_teaching_graph\n"
        f"{decorator}'brand new')\ndef build(*arguments):\n    return ()\n"
    )
    registry = FUSIONS if "fusion" in folder else TEACHING_GRAPHS
    module = registry._modules[0]
    package = __import__(module, fromlist=["x"])
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    monkeypatch.setattr(registry, "_built_in", set(registry._built_in))
    monkeypatch.setattr(registry, "_loaded", False)
    assert "brand new" in registry
    assert registry.is_built_in("brand new")


def test_the_errors_name_the_public_function():
    from odmt_sdk.items.embedder import check_fusion
    from odmt_sdk.losses.teaching import check_teaching_graph

    with pytest.raises(ValueError, match=r"fusion='no' is not.*odmt_sdk\.register_fusion"):
        check_fusion("no")
    with pytest.raises(ValueError, match=r"graph='no' is not.*odmt_sdk\.register_teaching_graph"):
        check_teaching_graph("no")
    assert register_teaching_graph.__module__ == "odmt_sdk.losses.teaching"
    assert register_bridge.__module__ == "odmt_sdk.backbones.adapt"
