"""The five instructions a plan consists of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeAlias


@dataclass(frozen=True, slots=True)
class Load:
    """Copy a tensor from off-chip memory to an address; it keeps its off-chip copy."""

    do: ClassVar[str] = "load"
    tensor: str
    address: int


@dataclass(frozen=True, slots=True)
class Allocate:
    """Reserve space for a result that the next :class:`Execute` writes.

    With ``in_place_of`` the result takes over that operand's address, and the operand is gone from the
    scratchpad once the operator has run.
    """

    do: ClassVar[str] = "allocate"
    tensor: str
    address: int
    in_place_of: str | None = None


@dataclass(frozen=True, slots=True)
class Execute:
    """Run an operator; operands and results listed in ``streamed`` are read or written off-chip."""

    do: ClassVar[str] = "execute"
    operator: str
    streamed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Store:
    """Copy a tensor from the scratchpad to off-chip memory; it stays in the scratchpad."""

    do: ClassVar[str] = "store"
    tensor: str


@dataclass(frozen=True, slots=True)
class Free:
    """Give up a tensor's space."""

    do: ClassVar[str] = "free"
    tensor: str


Instruction: TypeAlias = Load | Allocate | Execute | Store | Free
