"""Registries: map names in the configuration or in a call to objects."""

import pkgutil
from collections.abc import Iterator
from importlib import import_module
from typing import Generic, TypeVar

Entry = TypeVar("Entry")


class Registry(Generic[Entry]):
    """Entries by name. The modules of the package register their own entries when imported.

    These modules are imported when a name is first looked up, or when a user registers a name. The
    registry itself is therefore fast to import, and users cannot take a name of the package.

    Args:
        what: kind of the entries, such as "fusion".
        register_with: the public function that adds an entry, for messages.
        built_in: modules that register entries; for a package, all modules in it.

    Examples:
        >>> colours = Registry("colour", "register_colour")
        >>> colours.add("red", 0xFF0000, by=print)
        >>> colours.get("red")
        16711680
        >>> colours.get("blue")
        Traceback (most recent call last):
        ValueError: no colour is named 'blue'; known are ['red']. Add your own with register_colour
    """

    def __init__(self, what: str, register_with: str, *built_in: str) -> None:
        self.what, self.register_with = what, register_with
        self._modules = built_in
        self._entries: dict[str, Entry] = {}
        self._built_in: set[str] = set()
        self._loaded = False

    def add(self, name: str, entry: Entry, *, by: object) -> None:
        """Add an entry.

        Args:
            name: name of the entry.
            entry: the entry.
            by: the function or class that is registered; its module shows whether the entry is
                built in.

        Raises:
            ValueError: if the name is already registered.
        """
        ours = str(getattr(by, "__module__", "")).startswith("odmt_sdk.")
        if not ours:
            self._load()
        if name in self._entries:
            raise ValueError(
                f"a {self.what} named {name!r} is registered already; choose another name"
            )
        self._entries[name] = entry
        if ours:
            self._built_in.add(name)

    def get(self, name: str) -> Entry:
        """Look up an entry.

        Args:
            name: name of the entry.

        Returns:
            The entry.

        Raises:
            ValueError: if no entry has that name.
        """
        self._load()
        if name not in self._entries:
            raise ValueError(
                f"no {self.what} is named {name!r}; known are {sorted(self._entries)}. "
                f"Add your own with {self.register_with}"
            )
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(tuple(self._entries))

    def is_built_in(self, name: str) -> bool:
        """Whether this name is built in.

        Args:
            name: the name.

        Returns:
            True for entries of the package.
        """
        self._load()
        return name in self._built_in

    def _load(self) -> None:
        # Once: torch.compile cannot trace an import, and lookups happen in every training step.
        if not self._loaded:
            for name in self._modules:
                import_submodules(name)
            self._loaded = True


def import_submodules(name: str) -> None:
    """Import a module; for a package, also every module in it.

    Args:
        name: dotted name.
    """
    module = import_module(name)
    for found in pkgutil.iter_modules(getattr(module, "__path__", ())):
        import_module(f"{name}.{found.name}")
