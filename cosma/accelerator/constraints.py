"""What a user forces on a plan, by the names of tensors and operators.

Names are exact, or patterns in which ``*`` stands for any text and ``?`` for one character. A name that is exact goes
before a pattern.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeAlias

import cosma.door as door
from cosma.errors import ConstraintError
from cosma.text import short_repr

#: Values by name, as callers may write them: a mapping, or pairs.
Values: TypeAlias = "Mapping[str, door.Size] | Iterable[tuple[str, door.Size]]"
#: Pairs of names, as callers may write them.
Pairs: TypeAlias = "Iterable[Iterable[str]]"

_BY_NAME = ("addresses", "alignments", "workspaces")
_NAMES = ("resident", "never_on_chip", "in_place_permitted_types", "in_place_forbidden_types")
_PAIRS = ("in_place_permitted", "in_place_forbidden", "before")


@dataclass(frozen=True, slots=True)
class Entry:
    """One constraint of several: the field it stands in, and its value there."""

    field: str
    value: Any

    def __str__(self) -> str:
        value = self.value
        match self.field:
            case "addresses":
                return f"address {value[1]} of {value[0]!r}"
            case "alignments":
                return f"alignment {value[1]} of {value[0]!r}"
            case "workspaces":
                return f"workspace of {value[1]} bytes for {value[0]!r}"
            case "resident":
                return f"{value!r} stays resident"
            case "never_on_chip":
                return f"{value!r} is never on chip"
            case "excluded":
                return f"excluded range [{value[0]}, {value[1]})"
            case "before":
                return f"{value[0]!r} before {value[1]!r}"
            case "in_place_permitted" | "in_place_forbidden":
                return f"{value[0]!r} in place of {value[1]!r} {self.field.removeprefix('in_place_')}"
            case _:
                allowed = self.field.removeprefix("in_place_").removesuffix("_types")
                return f"in-place {allowed} for operators of type {value!r}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraints:
    """What a plan must keep to beside the rules of the accelerator.

    Sizes may be written as text (``"4KiB"``). Tensors that were cut into parts hand a constraint on to each part, and
    operators that were cut to each tile. What a constraint names is not fused away.

    Attributes
    ----------
    addresses
        Address of a tensor whenever it lies in the scratchpad, in bytes.
    alignments
        What the address of a tensor is a multiple of, beside the accelerator's alignment.
    resident
        Tensors that stay in the scratchpad from their production, or first load, to their last use: no operator streams
        them, and they leave only when nobody reads them any more.
    never_on_chip
        Tensors that never occupy the scratchpad: operators stream them.
    excluded
        Address ranges ``[start, stop)`` that nothing may touch.
    workspaces
        Scratch space in bytes that an operator needs at least while it runs, at any address.
    in_place_permitted, in_place_forbidden
        Pairs of a result and an operand: whether the result may take over the operand's space, whatever the table of
        operators and the accelerator say. Permission is for operators of one result, no larger than the operand.
    in_place_permitted_types, in_place_forbidden_types
        The same for all pairs of operators of a type; a fused operator has the types of all its parts. A pair goes
        before a type, and what is forbidden before what is permitted.
    before
        Pairs of operators of which the first runs before the second.

    Raises
    ------
    ConstraintError
        If a value is of the wrong type or out of range.
    """

    __repr__ = short_repr

    addresses: tuple[tuple[str, int], ...] = ()
    alignments: tuple[tuple[str, int], ...] = ()
    resident: tuple[str, ...] = ()
    never_on_chip: tuple[str, ...] = ()
    excluded: tuple[tuple[int, int], ...] = ()
    workspaces: tuple[tuple[str, int], ...] = ()
    in_place_permitted: tuple[tuple[str, str], ...] = ()
    in_place_forbidden: tuple[tuple[str, str], ...] = ()
    in_place_permitted_types: tuple[str, ...] = ()
    in_place_forbidden_types: tuple[str, ...] = ()
    before: tuple[tuple[str, str], ...] = ()

    if TYPE_CHECKING:  # what callers may write; dataclass makes the constructor, and __post_init__ converts

        def __init__(
            self,
            *,
            addresses: Values = ...,
            alignments: Values = ...,
            resident: Iterable[str] = ...,
            never_on_chip: Iterable[str] = ...,
            excluded: Iterable[Iterable[door.Size]] = ...,
            workspaces: Values = ...,
            in_place_permitted: Pairs = ...,
            in_place_forbidden: Pairs = ...,
            in_place_permitted_types: Iterable[str] = ...,
            in_place_forbidden_types: Iterable[str] = ...,
            before: Pairs = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        put = object.__setattr__
        for field in _BY_NAME:
            put(self, field, _by_name(getattr(self, field), f"constraints: {field}", least=int(field == "alignments")))
        for field in _NAMES:
            where = f"constraints: {field}"
            names = door.texts(getattr(self, field), where, empty=False, error=ConstraintError)
            put(self, field, tuple(dict.fromkeys(names)))
        for field in _PAIRS:
            put(self, field, _pairs(getattr(self, field), f"constraints: {field}"))
        put(self, "excluded", ranges(self.excluded, "constraints: excluded", error=ConstraintError))

    def __bool__(self) -> bool:
        return any(getattr(self, field) for field in FIELDS)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Its constraints one by one."""
        return tuple(Entry(field, value) for field in FIELDS for value in getattr(self, field))

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Constraints:
        """Put constraints together that were taken apart."""
        found: dict[str, list[Any]] = {}
        for entry in entries:
            found.setdefault(entry.field, []).append(entry.value)
        return cls(**found)

    def to_record(self) -> dict[str, Any]:
        """What is forced, as a plan file and a TOML file hold it; fields without entries are left out."""
        return {
            field: dict(getattr(self, field)) if field in _BY_NAME else [
                list(value) if isinstance(value, tuple) else value for value in getattr(self, field)
            ]
            for field in FIELDS
            if getattr(self, field)
        }  # fmt: skip


