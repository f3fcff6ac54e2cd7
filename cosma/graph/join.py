"""Joins: tensors that are never written as such, because they consist of what others wrote.

The result of a Concat that copies nothing consists of its operands, that of a Split or a Slice of parts of its operand.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cosma.door as door
from cosma.errors import GraphError
from cosma.graph.region import Region

if TYPE_CHECKING:
    from cosma.graph.tensor import Operator, Tensor


@dataclass(frozen=True, slots=True)
class Piece:
    """A tensor of the graph, and the box of a root that it fills."""

    #: Name of the tensor.
    tensor: str
    #: Box of the root, of as many elements as the tensor has.
    region: Region

    def __post_init__(self) -> None:
        object.__setattr__(self, "tensor", door.text(self.tensor, "piece: tensor", empty=False, error=GraphError))
        door.instance(self.region, Region, f"piece {self.tensor!r}: region", error=GraphError)


@dataclass(frozen=True, slots=True)
class Join:
    """What a root consists of that no operator writes."""

    #: Name of the root.
    root: str
    #: Tensors it consists of, in row-major order of where they start.
    pieces: tuple[Piece, ...]
    #: First output name of every ONNX node that is nothing but this join.
    covers: tuple[str, ...] = ()

    if TYPE_CHECKING:  # what callers may write; dataclass makes the constructor, and __post_init__ converts

        def __init__(self, root: str, pieces: Iterable[Piece], covers: Iterable[str] = ...) -> None: ...

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "root", door.text(self.root, "join: root", empty=False, error=GraphError))
        where = f"join {self.root!r}"
        put(self, "pieces", door.sequence(self.pieces, Piece, f"{where}: pieces", error=GraphError))
        put(self, "covers", door.texts(self.covers, f"{where}: covers", error=GraphError))

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of the tensors that the root consists of."""
        return tuple(piece.tensor for piece in self.pieces)

    def cut(self, parts: Mapping[str, Sequence[Tensor]]) -> Join:
        """The same root once tensors that it consists of were cut.

        Parameters
        ----------
        parts
            Parts of each tensor that was cut, by its name.
        """
        found = []
        for piece in self.pieces:
            found += _cut(piece, parts[piece.tensor]) if piece.tensor in parts else [piece]
        return Join(self.root, sorted(found, key=lambda piece: piece.region.start), self.covers)


def _cut(piece: Piece, parts: Sequence[Tensor]) -> list[Piece]:
    """Where the parts of a piece lie; the piece may have axes of size one that the root has not, or fewer."""
    regions = [(part.name, part.region) for part in parts if part.region is not None]
    shape = [max(stops) for stops in zip(*(region.stop for _, region in regions), strict=True)]
    place, extents = piece.region, piece.region.shape
    axes: list[int | None] = list(range(len(shape)))
    if tuple(shape) != extents:
        long = iter(axis for axis, size in enumerate(shape) if size != 1)
        axes = [next(long) if size != 1 else None for size in extents]
    found = []
    for name, region in regions:
        ends = [
            (low, high) if axis is None else (low + region.start[axis], low + region.stop[axis])
            for low, high, axis in zip(place.start, place.stop, axes, strict=True)
        ]
        found.append(Piece(name, Region(place.root, [low for low, _ in ends], [high for _, high in ends])))
    return found


def pieces_of_outputs(joins: Mapping[str, Join], roots: Mapping[str, Tensor]) -> set[str]:
    """Tensors that joins consist of which are graph outputs."""
    return {name for join in joins.values() if roots[join.root].kind == "output" for name in join.tensors}


def roots_by_piece(joins: Mapping[str, Join]) -> dict[str, tuple[str, ...]]:
    """Roots that each tensor is a piece of."""
    found: dict[str, tuple[str, ...]] = {}
    for root, join in joins.items():
        for name in join.tensors:
            found[name] = (*found.get(name, ()), root)
    return found


def check_joins(
    joins: Mapping[str, Join], tensors: Mapping[str, Tensor], roots: Mapping[str, Tensor],
    operators: Iterable[Operator],
) -> None:  # fmt: skip
    """Refuse joins that cannot mean anything; whether pieces lie where they should is for the validator to say.

    Raises GraphError if a root or a piece is unknown, a root has parts of its own as well, or an operator reads what is
    no join.
    """
    cut = {tensor.region.root for tensor in tensors.values() if tensor.region is not None}
    for name, join in joins.items():
        if name not in roots:
            raise GraphError(f"join {name!r} is no root of the graph")
        if name in cut:
            raise GraphError(f"root {name!r} has parts and is a join of other tensors as well")
        for piece in join.pieces:
            if piece.tensor not in tensors:
                raise GraphError(f"join {name!r} consists of {piece.tensor!r}, not a tensor of the graph")
            if piece.region.root != name:
                raise GraphError(f"join {name!r} has a piece that lies in {piece.region.root!r}")
    for operator in operators:
        for name in operator.joined:
            if name not in joins:
                raise GraphError(f"operator {operator.name!r} reads {name!r} by its pieces, which is no join")


def pieces_read(operator: Operator, tensors: Mapping[str, Tensor], joins: Mapping[str, Join]) -> dict[str, list[Piece]]:
    """Pieces of each root that an operator reads, of parts and of joins; tensors that are no pieces are left out."""
    found: dict[str, list[Piece]] = {}
    read = set(operator.operands)
    for name in operator.joined:
        found[name] = [piece for piece in joins[name].pieces if piece.tensor in read]
    inside = {piece.tensor for row in found.values() for piece in row}
    for name in operator.operands:
        region = tensors[name].region
        if region is not None and name not in inside:
            found.setdefault(region.root, []).append(Piece(name, region))
    return found
