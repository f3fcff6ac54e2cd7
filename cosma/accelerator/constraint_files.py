"""Constraints from TOML files."""

from __future__ import annotations

import os
from typing import Any

import cosma.door as door
from cosma.accelerator.constraints import FIELDS, Constraints
from cosma.errors import ConstraintError
from cosma.files import read_toml
from cosma.text import did_you_mean


def read_constraints(given: Constraints | os.PathLike[str] | str) -> Constraints:
    """Take constraints as callers may hand them in: themselves, or the path of a TOML file.

    Keys of the file are the fields of :class:`Constraints`: ``excluded``, ``before`` and the pairs are lists of lists
    of two, ``addresses``, ``alignments`` and ``workspaces`` are tables, the rest are lists of names.

    Raises
    ------
    ConstraintError
        If the file is not TOML, has an unknown key, or a value is wrong.
    InputError
        If it cannot be read.
    """
    if isinstance(given, Constraints):
        return given
    file = door.path(given, "constraints (or a Constraints)", error=ConstraintError)
    return constraints_of(read_toml(file, "constraints", ConstraintError), f"constraints {file}")


def constraints_of(table: dict[str, Any], where: str) -> Constraints:
    """Make constraints of what a file holds.

    Raises ConstraintError if a key is unknown or a value wrong; the message begins with ``where``.
    """
    for key in table:
        if key not in FIELDS:
            known = ", ".join(FIELDS)
            raise ConstraintError(f"{where}: unknown key {key!r}; known are {known}{did_you_mean(key, FIELDS)}")
    try:
        return Constraints(**table)
    except ConstraintError as error:
        raise ConstraintError(f"{where}: {str(error).removeprefix('constraints: ')}") from error
