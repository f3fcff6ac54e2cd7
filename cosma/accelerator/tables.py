"""Accelerator files as tables of values, before anything is made of them: the TOML, and where each number is from.

A number in a file is either plain (``scratchpad = "512KiB"``) or a table that says where it comes from::

    scratchpad = { value = "512KiB", source = "NVDLA TargetConfig", confidence = "source-code" }

A table ``[unpublished]`` gives, for fields that the file leaves out, the reason why nobody states them.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

import cosma.door as door
from cosma.errors import AcceleratorError
from cosma.files import parse_toml
from cosma.text import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Collection

#: How far a number can be trusted, from best to worst.
CONFIDENCES = ("spec", "source-code", "observed", "derived", "assumed")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where one number of an accelerator file comes from."""

    #: Document, code base or page.
    source: str
    #: One of :data:`CONFIDENCES`.
    confidence: str


@dataclass(frozen=True, slots=True)
class Table:
    """What an accelerator file says."""

    #: By field.
    values: dict[str, Any]
    #: One sentence on what it models and what it leaves out.
    description: str
    #: Source and confidence per field, for the fields that state them.
    origins: dict[str, Origin]
    #: Why a field is left out, for fields that nobody publishes.
    unpublished: dict[str, str]


def preset_names() -> tuple[str, ...]:
    """Names of the presets that ship with the package, sorted."""
    folder = resources.files("cosma.accelerator") / "presets"
    return tuple(sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".toml")))


def read_preset(name: str, fields: Collection[str]) -> Table:
    """Read the file of a preset that ships with the package; raises AcceleratorError if there is none of that name."""
    if not isinstance(name, str) or name not in preset_names():
        raise AcceleratorError(
            f"accelerator {door.shown(name)} is neither a preset nor a .toml file; "
            f"presets: {', '.join(preset_names())}"
        )
    entry = resources.files("cosma.accelerator") / "presets" / f"{name}.toml"
    return parse_table(entry.read_bytes(), f"preset {name}", name, fields)


def parse_table(data: bytes, where: str, default_name: str, fields: Collection[str]) -> Table:
    """Read the text of an accelerator file.

    Raises AcceleratorError if it is not TOML, or has an unknown or missing field.
    """
    table = parse_toml(data, where, AcceleratorError)
    description = table.pop("description", "")
    unpublished = _unpublished(table.pop("unpublished", {}), table, fields, where)
    values: dict[str, Any] = {"name": default_name}
    origins: dict[str, Origin] = {}
    for key, entry in table.items():
        if key not in fields:
            known = ", ".join(sorted(fields))
            raise AcceleratorError(f"{where}: unknown field {key!r}; known are {known}{did_you_mean(key, fields)}")
        if isinstance(entry, dict):
            values[key], origin = _with_origin(entry, f"{where}: {key}")
            origins[key] = origin
        else:
            values[key] = entry
    if "scratchpad" not in values:
        raise AcceleratorError(f"{where}: 'scratchpad' is missing; there is no default capacity")
    return Table(values, str(description), origins, unpublished)


def _unpublished(given: Any, table: dict[str, Any], fields: Collection[str], where: str) -> dict[str, str]:
    if not isinstance(given, dict) or not all(isinstance(reason, str) for reason in given.values()):
        raise AcceleratorError(f"{where}: 'unpublished' must be a table of fields and reasons")
    for key in given:
        if key not in fields:
            raise AcceleratorError(f"{where}: unpublished: unknown field {key!r}{did_you_mean(key, fields)}")
        if key in table:
            raise AcceleratorError(f"{where}: {key!r} has a value and is unpublished as well; keep one of the two")
    return dict(given)


def _with_origin(entry: dict[str, Any], where: str) -> tuple[Any, Origin]:
    if set(entry) != {"value", "source", "confidence"}:
        raise AcceleratorError(f"{where}: a table needs exactly value, source and confidence, not {sorted(entry)}")
    if entry["confidence"] not in CONFIDENCES:
        raise AcceleratorError(f"{where}: confidence must be one of {', '.join(CONFIDENCES)}")
    return entry["value"], Origin(str(entry["source"]), entry["confidence"])
