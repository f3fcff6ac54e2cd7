"""A node with the shapes around it, as the judge's rules see it, and boxes of elements."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from onnx import NodeProto

    Array = np.ndarray[Any, Any]

Shape = tuple[int, ...]
#: Half-open interval for each axis.
Span = tuple[int, int]
Box = tuple[Span, ...]
#: What is needed of each operand by position: a box; operands of which nothing is needed are left out.
Wanted = list[tuple[int, Box]]


class NoRuleError(Exception):
    """Nothing is known of what a region depends on."""


@dataclass(frozen=True, slots=True)
class Place:
    """One node with the shapes around it.

    Attributes
    ----------
    node, attributes
        The node, and its attributes by name.
    operands
        Shape of each operand by position; None for an absent one.
    results
        Shape of each result by position; None for an absent one.
    content
        Yields the content of a constant operand by position, None where it is not known.
    moved
        Yields, for a node that only moves elements of its first operand, where each element of the result comes from.
    opset
        Version of ONNX's own operators.
    """

    node: NodeProto
    attributes: Mapping[str, Any]
    operands: tuple[Shape | None, ...]
    results: tuple[Shape | None, ...]
    content: Callable[[int], Array | None]
    moved: Callable[[], Array | None]
    opset: int

    def shape(self, position: int) -> Shape:
        """Shape of an operand that must be there."""
        shape = self.operands[position] if position < len(self.operands) else None
        if shape is None:
            raise NoRuleError
        return shape

    def has(self, position: int) -> bool:
        """Whether an operand is there."""
        return position < len(self.node.input) and bool(self.node.input[position])

    def everything_of(self, *positions: int) -> Wanted:
        """All of some operands, where they are there."""
        return [(i, all_of(self.shape(i))) for i in positions if self.has(i)]

    def values(self, name: str, position: int | None = None) -> tuple[int, ...] | None:
        """A list of integers from an attribute or, where that is not there, a constant operand."""
        if name in self.attributes:
            return tuple(int(v) for v in self.attributes[name])
        if position is None or not self.has(position):
            return None
        found = self.content(position)
        if found is None:
            raise NoRuleError
        return tuple(int(v) for v in np.asarray(found).reshape(-1))


Rule = Callable[[Place, int, Box], Wanted]


def all_of(shape: Shape) -> Box:
    """Box of a whole tensor."""
    return tuple((0, size) for size in shape)


def size_of(box: Box) -> int:
    """Number of elements of a box."""
    return prod(b - a for a, b in box)


def hull_of(positions: Array, shape: Shape) -> Box:
    """Smallest box that contains elements given by their places in row-major order."""
    if not shape:
        return ()
    return tuple((int(axis.min()), int(axis.max()) + 1) for axis in np.unravel_index(positions, shape))


def aligned(box: Box, shape: Shape, result: Shape) -> Box:
    """Region of an operand that is broadcast: its last axes are the result's last ones."""
    if len(shape) > len(result):
        raise NoRuleError
    tail = len(result) - len(shape)
    found = []
    for axis, size in enumerate(shape):
        if size == result[tail + axis]:
            found.append(box[tail + axis])
        elif size == 1:
            found.append((0, 1))
        else:
            raise NoRuleError
    return tuple(found)


def box_of_result(box: Box, first: Shape, shape: Shape) -> Box:
    """Box of a result that a tile writes, by its box of the first: all of it along axes of another extent.

    Raises NoRuleError where the tile is only a part of the first along such an axis.
    """
    if shape == first:
        return box
    if len(shape) != len(first):
        raise NoRuleError
    found = []
    for span, own, size in zip(box, first, shape, strict=True):
        if own != size and span != (0, own):
            raise NoRuleError
        found.append(span if own == size else (0, size))
    return tuple(found)
