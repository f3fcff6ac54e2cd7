"""Names that a package hands on, each imported when it is first used; and word of a module's import."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


class NamesFrom:
    """The ``__getattr__`` of a package.

    Parameters
    ----------
    homes
        Names, with spaces between them, by the module within the package that has them.

    Attributes
    ----------
    homes
        The module of each name.
    """

    def __init__(self, package: str, homes: Mapping[str, str]) -> None:
        self._package = package
        self.homes = {name: f"{package}.{module}" for module, names in homes.items() for name in names.split()}

    def __call__(self, name: str) -> Any:
        """Import a name; AttributeError where there is none."""
        if name not in self.homes:
            raise AttributeError(f"module {self._package!r} has no attribute {name!r}")
        value = getattr(import_module(self.homes[name]), name)
        setattr(sys.modules[self._package], name, value)
        return value


#: What waits for a module to be imported, by the module's name.
_waiting: dict[str, list[Callable[[], None]]] = {}


def once_imported(module: str, action: Callable[[], None]) -> None:
    """Do something as soon as a module of this library is imported, which must tell; now if it is already."""
    if module in sys.modules:
        action()
    else:
        _waiting.setdefault(module, []).append(action)


def not_once_imported(module: str, action: Callable[[], None]) -> None:
    """Take back what was to be done once a module is imported."""
    waiting = _waiting.get(module, [])
    if action in waiting:
        waiting.remove(action)


def tell_import(module: str) -> None:
    """Say, at the end of a module, that it is imported."""
    for action in _waiting.pop(module, []):
        action()
