"""An operator where it stands: what it means, and the shapes of its operands and results by position."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cosma.access.boxes import Box, whole
from cosma.graph.tensor import Part

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Site:
    """One ONNX operator with its operands."""

    #: Type, domain and attributes.
    part: Part
    #: Shape of each operand by position, as the operator sees it; None for an absent one.
    operands: tuple[Shape | None, ...]
    #: Shape of each result by position; None for an absent one.
    results: tuple[Shape | None, ...]
    #: Values of constant operands that are parameters, by position, flat: pads of Pad, scales of Resize; and the
    #: indices of Gather.
    contents: Mapping[int, tuple[float, ...]] = field(default_factory=dict)
    #: Version of ONNX's own operators.
    opset: int = 22

    def integers(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """Attribute that is a list of integers."""
        value = self.part.attribute(name)
        if value is None:
            return default
        return tuple(int(v) for v in value) if isinstance(value, tuple) else (int(value),)

    def integer(self, name: str, default: int) -> int:
        """Attribute that is an integer."""
        value = self.part.attribute(name)
        return default if not isinstance(value, int | float) else int(value)

    def text(self, name: str, default: str) -> str:
        """Attribute that is a text."""
        value = self.part.attribute(name)
        return value if isinstance(value, str) else default

    @property
    def result(self) -> Shape:
        """Shape of the first result."""
        assert self.results
        assert self.results[0] is not None
        return self.results[0]

    def shape(self, position: int) -> Shape | None:
        """Shape of an operand, None where it is absent."""
        return self.operands[position] if position < len(self.operands) else None

    def all_of(self, position: int) -> Box | None:
        """All of an operand, None where it is absent."""
        shape = self.shape(position)
        return None if shape is None else whole(shape)


@dataclass(frozen=True, slots=True)
class Argument:
    """One operand of a node, in terms of the graph."""

    #: Tensor that holds it, or the value's name where it exists within an operator only.
    value: str
    #: Shape as the node sees it: that of a view of the tensor, perhaps.
    shape: Shape
    #: For a constant, the weights that it is read from.
    stored: tuple[str, ...] = ()
    #: Whether it is a constant.
    constant: bool = False
    #: Whether each element of a constant comes from the element at its place of a stored one of its shape, as in
    #: dequantising; a transposed one does not.
    aligned: bool = False


@dataclass(frozen=True, slots=True)
class NodeSite:
    """A node of a model, in terms of the graph."""

    #: What it means and the shapes at hand.
    site: Site
    #: Each operand by position; None for an absent one.
    operands: tuple[Argument | None, ...]
    #: Name of each result by position; empty for an absent one.
    results: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TileNode:
    """How a tile computes its region with the operator's own kernel, from slices of the operands."""

    #: Attributes in place of the operator's, such as explicit pads.
    attributes: Mapping[str, Any] = field(default_factory=dict)
    #: Where the region starts in what the kernel yields, by axis; empty for the origin.
    crop: tuple[int, ...] = ()
    #: Values in place of constant parameters, by position: in the shape of the region read where they fill it, else as
    #: one axis.
    contents: Mapping[int, tuple[float, ...]] = field(default_factory=dict)


class Access(ABC):
    """Rule of one kind of operator."""

    def cuts(self, site: Site) -> tuple[bool, ...]:
        """Return along which axes of the first result a tile reads less than the whole operator; all by default."""
        return (True,) * len(site.result)

    @abstractmethod
    def reads(self, site: Site, box: Box) -> tuple[Box | None, ...]:
        """Return the region of each operand that a region of the first result depends on; None: nothing of it."""

    def tile(self, site: Site, box: Box) -> TileNode | None:
        """Return how to compute a region from slices, by default the operator itself; None where the kernel cannot."""
        return TileNode()


class Contraction(Access):
    """Base of rules whose operator sums over an axis, so that it may run as a chain of partial sums."""

    def reduced(self, site: Site) -> int:
        """Return the extent of the axis summed over; 0 where partial sums cannot be computed."""
        return 0

    @abstractmethod
    def narrowed(
        self, site: Site, reads: tuple[Box | None, ...], span: tuple[int, int], *, first: bool
    ) -> tuple[Box | None, ...]:
        """Return what one partial sum reads, of what the whole sum reads.

        ``span`` is its interval of the axis summed over; the first is the one that adds the bias.
        """


def along(box: Box | None, axis: int, span: tuple[int, int]) -> Box | None:
    """Box with the interval of one axis replaced."""
    if box is None:
        return None
    axis %= len(box)
    return (*box[:axis], span, *box[axis + 1 :])


class Barrier(Access):
    """Every region depends on everything."""

    def cuts(self, site: Site) -> tuple[bool, ...]:
        """No axis."""
        return (False,) * len(site.results[0] or ()) if site.results else ()

    def reads(self, site: Site, box: Box) -> tuple[Box | None, ...]:
        """All of every operand."""
        return tuple(site.all_of(i) for i in range(len(site.operands)))

    def tile(self, site: Site, box: Box) -> TileNode | None:
        """Only the whole operator can be computed."""
        return TileNode() if box == whole(site.result) else None
