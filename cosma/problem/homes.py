"""Tensors that must lie side by side, where an operand or a result may consist of few address ranges only.

What an operator reads or writes of one root is one *run* where its pieces are more than the accelerator's ``pieces``:
they lie one after another, in row-major order. Runs that share tensors make a *home*, an address range in which each
of its tensors has a fixed place. A tensor that is in no run has no home and lies anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, NamedTuple

from cosma.graph.join import Piece, pieces_read
from cosma.units import align_up

if TYPE_CHECKING:
    from cosma.accelerator import Accelerator
    from cosma.accelerator.constraints import Constraints
    from cosma.graph import Graph, Operator, Tensor


class Refused(NamedTuple):
    """What an operator touches in too many pieces that are not laid side by side."""

    operator: str
    root: str
    #: Whether constraints are why: they settle addresses, or whether a piece lies in the scratchpad.
    is_forced: bool


@dataclass(frozen=True, slots=True)
class Homes:
    """What must lie side by side, by name."""

    #: For each operator, rows of tensors that are one address range while it runs, in order of their addresses.
    runs: Mapping[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    #: For each tensor with a home, the number of the home and its offset in it, in bytes.
    place: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    #: What cannot be one range, or not beside what other operators want.
    refused: tuple[Refused, ...] = ()


def _settles_addresses(constraints: Constraints, alignment: int) -> bool:
    """Whether constraints say where some tensor lies: homes are laid out with none that has a place of its own."""
    return bool(constraints.addresses) or any(alignment % least for _, least in constraints.alignments)


def homes_of(graph: Graph, accelerator: Accelerator) -> Homes:
    """Find the homes of a graph; none where operands may consist of any number of ranges.

    Runs of large roots come first. A run that contradicts those before it is refused. So are all where constraints of
    the accelerator settle addresses, and those of tensors of which they say whether they lie in the scratchpad;
    constraints go by exact names of the graph. Deterministic.
    """
    limit = accelerator.pieces
    if limit is None or not graph.roots:
        return Homes()
    wanted = [
        (operator, root, pieces)
        for operator in graph.operators
        for root, pieces in _operand_pieces(graph, operator)
        if len(pieces) > limit
    ]
    wanted.sort(key=lambda row: -sum(graph.tensors[piece.tensor].size_bytes for piece in row[2]))
    places = _Places(graph.tensors, accelerator.alignment)
    runs: dict[str, list[tuple[str, ...]]] = {}
    constraints = accelerator.constraints
    addressed = _settles_addresses(constraints, accelerator.alignment)
    kept_or_not = {*constraints.resident, *constraints.never_on_chip}
    refused: list[Refused] = []
    for operator, root, pieces in wanted:
        row = address_order(pieces)
        forced = addressed or not kept_or_not.isdisjoint((root, *(row or ())))
        if row is None or forced or not places.join(row):
            refused.append(Refused(operator.name, root, forced))
        else:
            runs.setdefault(operator.name, []).append(row)
    return Homes({name: tuple(rows) for name, rows in runs.items()}, places.numbered(), tuple(refused))


def _operand_pieces(graph: Graph, operator: Operator) -> Iterable[tuple[str, list[Piece]]]:
    """Pieces of each root that an operator reads, then of each that it writes."""
    yield from pieces_read(operator, graph.tensors, graph.joins).items()
    written: dict[str, list[Piece]] = {}
    for name in operator.outputs:
        region = graph.tensors[name].region
        if region is not None:
            written.setdefault(region.root, []).append(Piece(name, region))
    yield from written.items()


def address_order(pieces: Sequence[Piece]) -> tuple[str, ...] | None:
    """Tensors in the order in which they make one address range; None where they do not.

    They do where their boxes fill a box of the root, and each is one range of that box in row-major order.
    """
    starts = [min(axis) for axis in zip(*(piece.region.start for piece in pieces), strict=True)]
    stops = [max(axis) for axis in zip(*(piece.region.stop for piece in pieces), strict=True)]
    shape = tuple(b - a for a, b in zip(starts, stops, strict=True))
    if prod(shape) != sum(piece.region.count for piece in pieces):
        return None
    offsets = []
    for piece in pieces:
        offset = _offset(piece, starts, shape)
        if offset is None:
            return None
        offsets.append((offset, piece.tensor, piece.region.count))
    offsets.sort()
    end = 0
    for offset, _, count in offsets:
        if offset != end:
            return None
        end += count
    return tuple(name for _, name, _ in offsets)


def _offset(piece: Piece, starts: Sequence[int], shape: tuple[int, ...]) -> int | None:
    from cosma.graph.region import Region

    region = piece.region
    low = tuple(a - s for a, s in zip(region.start, starts, strict=True))
    high = tuple(b - s for b, s in zip(region.stop, starts, strict=True))
    return Region(region.root, low, high).offset(shape)


class _Places:
    """Offsets between tensors that lie side by side, as far as they are settled."""

    def __init__(self, tensors: Mapping[str, Tensor], alignment: int) -> None:
        self._tensors, self._alignment = tensors, alignment
        self._groups: dict[str, dict[str, int]] = {}  # offsets of a tensor's group, shared by its members

    def join(self, row: Sequence[str]) -> bool:
        """Lay tensors one after another; False, changing nothing, where that contradicts what is settled."""
        merged: dict[str, int] = {}
        at = 0
        for name in row:
            size = self._tensors[name].size_bytes
            if at % self._alignment or size == 0:
                return False
            group = self._groups.get(name, {name: 0})
            shift = at - group[name]
            for other, offset in group.items():
                if merged.setdefault(other, offset + shift) != offset + shift:
                    return False
            at += size
        ends = sorted((offset, offset + align_up(self._tensors[n].size_bytes, self._alignment), n)
                      for n, offset in merged.items())  # fmt: skip
        if any(later[0] < end for (_, end, _), later in pairwise(ends)):
            return False
        for name in merged:
            self._groups[name] = merged
        return True

    def numbered(self) -> dict[str, tuple[int, int]]:
        """Home and offset of each tensor; offsets count from the lowest of a home."""
        numbers: dict[int, int] = {}
        found: dict[str, tuple[int, int]] = {}
        for name, group in self._groups.items():
            number = numbers.setdefault(id(group), len(numbers))
            found[name] = (number, group[name] - min(group.values()))
        return found