#: Names of its fields.
FIELDS: tuple[str, ...] = tuple(field.name for field in fields(Constraints))


def ranges(
    given: object, where: str, *, error: type[ConstraintError] | Any = ConstraintError
) -> tuple[tuple[int, int], ...]:
    """Take address ranges ``[start, stop)``, sorted; those that touch or overlap become one."""
    found: list[tuple[int, int]] = []
    for i, one in enumerate(door.items(given, where, error=error)):
        ends = tuple(door.items(one, f"{where}[{i}]", error=error))
        if len(ends) != 2:
            raise error(f"{where}[{i}] must be two addresses, start and stop, not {door.shown(one)}")
        start, stop = (door.size(end, f"{where}[{i}]", error=error) for end in ends)
        if start >= stop:
            raise error(f"{where}[{i}]: [{start}, {stop}) holds no byte; stop must be above start")
        found.append((start, stop))
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(found):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(stop, merged[-1][1])
        else:
            merged.append((start, stop))
    return tuple(merged)


def _by_name(given: object, where: str, *, least: int) -> tuple[tuple[str, int], ...]:
    pairs = given.items() if isinstance(given, Mapping) else door.items(given, where, error=ConstraintError)
    found: dict[str, int] = {}
    for i, pair in enumerate(pairs):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise ConstraintError(f"{where}[{i}] must be a name and a number of bytes, not {door.shown(pair)}")
        name = door.text(pair[0], f"{where}[{i}]: name", empty=False, error=ConstraintError)
        value = door.size(pair[1], f"{where}: {name!r}", least=least, error=ConstraintError)
        if found.setdefault(name, value) != value:
            raise ConstraintError(f"{where}: {name!r} is given twice, with {found[name]} and {value}")
    return tuple(found.items())


def _pairs(given: object, where: str) -> tuple[tuple[str, str], ...]:
    found: dict[tuple[str, str], None] = {}
    for i, pair in enumerate(door.items(given, where, error=ConstraintError)):
        names = door.texts(pair, f"{where}[{i}]", empty=False, error=ConstraintError)
        if len(names) != 2:
            raise ConstraintError(f"{where}[{i}] must be two names, not {door.shown(pair)}")
        found[names[0], names[1]] = None
    return tuple(found)


#: Nothing is forced.
FREE = Constraints()
