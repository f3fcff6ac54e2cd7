"""Of how many address ranges an operand or a result consists."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from cosma.graph.join import Piece, pieces_read

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cosma.graph import Graph, Operator


def pieces_touched(graph: Graph, operator: Operator) -> list[tuple[str, list[Piece]]]:
    """Pieces of each root that an operator reads, then of each that it writes; roots of one piece are left out."""
    written: dict[str, list[Piece]] = {}
    for name in operator.outputs:
        region = graph.tensors[name].region
        if region is not None:
            written.setdefault(region.root, []).append(Piece(name, region))
    rows = [*pieces_read(operator, graph.tensors, graph.joins).items(), *written.items()]
    return [(root, pieces) for root, pieces in rows if len(pieces) > 1]


def count_ranges(pieces: Sequence[Piece], address: Mapping[str, int], size: Mapping[str, int]) -> int:
    """Count the address ranges that pieces of a root, read or written, make.

    Two pieces are one range where the second begins where the first ends, in memory and in the row-major order of the
    box that the pieces fill. What lies off-chip has no address here: there, neighbours in that order are one range.
    """
    low = [min(axis) for axis in zip(*(piece.region.start for piece in pieces), strict=True)]
    high = [max(axis) for axis in zip(*(piece.region.stop for piece in pieces), strict=True)]
    extent = [b - a for a, b in zip(low, high, strict=True)]
    rows = sorted((_first(piece, low, extent), piece) for piece in pieces if piece.region.count)
    filled = prod(extent) == sum(piece.region.count for piece in pieces)
    count, end, last = 0, -1, ""
    for first, piece in rows:
        inside = address.get(piece.tensor)
        follows = filled and first == end and _is_range(piece, extent)
        if follows and inside is not None:
            before = address.get(last)
            follows = before is not None and before + size[last] == inside
        elif follows:
            follows = last not in address
        count += not follows
        end = first + piece.region.count if _is_range(piece, extent) else -1
        last = piece.tensor
    return count


def _first(piece: Piece, low: Sequence[int], extent: Sequence[int]) -> int:
    """Row-major position, within the box, of a piece's first element."""
    position = 0
    for start, least, size in zip(piece.region.start, low, extent, strict=True):
        position = position * size + start - least
    return position


def _is_range(piece: Piece, extent: Sequence[int]) -> bool:
    """Whether a piece is one range of the box: behind its first long axis, every axis is whole."""
    inside = False
    for count, size in zip(piece.region.shape, extent, strict=True):
        if inside and count != size:
            return False
        inside = inside or count > 1
    return True
