"""Every public name has one place, and the API page lists exactly these places."""

import ast
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import odmt_sdk

ROOT = Path(__file__).parents[1]
PACKAGES = ("odmt_sdk", *(f"odmt_sdk.{name}" for name in odmt_sdk._SUBMODULES))
PAGE = (ROOT / "docs" / "api.md").read_text()
LISTED = re.findall(r"^::: (\S+)$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_handed_out(package):
    module = importlib.import_module(package)
    assert len(module.__all__) == len(set(module.__all__)) > 0
    assert set(module.__all__) <= set(dir(module))
    for name in module.__all__:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'no_such_name'"):
        module.no_such_name  # noqa: B018


@pytest.mark.parametrize("package", PACKAGES)
def test_type_checkers_see_what_is_handed_out(package):
    module = importlib.import_module(package)
    if not hasattr(module, "_HOMES"):
        return  # a single file
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.asname or alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom) and node.module != "odmt_sdk"
        for alias in node.names
    }
    assert seen == {name: module._HOMES[name] for name in module.__all__}


@pytest.mark.parametrize("package", PACKAGES)
def test_no_file_has_the_name_of_something_public_beside_it(package):
    module = importlib.import_module(package)
    files = {found.name for found in pkgutil.iter_modules(getattr(module, "__path__", ()))}
    assert files & set(module.__all__) == set()


def test_a_public_name_has_one_place():
    names = [name for package in PACKAGES for name in importlib.import_module(package).__all__]
    assert sorted(names) == sorted(set(names))


def test_the_api_page_lists_every_public_name_and_no_other():
    public = {
        f"{package}.{name}"
        for package in PACKAGES
        for name in importlib.import_module(package).__all__
    }
    assert sorted(LISTED) == sorted(public)


def test_submodules_are_there_without_importing_them():
    for name in odmt_sdk._SUBMODULES:
        assert getattr(odmt_sdk, name) is importlib.import_module(f"odmt_sdk.{name}")


def shown_code() -> list[tuple[str, str]]:
    """Name and source of every program and every Python block that users read."""
    sources = [
        (path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))
        for folder in ("examples", "benchmarks")
        for path in sorted((ROOT / folder).rglob("*.py"))
    ]
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        blocks = re.findall(r"^```python\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)
        sources += [
            (f"{path.name}[{number}]", block)
            for number, block in enumerate(blocks)
            if not block.startswith("--8<--")
        ]
    return sources


@pytest.mark.parametrize(("name", "source"), shown_code(), ids=lambda value: value[:40])
def test_shown_code_imports_public_names_alone(name, source):
    allowed = {package: set(importlib.import_module(package).__all__) for package in PACKAGES}
    allowed["odmt_sdk"] |= set(odmt_sdk._SUBMODULES) | {"__version__"}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found = {alias.name for alias in node.names if alias.name.startswith("odmt_sdk")}
            assert found <= set(PACKAGES), name
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("odmt_sdk"):
            assert {alias.name for alias in node.names} <= allowed.get(node.module, set()), name
