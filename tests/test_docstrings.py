"""The examples in docstrings run and print the expected output."""

import doctest
import importlib
import pkgutil

import pytest

import odmt_sdk


def examples() -> list[doctest.DocTest]:
    """Find the docstrings of all modules with at least one example that is not skipped."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = []
    for module in pkgutil.walk_packages(odmt_sdk.__path__, "odmt_sdk."):
        found += finder.find(importlib.import_module(module.name))
    return [test for test in found if not all(skipped(example) for example in test.examples)]


def skipped(example: doctest.Example) -> bool:
    return example.options.get(doctest.SKIP, False)


def failures(test: doctest.DocTest) -> str:
    report: list[str] = []
    doctest.DocTestRunner(verbose=False).run(test, out=report.append)
    return "".join(report)


@pytest.mark.parametrize("test", examples(), ids=lambda test: test.name)
def test_the_example_prints_what_it_shows(test, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    report = failures(test)
    assert not report, report


def test_a_wrong_example_is_noticed():
    wrong = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, None)
    assert "Expected:\n    3\nGot:\n    2" in failures(wrong)
