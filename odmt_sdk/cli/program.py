"""`Program`: the Python code of a command, which is shown or run."""

from collections.abc import Mapping
from typing import Any

WIDTH = 96


class Code(str):
    """A Python expression, in contrast to a string value."""

    __slots__ = ()


def call(function: str, *arguments: Any, **settings: Any) -> Code:
    """Write a call.

    Args:
        function: the function to call, such as "ODMTWrapper.from_pretrained".
        *arguments: positional arguments, values or `Code`.
        **settings: keyword arguments, values or `Code`.

    Returns:
        The expression, on several lines if it is long.

    Examples:
        >>> call("fit", Code("model"), "my-adapter", epochs=3)
        'fit(model, "my-adapter", epochs=3)'
    """
    parts = [_written(value) for value in arguments]
    parts += [f"{name}={_written(value)}" for name, value in settings.items()]
    line = f"{function}({', '.join(parts)})"
    if len(line) <= WIDTH - 16 and "\n" not in line:
        return Code(line)
    inside = "".join(
        f"    {part},\n".replace("\n", "\n    ").removesuffix("    ") for part in parts
    )
    return Code(f"{function}(\n{inside})")


def _written(value: Any) -> str:
    if isinstance(value, Code):
        return str(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_written(k)}: {_written(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_written, value)) + "]"
    if isinstance(value, tuple):
        inside = ", ".join(map(_written, value))
        return f"({inside},)" if len(value) == 1 else f"({inside})"
    text = repr(value)
    plain = isinstance(value, str) and not {'"', "\\"} & set(text)
    return f'"{value}"' if plain and text[0] == "'" else text


class Program:
    """Lines of Python that use public names only.

    `--show-code` prints exactly the lines that are executed without it.

    Attributes:
        values: the variables after `run`.
        user_code: "module:name" of each import from the user's folder.
    """

    def __init__(self) -> None:
        self.values: dict[str, Any] = {"__name__": "__main__"}
        self.user_code: list[str] = []
        self._imports: dict[str, set[str]] = {}
        self._lines: list[str] = []
        self._done = 0
        self.in_processes = False

    def use(self, *names: str, module: str = "odmt_sdk") -> None:
        """Import names, or the module itself if no names are given."""
        self._imports.setdefault(module, set()).update(names)

    def add(self, line: str) -> None:
        """Add a statement."""
        self._lines.append(line)

    def assign(self, name: str, value: Code) -> None:
        """Add an assignment."""
        self.add(f"{name} = {value}")

    def source(self) -> str:
        """Return the program as it would be written in a file."""
        lines = list(self._lines)
        if any(line.startswith("result = ") for line in lines):
            lines.append("print(result)")
        body = "\n".join(lines)
        if self.in_processes:  # each process imports the file again
            body = 'if __name__ == "__main__":\n    ' + body.replace("\n", "\n    ")
        return f"{self._import_lines()}\n\n{body}\n"

    def run(self) -> None:
        """Execute the lines that have not been executed yet."""
        pending = "\n".join(self._lines[self._done :])
        self._done = len(self._lines)
        exec(compile(f"{self._import_lines()}\n{pending}\n", "<odmt-sdk>", "exec"), self.values)

    def _import_lines(self) -> str:
        lines: list[str] = []
        own = "odmt_sdk"
        for module in sorted(self._imports, key=lambda name: (name.startswith(own), name)):
            if module.startswith(own) and lines and not any(own in line for line in lines):
                lines.append("")
            names = sorted(self._imports[module])
            line = f"from {module} import {', '.join(names)}" if names else f"import {module}"
            if len(line) > WIDTH:
                line = f"from {module} import (\n    " + ",\n    ".join(names) + ",\n)"
            lines.append(line)
        return "\n".join(lines)
