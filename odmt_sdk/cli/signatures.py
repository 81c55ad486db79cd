"""Reads the settings of public functions and classes from their source, without importing torch.

The command line options are built from these settings, so every setting has an option with the same
default and description as in the function.
"""

import ast
import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Setting:
    """One setting of a function.

    Args:
        name: its name.
        kind: its annotation as written, such as "int | None".
        default: its default; None if it has no default, or one that is not a literal.
        help: its description in the docstring.
        choices: the values allowed by a `Literal`; empty for other types.
    """

    name: str
    kind: str
    default: Any
    help: str
    choices: tuple[str, ...] = ()


def settings_of(module: str, name: str, *, without: tuple[str, ...] = ()) -> tuple[Setting, ...]:
    """Read the settings of a function, a method or a dataclass.

    Args:
        module: the file in the package, such as "pipeline" or "features/features".
        name: such as "fit" or "ItemFeatures.from_items".
        without: names to leave out.

    Returns:
        The settings in their order; positional-only ones, `self`, `cls`, `*args` and `**kwargs` are
        left out.

    Raises:
        LookupError: if the file does not define the name.
    """
    node: Any = _tree(module)
    for part in name.split("."):
        node = next((child for child in node.body if getattr(child, "name", None) == part), None)
        if node is None:
            raise LookupError(f"{module}.py defines no {name}")
    texts = _descriptions(ast.get_docstring(node) or "")
    if isinstance(node, ast.ClassDef) and not any(
        getattr(child, "name", None) == "__init__" for child in node.body
    ):
        found = [
            (line.target.id, line.annotation, line.value)
            for line in node.body
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
        ]
    else:
        if isinstance(node, ast.ClassDef):
            node = next(c for c in node.body if getattr(c, "name", None) == "__init__")
        taken = [*node.args.posonlyargs, *node.args.args]
        defaults = [None] * (len(taken) - len(node.args.defaults)) + node.args.defaults
        found = [
            (argument.arg, argument.annotation, default)
            for argument, default in zip(
                [*taken, *node.args.kwonlyargs], [*defaults, *node.args.kw_defaults], strict=True
            )
        ]
    return tuple(
        Setting(name, kind, _literal(value), texts.get(name, ""), _choices(module, kind))
        for name, annotation, value in found
        if annotation is not None
        and name not in without
        and (kind := ast.unparse(annotation).strip("'\""))
    )


@functools.cache
def _tree(module: str) -> ast.Module:
    return ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))


def _literal(node: ast.expr | None) -> Any:
    if node is None:
        return None
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)  # torch.float16


def _choices(module: str, kind: str) -> tuple[str, ...]:
    """Values of a Literal, or of a name for one that the module defines or imports."""
    name = kind.removesuffix(" | None")
    if name.startswith("Literal["):
        return tuple(ast.literal_eval("(" + name[len("Literal[") : -1] + ",)"))
    if not name.isidentifier():
        return ()
    for line in _tree(module).body:
        if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == name:
            return _choices(module, ast.unparse(line.value))
        if isinstance(line, ast.ImportFrom) and name in [alias.name for alias in line.names]:
            package, _, path = (line.module or "").partition(".")
            if package == PACKAGE.name and (PACKAGE / f"{path.replace('.', '/')}.py").is_file():
                return _choices(path.replace(".", "/"), name)
    return ()


def _descriptions(docstring: str) -> dict[str, str]:
    """Read the Args section of a Google-style docstring."""
    section = re.search(r"^Args:\n(.*?)(?=^\S|\Z)", docstring, re.DOTALL | re.MULTILINE)
    if section is None:
        return {}
    entries = re.split(r"^    (?=\S)", section[1], flags=re.MULTILINE)[1:]
    pairs = (entry.partition(":") for entry in entries)
    return {name.strip(): " ".join(text.split()) for name, _, text in pairs}
