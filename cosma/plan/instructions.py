"""The five instructions a plan consists of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, SupportsIndex, TypeAlias

import cosma.door as door
from cosma.text import short_repr


@dataclass(frozen=True, slots=True)
class Load:
    """Copy a tensor from off-chip memory to an address; it keeps its off-chip copy."""

    __repr__ = short_repr

    do: ClassVar[str] = "load"
    tensor: str
    address: int

    if TYPE_CHECKING:  # what callers may write; dataclass makes the constructor, and __post_init__ converts

        def __init__(self, tensor: str, address: SupportsIndex) -> None: ...

    def __post_init__(self) -> None:
        _name(self, "tensor")
        _address(self)


@dataclass(frozen=True, slots=True)
class Allocate:
    """Reserve space for a result that the next :class:`Execute` writes.

    With ``in_place_of`` the result takes over that operand's address, and the operand is gone from the
    scratchpad once the operator has run.
    """

    __repr__ = short_repr

    do: ClassVar[str] = "allocate"
    tensor: str
    address: int
    in_place_of: str | None = None

    if TYPE_CHECKING:  # as above

        def __init__(self, tensor: str, address: SupportsIndex, in_place_of: str | None = ...) -> None: ...

    def __post_init__(self) -> None:
        _name(self, "tensor")
        _address(self)
        if self.in_place_of is not None:
            _name(self, "in_place_of")


@dataclass(frozen=True, slots=True)
class Execute:
    """Run an operator; operands and results listed in ``streamed`` are read or written off-chip.

    ``workspace`` is the address of its scratch space, where it needs any.
    """

    __repr__ = short_repr

    do: ClassVar[str] = "execute"
    operator: str
    streamed: tuple[str, ...] = ()
    workspace: int | None = None

    if TYPE_CHECKING:  # as above

        def __init__(
            self, operator: str, streamed: Iterable[str] = ..., workspace: SupportsIndex | None = ...
        ) -> None: ...

    def __post_init__(self) -> None:
        _name(self, "operator")
        if self.streamed != ():
            object.__setattr__(self, "streamed", door.texts(self.streamed, "execute: streamed"))
        if self.workspace is not None:
            at = door.integer(self.workspace, "execute: workspace", most=door.UNLIMITED)
            object.__setattr__(self, "workspace", at)


@dataclass(frozen=True, slots=True)
class Store:
    """Copy a tensor from the scratchpad to off-chip memory; it stays in the scratchpad."""

    __repr__ = short_repr

    do: ClassVar[str] = "store"
    tensor: str

    def __post_init__(self) -> None:
        _name(self, "tensor")


@dataclass(frozen=True, slots=True)
class Free:
    """Give up a tensor's space."""

    __repr__ = short_repr

    do: ClassVar[str] = "free"
    tensor: str

    def __post_init__(self) -> None:
        _name(self, "tensor")


def _name(instruction: Instruction, field: str) -> None:
    value = getattr(instruction, field)
    if type(value) is not str or not value.isascii():
        object.__setattr__(instruction, field, door.text(value, f"{instruction.do}: {field}"))


def _address(instruction: Load | Allocate) -> None:
    # Any whole number: that an address lies outside the scratchpad is for the replay to say.
    if type(instruction.address) is not int or abs(instruction.address) > door.UNLIMITED:
        address = door.integer(instruction.address, f"{instruction.do}: address", most=door.UNLIMITED)
        object.__setattr__(instruction, "address", address)


Instruction: TypeAlias = Load | Allocate | Execute | Store | Free
