"""Regions: boxes of elements of a tensor, half-open along every axis."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, SupportsIndex

import cosma.door as door
from cosma.errors import GraphError


@dataclass(frozen=True, slots=True)
class Region:
    """A box of elements of a root tensor, half-open along each axis.

    Raises GraphError if the two have different lengths, or an interval is negative or ends before it starts.
    """

    #: Name of the tensor that the box lies in.
    root: str
    #: Half-open interval along every axis of the root.
    start: tuple[int, ...]
    stop: tuple[int, ...]

    if TYPE_CHECKING:  # what callers may write; dataclass makes the constructor, and __post_init__ converts

        def __init__(self, root: str, start: Iterable[SupportsIndex], stop: Iterable[SupportsIndex]) -> None: ...

    def __post_init__(self) -> None:
        put = object.__setattr__
        where = f"region of {door.shown(self.root)}"
        put(self, "root", door.text(self.root, f"{where}: root", empty=False, error=GraphError))
        put(self, "start", door.integers(self.start, f"{where}: start", least=0, error=GraphError))
        put(self, "stop", door.integers(self.stop, f"{where}: stop", least=0, error=GraphError))
        if len(self.start) != len(self.stop) or any(a > b for a, b in zip(self.start, self.stop, strict=True)):
            raise GraphError(f"{where}: {list(self.start)} to {list(self.stop)} is no box")

    @classmethod
    def of_box(cls, root: str, box: Iterable[tuple[int, int]]) -> Region:
        """A box of a root by its interval along each axis."""
        spans = tuple(box)
        return cls(root, tuple(start for start, _ in spans), tuple(stop for _, stop in spans))

    @property
    def box(self) -> tuple[tuple[int, int], ...]:
        """Interval along each axis."""
        return tuple(zip(self.start, self.stop, strict=True))

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of elements along each axis."""
        return tuple(b - a for a, b in zip(self.start, self.stop, strict=True))

    @property
    def count(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def slices(self) -> tuple[slice, ...]:
        """The box as NumPy selects it from the root."""
        return tuple(slice(a, b) for a, b in zip(self.start, self.stop, strict=True))

    def overlap(self, other: Region) -> int:
        """Number of elements that two boxes of one root share; 0 for boxes of different ranks."""
        if len(self.start) != len(other.start):
            return 0
        lows = (max(a, b) for a, b in zip(self.start, other.start, strict=True))
        highs = (min(a, b) for a, b in zip(self.stop, other.stop, strict=True))
        return prod(max(0, high - low) for low, high in zip(lows, highs, strict=True))

    def is_within(self, shape: tuple[int, ...]) -> bool:
        """Whether the box lies inside a root of this shape."""
        return len(shape) == len(self.stop) and all(b <= size for b, size in zip(self.stop, shape, strict=True))

    def offset(self, shape: tuple[int, ...]) -> int | None:
        """Element of the root at which the box starts in row-major order; None if it is not one address range."""
        extents = self.shape
        if not self.count:
            return 0
        wide = [axis for axis, size in enumerate(extents) if size > 1]
        first = wide[0] if wide else len(shape)
        if any(extents[axis] != shape[axis] for axis in range(first + 1, len(shape))):
            return None
        position = 0
        for index, size in zip(self.start, shape, strict=True):
            position = position * size + index
        return position

    def label(self, shape: tuple[int, ...]) -> str:
        """Name of the box as a part of its root, such as ``e[:, 5, :]``."""
        spans = []
        for a, b, size in zip(self.start, self.stop, shape, strict=True):
            spans.append(":" if (a, b) == (0, size) else str(a) if b == a + 1 else f"{a}:{b}")
        return f"{self.root}[{', '.join(spans)}]"


def box_of_range(root: str, shape: tuple[int, ...], start: int, stop: int) -> Region | None:
    """The box that holds elements ``[start, stop)`` in row-major order; None where that is no box."""
    if start >= stop:
        return None
    inner = prod(shape)
    low: list[int] = []
    for axis, size in enumerate(shape):
        outer, inner = inner, inner // size
        if start // outer != (stop - 1) // outer:
            return None
        if not start % inner and not stop % inner:
            first, last = start % outer // inner, (stop - 1) % outer // inner
            rest = shape[axis + 1 :]
            return Region(root, (*low, first, *(0 for _ in rest)), (*(i + 1 for i in low), last + 1, *rest))
        low.append(start % outer // inner)
    return None
