"""The architecture of the package: allowed imports between its parts, and forbidden imports.

The checks read the source with `ast` and see every import, including imports inside functions and
under TYPE_CHECKING. Each check is a function of a package folder. The second half of this file
shows with small made-up packages that the checks find violations.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "odmt_sdk"

# Top to bottom: a folder or file imports only from lines below its own. Parts on the same line do
# not import each other.
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"__init__"}),
    frozenset({"cli"}),
    frozenset({"demo", "serving"}),
    frozenset({"batch", "export", "pipeline"}),
    frozenset({"source_weights"}),
    frozenset({"item_to_item"}),
    frozenset({"training", "wrapper"}),
    frozenset({"hub"}),
    frozenset({"baselines", "saving"}),
    frozenset({"evaluation", "figures", "item_regression"}),
    frozenset({"indexes", "items", "retrieval"}),
    frozenset({"features", "toy_shop"}),
    frozenset({"backbones", "data", "losses"}),
    frozenset({"files", "scoring_model"}),
    frozenset(
        {
            "config",
            "deprecation",
            "item_neighbours",
            "markdown",
            "modes",
            "number_types",
            "outputs",
            "processes",
            "public_names",
            "registry",
            "scoring",
            "terminal",
            "transformer",
            "vocabulary",
        }
    ),
    frozenset({"tables"}),
    frozenset({"text_files"}),
    frozenset({"errors", "paths"}),
)
VAGUE_NAMES = {"util", "utils", "helper", "helpers", "common", "misc"}
# Optional, slow or sometimes broken libraries, which are imported in the functions that need them.
LAZY_LIBRARIES = {
    "PIL",
    "accelerate",
    "datasets",
    "gradio",
    "matplotlib",
    "pandas",
    "peft",
    "polars",
    "pyarrow",
    "sentence_transformers",
    "torchvision",
}
PICKLING_LIBRARIES = {
    "_pickle",
    "cloudpickle",
    "dill",
    "joblib",
    "marshal",
    "pickle",
    "shelve",
}
PICKLING_CALLS = {
    "pandas.read_pickle",
    "torch.load",
    "torch.save",
    "torch.serialization.load",
    "torch.serialization.save",
}


@dataclass(frozen=True)
class Import:
    """An imported name: `target` is absolute, `deferred` = not executed with the module."""

    module: str
    target: str
    line: int
    deferred: bool


def find_modules(package: Path) -> dict[str, Path]:
    """Return dotted name -> file; the name of a folder maps to its `__init__.py`."""
    modules = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


def find_imports(package: Path) -> list[Import]:
    return [
        Import(module, target, node.lineno, deferred)
        for module, path in find_modules(package).items()
        for node, deferred in _walk(ast.parse(path.read_text(encoding="utf-8")))
        for target in _targets(node, module, path)
    ]


def _walk(node: ast.AST, deferred: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    """Yield every node below `node`, and whether it is not executed when the module is imported."""
    for child in ast.iter_child_nodes(node):
        inside = deferred or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        if isinstance(node, ast.If) and child in node.body:
            inside = inside or ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}
        yield child, inside
        yield from _walk(child, inside)


def _targets(node: ast.AST, module: str, path: Path) -> list[str]:
    """Return the absolute names that `node` imports; none if it is not an import."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
        base = base[: len(base) - (node.level - 1)] if node.level else []
        source = ".".join([*base, *([node.module] if node.module else [])])
        return [source if alias.name == "*" else f"{source}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        function = ast.unparse(node.func).split(".")[-1]
        if function in {"import_module", "__import__"} and isinstance(node.args[0].value, str):
            return [node.args[0].value]
    return []


def build_graph(package: Path) -> dict[str, set[str]]:
    """Return module -> modules of the same package that it imports."""
    modules = find_modules(package)
    graph: dict[str, set[str]] = {module: set() for module in modules}
    for found in find_imports(package):
        target = found.target
        while target and target not in modules:  # a name inside a module, or another library
            target = target.rpartition(".")[0]
        if target and target != found.module:
            graph[found.module].add(target)
    return graph


def part_of(module: str) -> str:
    """Return the top-level folder or file that `module` belongs to."""
    return module.split(".")[1] if "." in module else "__init__"


def layer_problems(package: Path, layers: tuple[frozenset[str], ...] = LAYERS) -> list[str]:
    level = {part: number for number, parts in enumerate(layers) for part in parts}
    graph = build_graph(package)
    unknown = sorted({part_of(module) for module in graph} - level.keys())
    if unknown:
        return [
            f"{part} is in no layer: add it to LAYERS in tests/test_architecture.py, on the line "
            "of the parts that it stands beside"
            for part in unknown
        ]
    return [
        f"{module} imports {target}, which is not in a layer below its own"
        for module, targets in graph.items()
        for target in sorted(targets)
        if part_of(module) != part_of(target) and level[part_of(module)] >= level[part_of(target)]
    ]


def cycle_problems(package: Path) -> list[str]:
    try:
        TopologicalSorter(build_graph(package)).prepare()
    except CycleError as error:
        return ["imported in a circle: " + " <- ".join(error.args[1])]
    return []


def name_problems(package: Path) -> list[str]:
    return [
        f"{module}: a name that says nothing; name it after the one thing it does"
        for module in find_modules(package)
        if VAGUE_NAMES & set(module.rpartition(".")[2].split("_"))
    ]


def eager_import_problems(package: Path) -> list[str]:
    return [
        f"{found.module}, line {found.line}: import {found.target} in the function that needs it"
        for found in find_imports(package)
        if found.target.split(".")[0] in LAZY_LIBRARIES and not found.deferred
    ]


def pickle_problems(package: Path) -> list[str]:
    """Find imports of pickling libraries and calls that can unpickle, under any alias."""
    problems = []
    for found in find_imports(package):
        library = found.target.split(".")[0]
        if library in PICKLING_LIBRARIES or found.target in PICKLING_CALLS:
            problems.append(f"{found.module}, line {found.line}: {found.target} can run code")
    for module, path in find_modules(package).items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        aliases = {
            alias.asname or alias.name: alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                called = f"{aliases.get(node.value.id)}.{node.attr}"
                if called in PICKLING_CALLS:
                    problems.append(f"{module}, line {node.lineno}: {called} can run code")
            is_switch = isinstance(node, ast.keyword) and node.arg == "allow_pickle"
            if is_switch and ast.unparse(node.value) != "False":
                problems.append(f"{module}, line {node.value.lineno}: allow_pickle can run code")
    return problems


@pytest.mark.parametrize(
    "find_problems",
    [
        layer_problems,
        cycle_problems,
        name_problems,
        eager_import_problems,
        pickle_problems,
    ],
)
def test_package_keeps_its_shape(find_problems):
    problems = find_problems(PACKAGE)
    assert not problems, "\n" + "\n".join(problems)


def test_the_package_is_read():
    """Guards the test above, which would also pass for a wrong folder or an incomplete walk."""
    graph = build_graph(PACKAGE)
    assert {part_of(module) for module in graph} >= {"__init__", "wrapper", "items", "config"}
    assert "odmt_sdk.config" in graph["odmt_sdk.wrapper"]


# Tests of the checks, with made-up packages.


@pytest.fixture
def make_package(tmp_path):
    def make(**sources: str) -> Path:
        """Create files given as path -> source, with `__` for the slash: parts__wheel="..."."""
        root = tmp_path / "shop"
        for name, source in {"__init__": "", **sources}.items():
            path = root / ("__init__.py" if name == "__init__" else name.replace("__", "/") + ".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            (path.parent / "__init__.py").touch()
            path.write_text(source)
        return root

    return make


TOY_LAYERS = (frozenset({"__init__"}), frozenset({"top"}), frozenset({"left", "right"}))


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("import shop.right", "shop.right"),
        ("import shop.right as r", "shop.right"),
        ("from shop import right", "shop.right"),
        ("from shop.right import Anything", "shop.right"),
        ("from shop.right import *", "shop.right"),
        ("from . import right", "shop.right"),
        ("from .right import Anything", "shop.right"),
        ("def f():\n    from shop.right import Anything", "shop.right"),
        ("if TYPE_CHECKING:\n    from shop.right import Anything", "shop.right"),
        ("try:\n    import shop.right\nexcept ImportError:\n    pass", "shop.right"),
        ("import importlib\nimportlib.import_module('shop.right')", "shop.right"),
        ("from shop import NAME", "shop"),
    ],
)
def test_graph_sees_every_form_of_import(make_package, source, target):
    graph = build_graph(make_package(left=source, right=""))
    assert graph["shop.left"] == {target}


def test_graph_resolves_relative_imports_of_folders(make_package):
    package = make_package(left__wheel="from ..right import x\nfrom . import axle", right="")
    (package / "left" / "axle.py").touch()
    (package / "left" / "__init__.py").write_text("from .wheel import y")
    graph = build_graph(package)
    assert graph["shop.left.wheel"] == {"shop.right", "shop.left.axle"}
    assert graph["shop.left"] == {"shop.left.wheel"}


def test_layers_allow_the_way_down(make_package):
    package = make_package(
        __init__="from shop.top import x",
        top="import shop.left.wheel\nimport shop.right",
        left__wheel="from shop.left import axle",
        left__axle="",
        right="",
    )
    assert layer_problems(package, TOY_LAYERS) == []


@pytest.mark.parametrize(
    ("sources", "problem"),
    [
        ({"top": "", "left": "import shop.top"}, "shop.left imports shop.top"),
        ({"left": "", "right": "import shop.left"}, "shop.right imports shop.left"),
        ({"top": "def f():\n    from shop import x"}, "shop.top imports shop,"),
        ({"attic": ""}, "attic is in no layer: add it to LAYERS"),
        ({"attic__box": ""}, "attic is in no layer: add it to LAYERS"),
    ],
)
def test_layers_find(make_package, sources, problem):
    problems = layer_problems(make_package(**sources), TOY_LAYERS)
    assert len(problems) == 1
    assert problem in problems[0]


def test_cycles_find_a_circle_of_three(make_package):
    package = make_package(
        a="import shop.b", b="def f():\n    from shop import c", c="from .a import x"
    )
    (problem,) = cycle_problems(package)
    assert {"shop.a", "shop.b", "shop.c"} <= set(re.findall(r"[\w.]+", problem))


def test_cycles_accept_a_diamond(make_package):
    package = make_package(a="import shop.b, shop.c", b="import shop.d", c="from .d import x", d="")
    assert cycle_problems(package) == []


@pytest.mark.parametrize("name", ["utils", "helpers__x", "common", "misc", "text_utils", "_common"])
def test_names_find(make_package, name):
    assert len(name_problems(make_package(**{name: ""}))) == 1


def test_names_accept(make_package):
    assert name_problems(make_package(commons="", utility="", items__encoder="")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pandas as pd",
        "from PIL import Image",
        "import matplotlib.pyplot as plt",
        "try:\n    import accelerate\nexcept ImportError:\n    accelerate = None",
        "class A:\n    import polars",
        "if TYPE_CHECKING:\n    pass\nelse:\n    import pyarrow",
        "if not TYPE_CHECKING:\n    import datasets",
    ],
)
def test_eager_imports_find(make_package, source):
    assert len(eager_import_problems(make_package(left=source))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "def f():\n    import pandas as pd",
        "async def f():\n    from PIL import Image",
        "class A:\n    def f(self):\n        if self:\n            import torchvision.io",
        "if TYPE_CHECKING:\n    from PIL import Image",
        "import typing\nif typing.TYPE_CHECKING:\n    import pandas",
        "from shop.datasets import x",
    ],
)
def test_eager_imports_accept(make_package, source):
    assert eager_import_problems(make_package(left=source)) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "def f():\n    import joblib",
        "import torch\ndef f(path):\n    return torch.load(path, weights_only=True)",
        "import torch as th\nth.save",
        "from torch import load",
        "import numpy as np\nnp.load('x.npy', allow_pickle=True)",
        "import importlib\nimportlib.import_module('dill')",
    ],
)
def test_pickle_finds(make_package, source):
    assert len(pickle_problems(make_package(left=source))) == 1


def test_pickle_accepts_names_that_only_look_alike(make_package):
    source = (
        "import json\nimport torch\njson.load\nself.load\ntorch.loadtxt\ntorch.nn.load\n"
        "np.load('x.npy')\nnp.load('x.npy', allow_pickle=False)"
    )
    assert pickle_problems(make_package(left=source)) == []
