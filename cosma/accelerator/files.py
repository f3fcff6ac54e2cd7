"""Accelerators from TOML files and from the presets that ship with the package."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import cosma.door as door
from cosma.accelerator.accelerator import FILE_FIELDS, Accelerator
from cosma.accelerator.tables import CONFIDENCES, Origin, Table, parse_table, preset_names, read_preset
from cosma.errors import AcceleratorError, InputError
from cosma.files import read_bytes
from cosma.units import parse_size

__all__ = [
    "CONFIDENCES",
    "Origin",
    "Preset",
    "as_accelerator",
    "find_accelerator",
    "load_preset",
    "preset",
    "preset_names",
]


@dataclass(frozen=True, slots=True)
class Preset:
    """An accelerator as read from a file."""

    #: The validated description.
    accelerator: Accelerator
    #: One sentence on what it models and what it leaves out.
    description: str
    #: Source and confidence per field, for the fields that state them.
    origins: dict[str, Origin] = field(repr=False)
    #: Why a field is left out, for fields that nobody publishes.
    unpublished: dict[str, str] = field(default_factory=dict, repr=False)


def load_preset(path: os.PathLike[str] | str) -> Preset:
    """Read an accelerator file.

    Raises AcceleratorError if the file is not TOML, has an unknown or missing field, or a value out of range. Raises
    InputError if it cannot be read.
    """
    file = door.path(path, "accelerator file", error=AcceleratorError)
    return _made(parse_table(read_bytes(file, "accelerator file"), str(file), file.stem, FILE_FIELDS), str(file))


def preset(name: str) -> Preset:
    """Look up a preset that ships with the package; raises AcceleratorError if there is none of that name."""
    return _made(read_preset(name, FILE_FIELDS), f"preset {name}")


def find_accelerator(name_or_path: os.PathLike[str] | str) -> Preset:
    """Resolve a preset's name or the path of a TOML file.

    Raises
    ------
    AcceleratorError
        If it is neither.
    """
    given = str(name_or_path)
    if isinstance(name_or_path, os.PathLike) or (
        isinstance(name_or_path, str) and (given.endswith(".toml") or "/" in given)
    ):
        return load_preset(name_or_path)
    return preset(name_or_path)


def as_accelerator(given: object) -> Accelerator:
    """Take an accelerator as callers may hand it in: itself, a preset, a preset's name or the path of a TOML file.

    Raises AcceleratorError if it is none of these.
    """
    if isinstance(given, Accelerator):
        return given
    if isinstance(given, Preset):
        return given.accelerator
    if isinstance(given, str | os.PathLike):
        try:
            return find_accelerator(given).accelerator
        except AcceleratorError as error:
            if isinstance(given, str) and _is_size(given):
                raise AcceleratorError(
                    f"accelerator {given!r} is a size; write Accelerator(scratchpad={given!r})"
                ) from None
            raise error
    raise AcceleratorError(
        f"the accelerator must be an Accelerator, a preset, its name or the path of a TOML file, "
        f"not {door.shown(given)}"
    )


def _is_size(text: str) -> bool:
    try:
        parse_size(text)
    except InputError:
        return False
    return True


def _made(table: Table, where: str) -> Preset:
    try:
        return Preset(Accelerator(**table.values), table.description, table.origins, table.unpublished)
    except AcceleratorError as error:
        raise AcceleratorError(f"{where}: {error}") from error
