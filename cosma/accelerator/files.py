"""Accelerators from TOML files and from the presets that ship with the package.

A number in a file is either plain (``scratchpad = "512KiB"``) or a table that says where it comes from::

    scratchpad = { value = "512KiB", source = "NVDLA TargetConfig", confidence = "source-code" }
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, fields
from importlib import resources
from typing import Any

import cosma.door as door
from cosma.accelerator.accelerator import Accelerator
from cosma.errors import AcceleratorError, InputError
from cosma.files import read_bytes
from cosma.units import parse_size

#: How far a number can be trusted, from best to worst.
CONFIDENCES = ("spec", "source-code", "observed", "derived", "assumed")
_FIELDS = {field.name for field in fields(Accelerator)}


@dataclass(frozen=True, slots=True)
class Origin:
    """Where one number of an accelerator file comes from.

    Attributes
    ----------
    source
        Document, code base or page.
    confidence
        One of :data:`CONFIDENCES`.
    """

    source: str
    confidence: str


@dataclass(frozen=True, slots=True)
class Preset:
    """An accelerator as read from a file.

    Attributes
    ----------
    accelerator
        The validated description.
    description
        One sentence on what it models and what it leaves out.
    origins
        Source and confidence per field, for the fields that state them.
    """

    accelerator: Accelerator
    description: str
    origins: dict[str, Origin]


def load_preset(path: os.PathLike[str] | str) -> Preset:
    """Read an accelerator file.

    Raises
    ------
    AcceleratorError
        If the file is not TOML, has an unknown or missing field, or a value out of range.
    InputError
        If it cannot be read.
    """
    file = door.path(path, "accelerator file", error=AcceleratorError)
    return _parse(read_bytes(file, "accelerator file"), str(file), file.stem)


def preset_names() -> tuple[str, ...]:
    """Names of the presets that ship with the package, sorted."""
    folder = resources.files("cosma.accelerator") / "presets"
    return tuple(sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".toml")))


def preset(name: str) -> Preset:
    """Look up a preset that ships with the package.

    Raises
    ------
    AcceleratorError
        If there is none of that name.
    """
    if not isinstance(name, str) or name not in preset_names():
        raise AcceleratorError(
            f"accelerator {door.shown(name)} is neither a preset nor a .toml file; "
            f"presets: {', '.join(preset_names())}"
        )
    entry = resources.files("cosma.accelerator") / "presets" / f"{name}.toml"
    return _parse(entry.read_bytes(), f"preset {name}", name)


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

    Raises
    ------
    AcceleratorError
        If it is none of these.
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


def _parse(data: bytes, where: str, default_name: str) -> Preset:
    try:
        table = tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise AcceleratorError(f"{where}: not a TOML file: {error}") from error
    description = table.pop("description", "")
    values: dict[str, Any] = {"name": default_name}
    origins: dict[str, Origin] = {}
    for key, entry in table.items():
        if key not in _FIELDS:
            raise AcceleratorError(f"{where}: unknown field {key!r}; known are {', '.join(sorted(_FIELDS))}")
        if isinstance(entry, dict):
            values[key], origin = _with_origin(entry, f"{where}: {key}")
            origins[key] = origin
        else:
            values[key] = entry
    if "scratchpad" not in values:
        raise AcceleratorError(f"{where}: 'scratchpad' is missing; there is no default capacity")
    try:
        return Preset(Accelerator(**values), str(description), origins)
    except AcceleratorError as error:
        raise AcceleratorError(f"{where}: {error}") from error


def _with_origin(entry: dict[str, Any], where: str) -> tuple[Any, Origin]:
    if set(entry) != {"value", "source", "confidence"}:
        raise AcceleratorError(f"{where}: a table needs exactly value, source and confidence, not {sorted(entry)}")
    if entry["confidence"] not in CONFIDENCES:
        raise AcceleratorError(f"{where}: confidence must be one of {', '.join(CONFIDENCES)}")
    return entry["value"], Origin(str(entry["source"]), entry["confidence"])
