"""The examples for saving and transfer run."""

import runpy
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    return capsys.readouterr().out


def test_save_and_load(tmp_path, monkeypatch, capsys):
    out = run("save_and_load.py", tmp_path, monkeypatch, capsys)
    assert out.count("film-") == 6


def test_transfer(tmp_path, monkeypatch, capsys):
    out = run("transfer.py", tmp_path, monkeypatch, capsys)
    fresh = next(line for line in out.splitlines() if line.startswith("fresh: "))
    assert "item_encoder.projections.image (2)" in fresh
    assert "item_encoder.projections.text" not in fresh
    assert out.count("book-") == 3
