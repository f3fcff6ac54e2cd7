"""Which operators are cut, along which axes of their result, and where."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import prod
from typing import TypeVar

from cosma.access.boxes import Box
from cosma.errors import InputError
from cosma.graph import Graph, Operator
from cosma.text import short_repr

T = TypeVar("T")

#: Positions along one axis, ascending and inside it, at which a result is cut.
Cuts = tuple[int, ...]
#: Stands for the axis summed over among the axes of a result.
REDUCED = -1
#: A tile: its region, and its interval of the axis summed over; None for the whole sum.
Piece = tuple[Box, "tuple[int, int] | None"]
#: A tile in an order: its operator, where its region starts (nothing at the origin), and where its interval of the axis
#: summed over does.
TileKey = tuple[str, tuple[int, ...], int]


@dataclass(frozen=True, slots=True)
class Tiling:
    """Cuts of some operators; those not named stay whole.

    Attributes
    ----------
    cuts
        For each operator that is cut, the positions along each axis of its first result.
    segments
        Operators whose tiles are interleaved, segment by segment in the order they run. An operator that no segment
        names is one by itself, in the place that the graph gives it. Empty for one segment of all; a compile then
        chooses segments, unless tiles have an order.
    sums
        For operators that run as chains of partial sums, the positions at which the axis summed over is cut.
    loops
        For some operators, the order in which their tiles are gone through: axes of the result, and ``REDUCED`` for the
        axis summed over, the outermost first. Each axis is gone through back and forth. By default axes come as they
        are, the axis summed over last.
    order
        Tiles in the order they run, each an operator, where its region starts, and where its interval of the axis
        summed over does, see :func:`tile_key`; empty for depth first.
    """

    __repr__ = short_repr

    cuts: Mapping[str, tuple[Cuts, ...]] = field(default_factory=dict)
    segments: tuple[tuple[str, ...], ...] = ()
    sums: Mapping[str, Cuts] = field(default_factory=dict)
    loops: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    order: tuple[TileKey, ...] = ()

    @property
    def operators(self) -> list[str]:
        """Operators that are cut, each once."""
        cut = [name for name, axes in self.cuts.items() if any(axes)]
        return list(dict.fromkeys([*cut, *(name for name, cuts in self.sums.items() if cuts)]))

    @property
    def is_ordered(self) -> bool:
        """Whether the tiling says in which order tiles run; a compile chooses the order otherwise."""
        return bool(self.segments or self.order)

    def fused(self, paths: Mapping[str, Sequence[str]]) -> Tiling | None:
        """The tiling of a network with operators fused.

        What is said of the first of those that are fused holds for all; any other that is named must be cut the same.

        Parameters
        ----------
        paths
            For each operator that is left, those that it stands for, itself the first.

        Returns
        -------
        Tiling or None
            None where two that are fused are cut differently or are in different segments, where one is cut and the
            first is not, or where tiles of another than the first have a place in the order.
        """
        left = {name: head for head, path in paths.items() for name in path}
        given: tuple[Mapping[str, tuple[object, ...]], ...] = (self.cuts, self.sums)
        unlike = any(any(at) and left.get(name, name) not in one for one in given for name, at in one.items())
        if unlike or any(left.get(name, name) != name for name, _, _ in self.order):
            return None
        segments = tuple(tuple(dict.fromkeys(left.get(name, name) for name in names)) for names in self.segments)
        cuts, sums, loops = _carried(self.cuts, left), _carried(self.sums, left), _carried(self.loops, left)
        named = [name for names in segments for name in names]
        if cuts is None or sums is None or loops is None or len(named) > len(set(named)):
            return None
        return Tiling(cuts, segments, sums, loops, self.order)

    def alike(self, other: Tiling) -> bool:
        """Whether another tiling makes the same tiles, in whatever order."""
        own, others = [
            ({name: one.cuts[name] for name in one.cuts if any(one.cuts[name])},
             {name: cuts for name, cuts in one.sums.items() if cuts})
            for one in (self, other)
        ]  # fmt: skip
        return own == others

    def tile_count(self, operators: Iterable[str]) -> int:
        """Tiles of some operators."""
        return sum(
            (len(self.sums.get(name, ())) + 1) * prod(len(at) + 1 for at in self.cuts.get(name, ()))
            for name in operators
        )

    def without(self, operators: Collection[str]) -> Tiling:
        """The tiling of a network that lacks some operators."""
        segments = (tuple(name for name in names if name not in operators) for names in self.segments)
        return Tiling(
            {name: cuts for name, cuts in self.cuts.items() if name not in operators},
            tuple(names for names in segments if names),
            {name: cuts for name, cuts in self.sums.items() if name not in operators},
            {name: axes for name, axes in self.loops.items() if name not in operators},
            tuple(entry for entry in self.order if entry[0] not in operators),
        )

    def pieces(self, operator: str, shape: Sequence[int], reduced: int = 0) -> list[Piece]:
        """Tiles of an operator in the order they are gone through; its whole result where it is not cut.

        Parameters
        ----------
        operator
            Name of the operator.
        shape
            Shape of its result.
        reduced
            Extent of the axis summed over.

        Raises
        ------
        InputError
            If the cuts or the order of the axes do not fit the operator.
        """
        spans = self._spans(operator, shape)
        sums = self.sums.get(operator, ())
        ends = (0, *sums, reduced)
        if sums and any(a >= b for a, b in pairwise(ends)):
            raise InputError(
                f"tiling: operator {operator!r}, axis summed over of {reduced}: cuts at {list(sums)} do not ascend "
                "inside it"
            )
        steps: list[tuple[int, int] | None] = [*pairwise(ends)] if sums else [None]
        plain = (*range(len(shape)), REDUCED)
        loops = self.loops.get(operator, plain)
        if len(loops) == len(shape):
            loops = (*loops, REDUCED)
        if sorted(loops) != sorted(plain):
            raise InputError(
                f"tiling: operator {operator!r}: its tiles cannot be gone through by axes {list(loops)}; name each "
                f"axis of {list(shape)} once"
            )
        counts = [len(steps) if axis == REDUCED else len(spans[axis]) for axis in loops]
        place = [loops.index(axis) for axis in plain]
        return [
            (tuple(spans[axis][at[place[axis]]] for axis in range(len(shape))), steps[at[place[-1]]])
            for at in _back_and_forth(counts)
        ]

    def _spans(self, operator: str, shape: Sequence[int]) -> list[list[tuple[int, int]]]:
        given = self.cuts.get(operator, ((),) * len(shape))
        if len(given) != len(shape):
            raise InputError(f"tiling: operator {operator!r} has {len(shape)} axes, and cuts for {len(given)}")
        spans = []
        for axis, (positions, size) in enumerate(zip(given, shape, strict=True)):
            edges = (0, *positions, size)
            if any(a >= b for a, b in pairwise(edges)) and size > 0:
                raise InputError(
                    f"tiling: operator {operator!r}, axis {axis} of {size}: cuts at {list(positions)} do not ascend "
                    "inside it"
                )
            spans.append(list(pairwise(edges)))
        return spans


def _carried(given: Mapping[str, T], left: Mapping[str, str]) -> dict[str, T] | None:
    """What is given of operators, by those that stand for them; None where two of one say different things."""
    found: dict[str, T] = {}
    for name, value in given.items():
        if found.setdefault(left.get(name, name), value) != value:
            return None
    return found


def _back_and_forth(counts: Sequence[int]) -> list[tuple[int, ...]]:
    """All index tuples, the last index fastest; each index turns round where one before it changes."""
    found: list[tuple[int, ...]] = [()]
    for count in counts:
        ahead = range(count)
        found = [(*index, i) for k, index in enumerate(found) for i in (ahead if k % 2 == 0 else reversed(ahead))]
    return found


def tiling_of_tiles(graph: Graph) -> Tiling:
    """Cuts that make the tiles of a graph, where those of each operator form a grid, and the steps of its sums."""
    found: dict[str, list[set[int]]] = {}
    sums: dict[str, set[int]] = {}
    for operator in graph.operators:
        if operator.tile is not None and operator.accumulation is not None:
            sums.setdefault(operator.tile.root, set()).add(operator.accumulation.start)
        if operator.tile is not None:
            axes = found.setdefault(operator.tile.root, [set() for _ in operator.tile.start])
            for axis, start in zip(axes, operator.tile.start, strict=True):
                axis.add(start)
    return Tiling(
        {name: tuple(tuple(sorted(axis - {0})) for axis in axes) for name, axes in found.items()},
        sums={name: tuple(sorted(starts - {0})) for name, starts in sums.items()},
    )


def order_of_tiles(operators: Iterable[Operator]) -> tuple[TileKey, ...]:
    """How the order of a tiling names operators of a graph of tiles, in the order given."""
    return tuple(
        tile_key(o.name, (), 0) if o.tile is None
        else tile_key(o.tile.root, o.tile.start, 0 if o.accumulation is None else o.accumulation.start)
        for o in operators
    )  # fmt: skip


def tile_key(operator: str, start: Sequence[int], step: int) -> TileKey:
    """How the order of a tiling names a tile."""
    return operator, tuple(start) if any(start) else (), step


def even_cuts(size: int, count: int) -> Cuts:
    """Positions that cut an axis into ``count`` intervals whose lengths differ by one at most."""
    count = max(1, min(count, size))
    return tuple(size * i // count for i in range(1, count))


def step_cuts(size: int, step: int) -> Cuts:
    """Positions that cut an axis every ``step`` elements."""
    return tuple(range(step, size, step))
