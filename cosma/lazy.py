"""Names that a package hands on, each imported when it is first used."""

from __future__ import annotations

import sys
from collections.abc import Mapping
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
