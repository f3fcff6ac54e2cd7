"""A graph as the grids its operators can be cut on: rows, channels and columns of every tensor, as arrays.

Every tensor has up to three axes that may be cut, its *rows*, its *channels* and its *columns*; the others stay whole.
For each operand of an operator, tables say which of them a row, a channel or a column of the result reads. They are
exact where an operand's axis follows one axis of the result, and a superset otherwise: they guide a choice, and the
tiles made of it have the exact regions of :mod:`cosma.access`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from cosma.access import NodeSite
from cosma.access.operator import OperatorAccess, SumStep, operator_access
from cosma.arrays import Bytes, Ints
from cosma.graph import Graph, Operator, TensorKind
from cosma.graph.in_place import may_overwrite
from cosma.tiling.axes import Axes, slab, tensor_axes
from cosma.tiling.rows import int64s, starts_of

#: Longest axis that is cut: tables of access have an entry for each position.
LONGEST_AXIS = 1 << 16
#: Slices that are looked at one by one; not measured.
FEW_SLICES = 8
#: Where an operand's interval along an axis comes from: all of it, the tile's rows, channels or columns, or its
#: interval of the axis summed over.
ALL, BY_ROWS, BY_CHANNELS, BY_COLUMNS, BY_SUM = 0, 1, 2, 3, 4
#: Which steps of a chain of partial sums read an operand.
EVERY_STEP, FIRST_STEP, LAST_STEP = 0, 1, 2


class Grid(NamedTuple):
    """Operators, activations and weights by number; tables are CSR.

    Attributes
    ----------
    size, rows, channels, columns
        Bytes, extent of the row axis, of the channel axis and of the column axis of each tensor; 1 where it has none.
    is_weight
        1 where a tensor is a weight.
    clean, stored
        1 where a copy lies off-chip from the start; 1 where the first store is not compulsory.
    place
        For each tensor, the places of rows, channels and columns among its axes, from the outermost.
    maker
        Operator that yields each tensor, -1 for none.
    height, width, breadth, depth
        Rows, channels and columns into which each operator's result can be cut at the most, and partial sums.
    weight
        Weight bytes of each operator.
    selects
        1 where an operator reads a part of its operands although it is not cut; the others then read all.
    start, operand
        Tensors that each operator reads, weights included.
    row_source, row_table, channel_source, channel_table, column_source, column_table
        Beside ``operand``: what its rows, channels and columns follow, and where in ``low`` and ``high`` the table
        starts.
    read_by
        Beside ``operand``: which steps of a chain of partial sums read it.
    given_up
        Beside ``operand``: 1 where the result may be written over it.
    low, high
        Tables of intervals, half-open: of the operand, by row, channel or column of the result. Where a slice reads
        nothing, the interval is empty and lies where that of the slice before ends.
    result_start, result
        Tensors that each operator yields.
    """

    size: Ints
    rows: Ints
    channels: Ints
    columns: Ints
    is_weight: Bytes
    clean: Bytes
    stored: Bytes
    place: Ints
    maker: Ints
    height: Ints
    width: Ints
    breadth: Ints
    depth: Ints
    weight: Ints
    selects: Bytes
    start: Ints
    operand: Ints
    row_source: Ints
    row_table: Ints
    channel_source: Ints
    channel_table: Ints
    column_source: Ints
    column_table: Ints
    read_by: Ints
    given_up: Ints
    low: Ints
    high: Ints
    result_start: Ints
    result: Ints


#: Arrays of a grid by operator, and by operand of an operator beside the operand itself.
BY_OPERATOR = ("height", "width", "breadth", "depth", "weight", "selects")
BY_EDGE = (
    "row_source", "row_table", "channel_source", "channel_table", "column_source", "column_table", "read_by",
    "given_up",
)  # fmt: skip


class GridGraph(NamedTuple):
    """A grid with what its numbers stand for.

    Attributes
    ----------
    grid
        The arrays.
    access
        Access of each operator.
    axes
        Row axis, channel axis and column axis of each operator's result; -1 where it has none.
    """

    grid: Grid
    access: tuple[OperatorAccess, ...]
    axes: tuple[Axes, ...]


def build_grid(graph: Graph, sites: Mapping[str, NodeSite]) -> GridGraph:
    """Look at every operator of a graph; linear in the graph and in the extents of its axes."""
    access = tuple(operator_access(graph, sites, operator) for operator in graph.operators)
    tensors = list(graph.tensors.values())
    number = {tensor.name: i for i, tensor in enumerate(tensors)}
    axes: list[Axes] = []
    for name, own in tensor_axes(graph, access).items():
        shape = graph.tensors[name].shape
        row, channel, column = (axis if _extent(shape, axis) <= LONGEST_AXIS else -1 for axis in own)
        axes.append((row, channel, column))
    maker = np.full(len(tensors), -1, dtype=np.int64)
    for v, one in enumerate(access):
        maker[[number[name] for name in one.operator.outputs]] = v
    tables = _Tables()
    touches: list[list[tuple[int, ...]]] = []
    heights, widths, breadths, depths, weights = [], [], [], [], []
    for one in access:
        shape = one.shapes.get(one.result, ())
        own, allowed = axes[number[one.result]], one.cuts()
        extents = [shape[axis] if axis >= 0 and allowed[axis] else 1 for axis in own]
        depth = max(1, one.reduced())
        extents.append(depth if depth <= LONGEST_AXIS else 1)
        touches.append(_touches(graph, one, number, axes, extents, tables))
        heights.append(extents[0])
        widths.append(extents[1])
        breadths.append(extents[2])
        depths.append(extents[3])
        weights.append(sum(graph.tensors[w].size_bytes for w in one.operator.weights))
    flat = [entry for row in touches for entry in row]
    results = [[number[name] for name in one.operator.outputs] for one in access]
    table = np.array(flat, dtype=np.int64).reshape(len(flat), 9)
    grid = Grid(
        size=int64s([t.size_bytes for t in tensors]),
        rows=int64s([_extent(t.shape, own[0]) for t, own in zip(tensors, axes, strict=True)]),
        channels=int64s([_extent(t.shape, own[1]) for t, own in zip(tensors, axes, strict=True)]),
        columns=int64s([_extent(t.shape, own[2]) for t, own in zip(tensors, axes, strict=True)]),
        is_weight=np.array([t.kind is TensorKind.WEIGHT for t in tensors], dtype=np.uint8),
        clean=np.array([t.kind in (TensorKind.INPUT, TensorKind.WEIGHT) for t in tensors], dtype=np.uint8),
        stored=np.array([t.kind is TensorKind.INTERMEDIATE for t in tensors], dtype=np.uint8),
        place=np.argsort(np.argsort(np.array(axes, dtype=np.int64), axis=1, kind="stable"), axis=1).astype(np.int64),
        maker=maker,
        height=int64s(heights),
        width=int64s(widths),
        breadth=int64s(breadths),
        depth=int64s(depths),
        weight=int64s(weights),
        selects=np.array([bool(one.operator.reads) for one in access], dtype=np.uint8),
        start=starts_of(touches),
        operand=table[:, 0].copy(),
        row_source=table[:, 1].copy(),
        row_table=table[:, 2].copy(),
        channel_source=table[:, 3].copy(),
        channel_table=table[:, 4].copy(),
        column_source=table[:, 5].copy(),
        column_table=table[:, 6].copy(),
        read_by=table[:, 7].copy(),
        given_up=table[:, 8].copy(),
        low=int64s(tables.low),
        high=int64s(tables.high),
        result_start=starts_of(results),
        result=int64s([t for row in results for t in row]),
    )
    return GridGraph(grid, access, tuple(axes[number[one.result]] for one in access))


def _read_by(one: OperatorAccess, depth: int) -> dict[str, int]:
    """Which steps of a chain of partial sums read each operand; those that every step reads are left out."""
    if depth < 2:
        return {}
    box = tuple((0, size) for size in one.shapes[one.result])
    first, inner, last = (
        one.reads(box, SumStep((0, depth), *ends)).keys() for ends in ((True, False), (False, False), (False, True))
    )
    found = dict.fromkeys(first - inner - last, FIRST_STEP)
    return found | dict.fromkeys(last - inner - first, LAST_STEP)


def _touches(
    graph: Graph,
    one: OperatorAccess,
    number: Mapping[str, int],
    axes: Sequence[Axes],
    extents: Sequence[int],
    tables: _Tables,
) -> list[tuple[int, ...]]:
    """Every operand with what its rows, channels and columns follow, and the tables of that."""
    shape = one.shapes.get(one.result, ())
    probes = {
        source: _Probe(one, shape, axis, extent)
        for source, axis, extent in zip(
            (BY_ROWS, BY_CHANNELS, BY_COLUMNS, BY_SUM), (*axes[number[one.result]], -1), extents, strict=True
        )
        if extent > 1
    }
    read_by = _read_by(one, extents[3])
    found = []
    for name in dict.fromkeys(one.operator.operands):
        entry = [number[name]]
        for own, axis in zip((BY_ROWS, BY_CHANNELS, BY_COLUMNS), axes[number[name]], strict=True):
            source, table, least = ALL, 0, -1
            # Where some slices read nothing of an operand (Concat), its axis of the same kind says so, or any axis
            # where steps of a sum do: they add up one piece of what is joined after another.
            for candidate, probe in probes.items():
                may_miss = candidate in (own, BY_SUM)
                if axis < 0 or not (probe.follows(name, axis) or (may_miss and probe.misses(name, axis))):
                    continue
                low, high = probe.intervals(name, axis)
                read = (sum(high) - sum(low)) // len(low)
                # Ends of a range say what it reads only where they go one way. What narrows an axis most cuts it.
                if _monotone(low) and _monotone(high) and (least < 0 or read < least):
                    source, table, least = candidate, tables.add(low, high), read
            entry += [source, table]
        found.append((*entry, read_by.get(name, EVERY_STEP), _is_given_up(graph, one.operator, name)))
    return found


def _is_given_up(graph: Graph, operator: Operator, operand: str) -> bool:
    """Whether a tile may be written over a part of the operand at the same place; pieces of joins lie elsewhere."""
    return not operator.joined and may_overwrite(operator, graph.tensors[operator.outputs[0]], graph.tensors[operand])


def _monotone(values: Sequence[int]) -> bool:
    """Whether values never fall, or never rise."""
    steps = np.diff(values)
    return bool((steps >= 0).all() or (steps <= 0).all())


class _Probe:
    """Reads of single slices of a result along one axis, or along the axis summed over, -1."""

    __slots__ = ("axis", "every", "extent", "one", "seen", "shape")

    def __init__(self, one: OperatorAccess, shape: tuple[int, ...], axis: int, extent: int) -> None:
        self.one, self.shape, self.axis, self.extent = one, shape, axis, extent
        self.every = one.reads(slab(shape, {}))
        self.seen: dict[int, Mapping[str, tuple[tuple[int, int], ...]]] = {}

    def at(self, position: int, name: str, axis: int) -> tuple[int, int] | None:
        """Interval of an operand's axis that one slice reads; None where the slice reads nothing of it."""
        if position not in self.seen:
            self.seen[position] = self.over((position, position + 1))
        box = self.seen[position].get(name)
        return None if box is None else box[axis]

    def over(self, span: tuple[int, int]) -> Mapping[str, tuple[tuple[int, int], ...]]:
        """What some slices, half-open, read of each operand."""
        if self.axis >= 0:
            return self.one.touches(slab(self.shape, {self.axis: span}), None, self.every)
        return self.one.touches(slab(self.shape, {}), SumStep(span, True, True), self.every)

    def samples(self, begin: int = 0, end: int | None = None) -> list[int]:
        """Slices that are looked at before all of them are: both ends, and pairs within."""
        n = (self.extent if end is None else end) - begin
        few = {0, 1, 2, n // 4, n // 2, n // 2 + 1, 3 * n // 4, n - 2, n - 1}
        return sorted({begin + i for i in few if 0 <= i < n})

    def follows(self, name: str, axis: int) -> bool:
        """Whether some slice reads a part of the operand's axis."""
        whole = (0, self.one.shapes[name][axis])
        return any(self.at(i, name, axis) not in (None, whole) for i in self.samples())

    def misses(self, name: str, axis: int) -> bool:
        """Whether some slice reads nothing of the operand."""
        return any(self.at(i, name, axis) is None for i in self.samples())

    def intervals(self, name: str, axis: int) -> tuple[list[int], list[int]]:
        """Interval for every slice."""
        every, reached = [], 0
        for span in self._spans(name, axis, 0, self.extent):
            every.append(span or (reached, reached))
            reached = every[-1][1]
        return [low for low, _ in every], [high for _, high in every]

    def _spans(self, name: str, axis: int, begin: int, end: int) -> list[tuple[int, int] | None]:
        """Interval of each slice of some, from a rule that samples confirm, or else of each half by itself."""
        if end - begin <= FEW_SLICES:
            return [self.at(i, name, axis) for i in range(begin, end)]
        together = self.over((begin, end)).get(name)
        if together is None:
            return [None] * (end - begin)
        seen = {i: self.at(i, name, axis) for i in self.samples(begin, end)}
        first, last = (begin + part * (end - begin) // 4 for part in (1, 3))
        a, b = seen[first], seen[last]
        if a is not None and b is not None:
            rule = _Rule(b[0] - a[0], last - first, first, a, self.one.shapes[name][axis])
            ends = rule.at(begin), rule.at(end - 1)
            hull = min(low for low, _ in ends), max(high for _, high in ends)
            if hull == together[axis] and all(rule.at(i) == span for i, span in seen.items()):
                return [rule.at(i) for i in range(begin, end)]
        middle = (begin + end) // 2
        return [*self._spans(name, axis, begin, middle), *self._spans(name, axis, middle, end)]


class _Rule(NamedTuple):
    """Intervals of one length at steps of one size, clipped."""

    rise: int
    run: int
    origin: int
    there: tuple[int, int]
    size: int

    def at(self, position: int) -> tuple[int, int]:
        """Interval at a position."""
        if self.rise % self.run:
            return -1, -1
        shift = (position - self.origin) * (self.rise // self.run)
        return max(0, self.there[0] + shift), min(self.size, self.there[1] + shift)


class _Tables:
    """Tables of intervals one behind another, equal ones once."""

    __slots__ = ("high", "known", "low")

    def __init__(self) -> None:
        self.low: list[int] = []
        self.high: list[int] = []
        self.known: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {}

    def add(self, low: list[int], high: list[int]) -> int:
        """Where a table starts."""
        key = (tuple(low), tuple(high))
        if key not in self.known:
            self.known[key] = len(self.low)
            self.low += low
            self.high += high
        return self.known[key]


def _extent(shape: tuple[int, ...] | None, axis: int) -> int:
    return 1 if shape is None or axis < 0 else max(1, shape[axis])
