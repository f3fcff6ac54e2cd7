"""Where tensors lie off-chip: an area that spilled tensors share over time, and areas of their own for the rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, SupportsIndex

import cosma.door as door
from cosma.graph import TensorKind
from cosma.plan.instructions import Execute, Load, Store
from cosma.text import short_repr

if TYPE_CHECKING:
    from cosma.graph import Graph
    from cosma.plan.instructions import Instruction

#: Areas that nothing shares, and the kind of tensor that each holds.
AREAS = {"inputs": TensorKind.INPUT, "weights": TensorKind.WEIGHT, "outputs": TensorKind.OUTPUT}


@dataclass(frozen=True, slots=True)
class Area:
    """A piece of off-chip memory."""

    __repr__ = short_repr

    #: Its size.
    size_bytes: int
    #: Where each tensor begins in it, in bytes.
    offsets: Mapping[str, int] = field(default_factory=dict)

    if TYPE_CHECKING:  # what callers may write; dataclass makes the constructor, and __post_init__ converts

        def __init__(self, size_bytes: SupportsIndex, offsets: Mapping[str, SupportsIndex] = ...) -> None: ...

    def __post_init__(self) -> None:
        size = door.integer(self.size_bytes, "off-chip area: size", least=0, most=door.UNLIMITED)
        object.__setattr__(self, "size_bytes", size)
        object.__setattr__(self, "offsets", door.counts_by_name(self.offsets, "off-chip area: offsets"))


@dataclass(frozen=True, slots=True)
class OffChip:
    """Off-chip memory of a plan."""

    __repr__ = short_repr

    #: The area of intermediate tensors that have an off-chip copy for a while; those that have it at different times
    #: share bytes.
    spilled: Area
    #: No such area of this plan is smaller.
    lower_bound: int
    #: ``inputs``, ``weights`` and ``outputs``: each tensor has bytes of its own. A tensor that was cut lies there
    #: whole, under the name of its root, and so does a graph output that nobody writes: what it consists of is not
    #: listed. A state lies among the outputs, where its next value does. Rows that are selected from a table lie in the
    #: table, which is not listed.
    areas: Mapping[str, Area] = field(default_factory=dict)

    @property
    def minimal(self) -> bool:
        """Whether no smaller area would do for what is spilled."""
        return self.lower_bound >= self.spilled.size_bytes


def off_chip_lifetimes(graph: Graph, instructions: Iterable[Instruction]) -> dict[str, tuple[int, int]]:
    """When each intermediate tensor must lie off-chip: instructions ``[start, end)``, from its first write on.

    What is written and never read again lies there for that instruction alone.
    """
    found: dict[str, tuple[int, int]] = {}
    for i, instruction in enumerate(instructions):
        names: tuple[str, ...] = ()
        match instruction:
            case Store(name) | Load(name, _):
                names = (name,)
            case Execute(_, streamed, _):
                names = streamed
        for name in names:
            tensor = graph.tensors.get(name)
            if tensor is not None and tensor.kind is TensorKind.INTERMEDIATE:
                start, _ = found.get(name, (i, i))
                found[name] = start, i + 1
    return found
