"""Tuning parameters as records: one per engine, with defaults, units and the source of every value.

A record is a frozen struct. Its docstring lists the fields in the numpy way; each entry ends with the source of the
default in brackets: the page or the folder of results that measured it, or ``[not measured]``. ``[guard]`` keeps memory
or time within limits and decides nothing below them; ``[unit]`` says how much work a nominal second pays for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from cosma.errors import FormatError
from cosma.files import read_toml

#: Work, in nominal seconds on the reference machine.
NominalSeconds = Annotated[float, msgspec.Meta(ge=0)]
#: A share of a whole.
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
#: A ratio that may exceed one.
Factor = Annotated[float, msgspec.Meta(ge=0)]
#: A ratio or a rate that something is divided by.
Rate = Annotated[float, msgspec.Meta(gt=0)]
#: A number of things.
Count = Annotated[int, msgspec.Meta(ge=0)]
#: A number of things that cannot be none.
Positive = Annotated[int, msgspec.Meta(ge=1)]
#: Units of packing work; see :func:`cosma.packing.pack`.
PackingUnits = Annotated[int, msgspec.Meta(ge=0)]


class Parameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the records of parameters."""


Record = TypeVar("Record", bound=Parameters)


def read_parameters(path: Path | str, kind: type[Record]) -> Record:
    """Read a record from a TOML file; fields that the file leaves out keep their defaults.

    Raises InputError if the file cannot be read. Raises FormatError if it is no TOML, names something unknown, or a
    value is out of range.
    """
    path = Path(path)
    try:
        return msgspec.convert(read_toml(path, "parameters", FormatError), kind)
    except msgspec.ValidationError as error:
        raise FormatError(f"parameters {path}: {error}") from error


def changed(record: Parameters) -> dict[str, Any]:
    """The fields of a record that differ from their defaults, nested records likewise."""
    found: dict[str, Any] = {}
    default = type(record)()
    for name in record.__struct_fields__:
        value = getattr(record, name)
        if isinstance(value, Parameters):
            inner = changed(value)
            if inner:
                found[name] = inner
        elif value != getattr(default, name):
            found[name] = value
    return found
