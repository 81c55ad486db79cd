"""tests/lowest.txt, used by `make test-lowest`, matches the lower bounds in pyproject.toml."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def lower_bounds(requirements: list[str]) -> dict[str, str]:
    """Return name -> lower bound of each requirement, except the package's own extras."""
    bounds = {}
    for requirement in requirements:
        name, bound = re.fullmatch(r"([a-z0-9-]+)(?:\[.*\])?(?:>=([0-9.]+))?", requirement).groups()
        if name != "odmt-sdk":
            assert bound, f"{requirement} needs a lower bound"
            bounds[name] = bound
    return bounds


def required(extra: str, extras: dict[str, list[str]]) -> list[str]:
    """What an extra needs, and what the extras of the package that it names need."""
    requirements = list(extras[extra])
    for requirement in extras[extra]:
        if named := re.fullmatch(r"odmt-sdk\[(.*)\]", requirement):
            for other in named[1].split(","):
                requirements += required(other, extras)
    return requirements


def test_the_lowest_releases_are_those_of_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = project["dependencies"] + required("test", project["optional-dependencies"])
    pins = re.findall(
        r"^([a-z0-9-]+)==([0-9.]+)$", (ROOT / "tests" / "lowest.txt").read_text(), re.MULTILINE
    )
    assert dict(pins) == lower_bounds(requirements)


def test_extras_that_an_extra_names_count():
    extras = {
        "test": ["odmt-sdk[train,serve]", "pytest>=8.2"],
        "train": ["odmt-sdk[tables]", "accelerate>=1.3"],
        "serve": ["fastapi>=0.115"],
        "tables": ["pyarrow>=16"],
        "spark": ["pyspark>=4"],
    }
    assert lower_bounds(required("test", extras)) == {
        "accelerate": "1.3",
        "fastapi": "0.115",
        "pyarrow": "16",
        "pytest": "8.2",
    }


def test_a_requirement_without_a_lower_bound_is_noticed():
    assert lower_bounds(["torch>=2.6", "odmt-sdk[train]"]) == {"torch": "2.6"}
    with pytest.raises(AssertionError, match="numpy needs a lower bound"):
        lower_bounds(["numpy"])
